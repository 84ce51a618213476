"""Where the time of a compilation goes: functions of dpgraph and torch are timed from outside while it runs."""

import functools
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

__all__ = ["CAPTURE", "OURS", "PHASES", "Stopwatch"]

CAPTURE = "Dynamo and AOTAutograd"
"""What is left of a compilation when all that is timed is taken off."""

# Every function is looked up in the module that calls it.
_PIPELINE, _COMPILER, _INDUCTOR = "dpgraph.passes.pipeline", "dpgraph.lower.compiler", "torch._inductor.compile_fx"
TIMED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "read the graphs": ((_COMPILER, "spell_out"), (_COMPILER, "find_inputs"), (_COMPILER, "read_joint")),
    "provenance": ((_PIPELINE, "infer_provenance"),),
    "soundness": ((_PIPELINE, "check_soundness"), (_COMPILER, "refuse_guards")),
    "sites": ((_PIPELINE, "find_sites"),),
    "insert_per_sample_gradients": ((_PIPELINE, "insert_per_sample_gradients"),),
    "insert_norms": ((_PIPELINE, "insert_norms"),),
    "insert_clip_factors": ((_PIPELINE, "insert_clip_factors"),),
    "insert_weighted_sums": ((_PIPELINE, "insert_weighted_sums"),),
    "share_sizes": ((_PIPELINE, "share_sizes"),),
    "prune": ((_PIPELINE, "prune"),),
    "rest of the rewriting": ((_COMPILER, "rewrite"),),
    "partition": ((_INDUCTOR, "min_cut_rematerialization_partition"),),
    "Inductor": (
        (_INDUCTOR, "_recursive_joint_graph_passes"),
        (_INDUCTOR, "compile_fx_forward"),
        (_INDUCTOR, "compile_fx_backward"),
    ),
}
TORCH = ("partition", "Inductor")
OURS = tuple(phase for phase in TIMED if phase not in TORCH)
"""The phases that are dpgraph's: its analysis and its passes."""
PHASES = (CAPTURE, *TIMED)


@dataclass
class Stopwatch:
    """Seconds by phase; a phase that runs within another is taken off that one.

    >>> watch = Stopwatch()
    >>> inner = watch.around("inner", lambda: 1)
    >>> watch.around("outer", lambda: inner() + 1)()
    2
    >>> sorted(watch.seconds)
    ['inner', 'outer']
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _since: float = 0.0

    def around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._book()
            self._running.append(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self._book()
                self._running.pop()

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the functions of every phase within this context."""
        with ExitStack() as stack:
            for phase, places in TIMED.items():
                for module_name, name in places:
                    module = importlib.import_module(module_name)
                    stack.enter_context(patch.object(module, name, self.around(phase, getattr(module, name))))
            yield

    def _book(self) -> None:
        """Give the time since the last change to the innermost phase."""
        now = time.perf_counter()
        if self._running:
            phase = self._running[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now
