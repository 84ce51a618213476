"""Gradient rules by family; importing this package registers them all."""

from dpgraph.gradients.rules import convolution, embedding, linear, matmul

__all__ = ["convolution", "embedding", "linear", "matmul"]
