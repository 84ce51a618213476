"""Kernels in Triton, and in C++ for CPUs.

torch brings Triton along where it is built for GPUs: a module here is imported only there. A source in C++ is compiled
when it is first asked for.
"""
