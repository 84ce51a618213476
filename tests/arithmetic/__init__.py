"""The bound in the arithmetic that runs."""
