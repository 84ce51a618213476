"""Guards by which torch chooses among kernels that compute the same; nothing else may be decided by them.

What the tracer learns from a guard it does not ask again. A guard of a kernel on the number of samples, such as
`B >= 16`, would thus answer for the model's own `if x.shape[0] >= 16`, and that condition would leave no trace.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

__all__ = ["chooses_kernel", "nothing_learnt_from_kernels"]

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


_evaluate_and_learn = ShapeEnv.evaluate_expr
_lock = threading.Lock()
_num_within = 0


@contextmanager
def nothing_learnt_from_kernels() -> Iterator[None]:
    """Within, a guard that chooses a kernel is noted, and neither answers for a later condition nor narrows a size.

    There is no setting for it: `ShapeEnv.evaluate_expr`, which every condition goes through, is replaced meanwhile.
    """
    global _num_within
    uninteresting_files().add(__file__)  # where a guard came from is not here, but with whoever asked
    with _lock:
        _num_within += 1
        ShapeEnv.evaluate_expr = _evaluate  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        with _lock:
            _num_within -= 1
            if not _num_within:
                ShapeEnv.evaluate_expr = _evaluate_and_learn  # type: ignore[method-assign]


def _evaluate(env: ShapeEnv, *args: Any, **kwargs: Any) -> Any:
    num_guards = len(env.guards)
    ranges, implied, divisible = dict(env.var_to_range), dict(env.axioms), set(env.divisible)
    found = _evaluate_and_learn(env, *args, **kwargs)
    if any(map(chooses_kernel, env.guards[num_guards:])):
        env.var_to_range.update(ranges)
        env.axioms, env.divisible = implied, divisible
        _forget_answers(env)
    return found


def _forget_answers(env: ShapeEnv) -> None:
    """Conditions are asked anew, those too that were asked before: they are answered as they were, by their guards."""
    env._version_counter += 1
    for method in (ShapeEnv._inner_evaluate_expr, ShapeEnv._maybe_evaluate_static):
        method.cache_clear()
