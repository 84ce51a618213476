"""What the tracer may learn of sizes and numbers while it captures a function."""

from typing import Any

import sympy
from torch._dynamo.comptime import ComptimeContext, comptime
from torch._dynamo.source import CallMethodItemSource
from torch._guards import Source, TracingContext
from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

from dpgraph.torch_compat.kernel_choice import chooses_kernel

__all__ = ["begin_capture"]


def begin_capture() -> None:
    """For the start of a function that is captured: from here on nothing is learnt that must be asked again.

    It does nothing where nothing is captured.
    """
    comptime(_take_over)


def _take_over(_: ComptimeContext) -> None:
    context = TracingContext.try_get()
    assert context is not None and context.fake_mode is not None, "no capture is under way"
    env = context.fake_mode.shape_env
    assert env is not None, "sizes are captured as symbols"
    uninteresting_files().add(__file__)  # where a guard came from is not here, but with whoever asks
    env.__class__ = _CaptureEnv


class _CaptureEnv(ShapeEnv):
    """What is known of one capture.

    What the tracer learns from a guard it does not ask again. A guard of a kernel on the number of samples, such as
    `B >= 16`, would thus answer for the model's own `if x.shape[0] >= 16`, and that condition would leave no trace: a
    guard that chooses a kernel is noted, and nothing is learnt.

    A tensor of one float64 number, such as a buffer that counts, is not a number that Python may read. torch takes it
    for one, starts over when nothing reads it so, and then drops every write of it whose result nobody uses.
    """

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        num_guards = len(self.guards)
        ranges, implied, divisible = dict(self.var_to_range), dict(self.axioms), set(self.divisible)
        found = super().evaluate_expr(*args, **kwargs)
        if any(map(chooses_kernel, self.guards[num_guards:])):
            self.var_to_range.update(ranges)
            self.axioms, self.divisible = implied, divisible
            self._forget_answers()
        return found

    def create_unspecified_symbol(self, val: Any, source: Source, *args: Any, **kwargs: Any) -> sympy.Expr:
        symbol = super().create_unspecified_symbol(val, source, *args, **kwargs)
        if isinstance(val, float) and isinstance(source, CallMethodItemSource):
            values = self.backed_var_to_val if hasattr(self, "backed_var_to_val") else self.var_to_val
            values[symbol] = sympy.Rational(val)  # the same number, of a kind for which torch does not start over
        return symbol

    def _forget_answers(self) -> None:
        """Conditions are asked anew; those that were asked before are answered as they were, by their guards."""
        self._version_counter += 1
        for method in (ShapeEnv._inner_evaluate_expr, ShapeEnv._maybe_evaluate_static):
            method.cache_clear()
