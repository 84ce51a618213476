"""Programs of all kinds against the loop over the samples."""
