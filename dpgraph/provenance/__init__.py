"""Which elements of each value depend on which sample: the analysis, and the soundness check."""
