"""Per-sample gradients in the forms that know how to compute themselves; plain torch code, no graph."""
