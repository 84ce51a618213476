"""A compiled graph against itself, run op by op, before anything that it computes is handed out."""
