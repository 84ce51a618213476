"""Many architectures as they are, each against a loop over its samples."""
