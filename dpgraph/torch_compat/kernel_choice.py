"""Guards by which torch chooses among kernels that compute the same; nothing else may be decided by them.

What the tracer learns from a guard it does not ask again. A guard of a kernel on the number of samples, such as
`B >= 16`, would thus answer for the model's own `if x.shape[0] >= 16`, and that condition would leave no trace.
"""

from typing import Any

from torch._dynamo.comptime import ComptimeContext, comptime
from torch._guards import TracingContext
from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

__all__ = ["chooses_kernel", "learn_nothing_from_kernels"]

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


def learn_nothing_from_kernels() -> None:
    """For the start of a function that is captured: from here on no choice of a kernel answers for a condition.

    It does nothing where nothing is captured.
    """
    comptime(_make_forgetful)


def _make_forgetful(_: ComptimeContext) -> None:
    context = TracingContext.try_get()
    assert context is not None and context.fake_mode is not None, "no capture is under way"
    env = context.fake_mode.shape_env
    assert env is not None, "sizes are captured as symbols"
    uninteresting_files().add(__file__)  # where a guard came from is not here, but with whoever asks
    env.__class__ = _ForgetfulShapeEnv


class _ForgetfulShapeEnv(ShapeEnv):
    """What the tracer knows of sizes, of one capture: a guard that chooses a kernel is noted, and nothing is learnt."""

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        num_guards = len(self.guards)
        ranges, implied, divisible = dict(self.var_to_range), dict(self.axioms), set(self.divisible)
        found = super().evaluate_expr(*args, **kwargs)
        if any(map(chooses_kernel, self.guards[num_guards:])):
            self.var_to_range.update(ranges)
            self.axioms, self.divisible = implied, divisible
            self._forget_answers()
        return found

    def _forget_answers(self) -> None:
        """Conditions are asked anew; those that were asked before are answered as they were, by their guards."""
        self._version_counter += 1
        for method in (ShapeEnv._inner_evaluate_expr, ShapeEnv._maybe_evaluate_static):
            method.cache_clear()
