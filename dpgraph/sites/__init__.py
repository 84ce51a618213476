"""Where the samples disappear on the way to a parameter's gradient, and the gradient of each sample there."""
