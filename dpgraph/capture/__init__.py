"""From a module to a joint graph with known roles."""
