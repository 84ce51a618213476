"""Kernels in Triton, which torch brings along where it is built for GPUs: a module here is imported only there."""
