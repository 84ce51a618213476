"""Guards by which torch chooses among kernels that compute the same; nothing else may be decided by them."""

from typing import Any

__all__ = ["chooses_kernel"]

KERNEL_CHOICES = {
    "torch/_subclasses/fake_impls.py": {"conv"},
    "torch/_inductor/decomposition.py": {"mm", "addmm", "bmm"},
    "torch/functional.py": {"cdist"},
    "torch/nn/functional.py": {"affine_grid"},
}


def chooses_kernel(guard: Any) -> bool:
    """Whether a guard stands for torch's choice among kernels of one operator, which compute the same.

    On CPU a convolution with 1x1 filters takes another kernel from 16 images on, and a product of a column with a row
    of at most 32 numbers in all is an elementwise one; from 26 rows on, distances come out of a product of matrices.
    `affine_grid` looks for the smallest of its sizes to refuse an empty one, and does nothing else with it.
    """
    location = guard.sloc.framework_loc
    path, function = getattr(location, "filename", "").replace("\\", "/"), getattr(location, "name", "")
    return any(path.endswith(file) and function in names for file, names in KERNEL_CHOICES.items())
