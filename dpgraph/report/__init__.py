"""What the rewriting saved, read off the graphs."""
