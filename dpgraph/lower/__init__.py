"""From the rewritten joint graph to a module that runs."""
