"""Small models of the architectures that dpgraph supports, with random weights."""
