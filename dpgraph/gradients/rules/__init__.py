"""Gradient rules by family; whoever imports the tables from here has all of them."""

from dpgraph.gradients.registry import GRADIENT_RULES, LINEAR_RULES
from dpgraph.gradients.rules import convolution, embedding, linear, matmul, sums

__all__ = ["GRADIENT_RULES", "LINEAR_RULES", "convolution", "embedding", "linear", "matmul", "sums"]
