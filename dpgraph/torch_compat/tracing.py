"""How programs are traced: fake values, decompositions, settings of the capture."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from types import FunctionType
from typing import Any

import sympy
import torch
import torch._dynamo
import torch._dynamo.config
import torch.fx.experimental._config
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext
from torch._inductor.decomposition import select_decomp_table
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    StatelessSymbolicContext,
)
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from dpgraph.decompositions import OWN_DECOMPOSITIONS

__all__ = [
    "LEFT_WHOLE",
    "batch_marked",
    "capture_config",
    "compile_separately",
    "compiler_is_off",
    "compute_size",
    "current_fake_mode",
    "decompositions",
    "find_operators",
    "find_packets",
    "find_tracer",
    "size_hint",
    "storage_of",
    "symbolic_fake",
    "trace",
]


def current_fake_mode() -> FakeTensorMode:
    """The fake mode of the capture that is under way."""
    context = TracingContext.try_get()
    assert context is not None and context.fake_mode is not None, "no capture is under way"
    return context.fake_mode


# A table's gradient would be torn into pieces; matrix products become others on CPU where the sizes are small, so that
# the number of samples would decide.
LEFT_WHOLE = (
    torch.ops.aten.embedding_dense_backward.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
)


def decompositions() -> dict[Any, Any]:
    """Inductor's decompositions, with our own and without those of the operators that are left whole."""
    table = {op: rule for op, rule in select_decomp_table().items() if op not in LEFT_WHOLE}
    return {**table, **OWN_DECOMPOSITIONS}


def symbolic_fake(mode: FakeTensorMode, x: Tensor, dim: int | None) -> Tensor:
    """A fake of `x` in which the size of `dim` is a symbol and all others are numbers."""
    sizes = [DimDynamic.DYNAMIC if i == dim else DimDynamic.STATIC for i in range(x.ndim)]
    fake: Tensor = mode.from_tensor(x, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))
    return fake


def size_hint(size: int | torch.SymInt) -> int:
    """A size as it was when the graph was captured: a choice of speed must not become a guard.

    One that values decide was not known then, and counts as 1.
    """
    if not isinstance(size, torch.SymInt):
        return size
    return int(size.node.hint) if size.node.hint is not None else 1


def compute_size(size: sympy.Expr, symbols: Sequence[torch.SymInt]) -> Any:
    """The value of an expression in `symbols`; in a trace, as a computation of the graph.

    Args:
        size: has no other symbols.
        symbols: sizes, those that are symbols themselves are read.
    """
    values = {x.node.expr: x for x in symbols if isinstance(x.node.expr, sympy.Symbol)}
    return sympy_interp(PythonReferenceAnalysis, values, size)


def storage_of(x: Tensor) -> int:
    """What tensors that share memory have in common, fake ones too."""
    return int(x.untyped_storage()._cdata)


_table = cache(decompositions)


def trace(function: Callable[..., Any], values: Sequence[Any]) -> GraphModule:
    """The graph of a function on fake values, after the decompositions; symbolic sizes stay symbolic."""
    with enable_python_dispatcher():
        return make_fx(function, decomposition_table=_table(), _disable_torch_fn_metadata_mode=True)(*values)


# Dynamo compiles a function anew for each kind of call (other lengths, train and eval) and gives up after some.
RECOMPILE_LIMIT = 64


def capture_config() -> AbstractContextManager[Any]:
    """Settings under which a model is captured.

    Equal sizes are never taken for the same, LSTM and GRU are traced, products of several factors are multiplied from
    left to right whatever else is installed, hooks of submodules that come later are noticed, a batch may be an
    `nn.Parameter`, and what the model logs is left out, since no result depends on it.
    """
    stack = ExitStack()
    stack.enter_context(torch.fx.experimental._config.patch(use_duck_shape=False))  # type: ignore[attr-defined]
    ignored = torch._dynamo.config.ignore_logger_methods | _log_methods()
    settings = torch._dynamo.config.patch(
        allow_rnn=True,
        recompile_limit=RECOMPILE_LIMIT,
        ignore_logger_methods=ignored,
        skip_nnmodule_hook_guards=False,
        force_parameter_static_shapes=False,
    )
    stack.enter_context(settings)
    if torch.backends.opt_einsum.enabled:  # it would choose an order by the number of samples
        stack.enter_context(torch.backends.opt_einsum.flags(enabled=False))
    stack.enter_context(_silenced(logging.getLogger("torch._dynamo.metrics_context")))
    return stack


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Torch 2.11 cannot write down for its statistics which functions are left out, and says so at each compilation."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


LOG_LEVELS = ("critical", "debug", "error", "exception", "fatal", "info", "log", "warn", "warning")


def _log_methods() -> set[Callable[..., Any]]:
    """Methods of loggers that write a message, those too that libraries add, such as `warning_once`."""
    return {method for name, method in vars(logging.Logger).items() if name.split("_")[0] in LOG_LEVELS}


_copies = itertools.count()


def compile_separately(function: Callable[..., Any], backend: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a copy of a Python function, which shares nothing of what Dynamo keeps by function.

    That is a recompile limit, and, under file, line and name, which numbers and sizes differed from call to call: those
    of another model would be symbols here, which are slow to capture and slow to run.
    """
    assert isinstance(function, FunctionType)
    name = f"{function.__name__}_{next(_copies)}"
    copy = FunctionType(
        function.__code__.replace(co_name=name),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled: Callable[..., Any] = torch.compile(copy, backend=backend, fullgraph=True)
    return compiled


def compiler_is_off() -> bool:
    """Whether `torch.compile` was switched off for the process, as TORCHDYNAMO_DISABLE=1 does."""
    return bool(torch._dynamo.config.disable)


def find_tracer() -> str | None:
    """What other than `torch.compile` records the operators that run now."""
    if torch.compiler.is_exporting():
        return "torch.export"
    if torch._C._is_tracing():
        return "torch.jit.trace"
    if torch.fx._symbolic_trace.is_fx_symbolic_tracing():
        return "torch.fx"
    if torch._C._functorch.maybe_current_level() is not None:
        return "torch.func"
    mode = _get_current_dispatch_mode()
    return None if mode is None or isinstance(mode, FakeTensorMode) else type(mode).__name__.lstrip("_")


def find_operators(*names: str) -> list[OpOverload]:
    """Those of the operators, as "aten.mm.default", that this version of torch has."""
    found: Any
    operators = []
    for name in names:
        found = torch.ops
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            operators.append(found)
    return operators


def find_packets(*names: str) -> list[OpOverloadPacket]:
    """Those of the operators with all their overloads, as "aten.index_put", that this version of torch has."""
    found: list[OpOverloadPacket] = find_operators(*names)  # type: ignore[assignment]
    return found


@contextmanager
def batch_marked(axes: Sequence[tuple[Tensor, int]]) -> Iterator[None]:
    """Within, the tracer keeps the sizes of these axes symbolic, and refuses programs that need them fixed.

    The marks are attributes of the tensors, which are the user's: another compilation must not find them.
    """
    before = [(x, dict(vars(x))) for x, _ in axes]
    try:
        for x, dim in axes:
            torch._dynamo.mark_dynamic(x, dim)
        yield
    finally:
        for x, attributes in before:
            vars(x).clear()
            vars(x).update(attributes)
