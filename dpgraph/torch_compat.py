"""Everything that dpgraph takes from torch's private modules, in one place; written for torch 2.11 to 2.13."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.config
import torch._functorch.config
import torch._inductor.compile_fx
import torch._inductor.debug
import torch.fx.experimental._config
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException, UserError
from torch._functorch._aot_autograd.descriptors import (
    AOTInput,
    AOTOutput,
    GradAOTOutput,
    InputMutationAOTOutput,
    PlainAOTInput,
    PlainAOTOutput,
    TangentAOTInput,
)
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    ConstraintViolationError,
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from dpgraph.decompositions import OWN_DECOMPOSITIONS

__all__ = [
    "AOTInput",
    "AOTOutput",
    "BackendCompilerFailed",
    "ConstraintViolationError",
    "FakeTensor",
    "FakeTensorMode",
    "GradAOTOutput",
    "InputMutationAOTOutput",
    "OpOverload",
    "PlainAOTInput",
    "PlainAOTOutput",
    "ShapeEnv",
    "TangentAOTInput",
    "TorchDynamoException",
    "UserError",
    "capture_config",
    "chooses_kernel",
    "compile_eager",
    "compile_inductor",
    "compile_separately",
    "current_fake_mode",
    "decompositions",
    "find_operators",
    "partition",
    "partition_for_inductor",
    "schedule",
    "symbolic_fake",
    "trace",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "unset_fake_temporarily",
]

Compiled = Callable[..., Any]
Rewrite = Callable[[GraphModule, Sequence[Any]], Graph]


def current_fake_mode() -> FakeTensorMode:
    """The fake mode of the capture that is under way."""
    context = TracingContext.try_get()
    assert context is not None and context.fake_mode is not None, "no capture is under way"
    return context.fake_mode


def decompositions() -> dict[Any, Any]:
    """Inductor's decompositions, with our own and without some.

    Left whole are a table's gradient, which would be torn into pieces, and matrix products, which on CPU become others
    where the sizes are small: the number of samples would decide.
    """
    table = dict(select_decomp_table())
    for whole in (torch.ops.aten.embedding_dense_backward, torch.ops.aten.mm, torch.ops.aten.addmm):
        table.pop(whole.default, None)
    return {**table, **OWN_DECOMPOSITIONS}


def symbolic_fake(mode: FakeTensorMode, x: Tensor, dim: int | None) -> Tensor:
    """A fake of `x` in which the size of `dim` is a symbol and all others are numbers."""
    sizes = [DimDynamic.DYNAMIC if i == dim else DimDynamic.STATIC for i in range(x.ndim)]
    fake: Tensor = mode.from_tensor(x, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))
    return fake


def trace(function: Callable[..., Any], values: Sequence[Any]) -> GraphModule:
    """The graph of a function on fake values, after the decompositions; symbolic sizes stay symbolic."""
    with enable_python_dispatcher():
        return make_fx(function, decomposition_table=decompositions(), _disable_torch_fn_metadata_mode=True)(*values)


# Dynamo compiles a function anew for each kind of call (other lengths, train and eval) and gives up after some.
RECOMPILE_LIMIT = 64


def capture_config() -> AbstractContextManager[Any]:
    """Settings under which a model is captured.

    Equal sizes are never taken for the same, LSTM and GRU are traced, and what the model logs is left out, since no
    result depends on it.
    """
    stack = ExitStack()
    stack.enter_context(torch.fx.experimental._config.patch(use_duck_shape=False))  # type: ignore[attr-defined]
    ignored = torch._dynamo.config.ignore_logger_methods | _log_methods()
    settings = torch._dynamo.config.patch(
        allow_rnn=True, recompile_limit=RECOMPILE_LIMIT, ignore_logger_methods=ignored
    )
    stack.enter_context(settings)
    return stack


LOG_LEVELS = ("critical", "debug", "error", "exception", "fatal", "info", "log", "warn", "warning")


def _log_methods() -> set[Callable[..., Any]]:
    """Methods of loggers that write a message, those too that libraries add, such as `warning_once`."""
    return {method for name, method in vars(logging.Logger).items() if name.split("_")[0] in LOG_LEVELS}


def chooses_kernel(guard: Any) -> bool:
    """Whether a guard stands for torch's choice among kernels of one operator, which compute the same.

    On CPU a convolution with 1x1 filters takes another kernel from 16 images on, and a product of a column with a row
    of at most 32 numbers in all is an elementwise one; from 26 rows on, distances come out of a product of matrices.
    """
    location = guard.sloc.framework_loc
    path, function = getattr(location, "filename", "").replace("\\", "/"), getattr(location, "name", "")
    return any(path.endswith(file) and function in names for file, names in KERNEL_CHOICES.items())


KERNEL_CHOICES = {
    "torch/_subclasses/fake_impls.py": {"conv"},
    "torch/_inductor/decomposition.py": {"mm", "addmm", "bmm"},
    "torch/functional.py": {"cdist"},
}


def compile_separately(function: Callable[..., Any], backend: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a copy of a Python function, which shares no recompile limit with any other copy."""
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled: Callable[..., Any] = torch.compile(copy, backend=backend, fullgraph=True)
    return compiled


def partition(
    module: GraphModule, inputs: Sequence[Any], *, num_fwd_outputs: int, memory_budget: float, **kwargs: Any
) -> tuple[GraphModule, GraphModule]:
    """Split a joint graph into forward and backward by min-cut rematerialisation."""
    with torch._functorch.config.patch(activation_memory_budget=memory_budget):
        return min_cut_rematerialization_partition(
            module, inputs, compiler="inductor", num_fwd_outputs=num_fwd_outputs, **kwargs
        )


def partition_for_inductor(
    module: GraphModule, *, num_fwd_outputs: int, memory_budget: float
) -> tuple[GraphModule, GraphModule]:
    """Split a joint graph after Inductor's own passes over it, as `compile_inductor` has it done."""
    inputs = _placeholder_values(module)
    with _inside_inductor(inputs), torch._functorch.config.patch(activation_memory_budget=memory_budget):
        return torch._inductor.compile_fx.partition_fn(module, inputs, num_fwd_outputs=num_fwd_outputs)


def schedule(half: GraphModule, *, is_backward: bool) -> GraphLowering:
    """What Inductor would make of a forward or a backward: its kernels in order, before any code is written.

    The module is changed. `result.scheduler.nodes` are the kernels. The steps are those of
    `torch._inductor.compile_fx._InProcessFxCompile`, up to the scheduler.
    """
    inputs = _placeholder_values(half)
    half.graph.output_node().meta["user_visible_output_idxs"] = []
    view_to_reshape(half)
    with torch.no_grad():
        mode = torch._inductor.compile_fx.fake_tensor_prop(half, inputs)
    with _inside_inductor(inputs):
        torch._inductor.compile_fx._recursive_post_grad_passes(half, is_inference=False)
    with V.set_fake_mode(mode), V.set_debug_handler(torch._inductor.debug.DebugContext()):
        graph = GraphLowering(
            half, example_inputs=inputs, shape_env=mode.shape_env, is_backward=is_backward, get_decomp_fn=decompositions
        )
        with V.set_graph_handler(graph), V.set_extern_kernel_nodes([]):
            graph.run(*inputs)
            graph.init_wrapper_code()
            graph._update_scheduler()
    return graph


@contextmanager
def _inside_inductor(inputs: Sequence[Any]) -> Iterator[None]:
    """What is set while Inductor compiles a graph of these fake values."""
    mode = next(x.fake_mode for x in inputs if isinstance(x, FakeTensor))
    with mode, tracing(TracingContext(mode)), V.set_fake_mode(mode):
        yield


def _placeholder_values(module: GraphModule) -> list[Any]:
    return [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]


def compile_eager(gm: GraphModule, inputs: Sequence[Any], rewrite: Rewrite, memory_budget: float) -> Compiled:
    """Rewrite the joint graph of `gm`, partition it and run both halves op by op."""

    def rewrite_and_partition(joint: GraphModule, joint_inputs: Sequence[Any], **kwargs: Any) -> Any:
        rewritten = GraphModule(joint, rewrite(joint, joint_inputs))
        return partition(rewritten, joint_inputs, memory_budget=memory_budget, **kwargs)

    def run_as_is(half: GraphModule, _: Sequence[Any]) -> Compiled:
        return make_boxed_func(half.forward)

    backend = aot_autograd(
        fw_compiler=run_as_is,
        bw_compiler=run_as_is,
        partition_fn=rewrite_and_partition,
        decompositions=decompositions(),
    )
    return backend(gm, inputs)


def compile_inductor(gm: GraphModule, inputs: Sequence[Any], rewrite: Rewrite, memory_budget: float) -> Compiled:
    """Rewrite the joint graph of `gm` before Inductor's own passes see it, and compile it."""

    def rewrite_in_place(graph: Graph) -> None:
        owner = graph.owning_module
        assert owner is not None, "a joint graph belongs to a module"
        captured = GraphModule(owner, _copy_into(Graph(), graph))  # what is captured outlives this graph
        new = rewrite(captured, _placeholder_values(captured))
        for node in reversed(list(graph.nodes)):
            graph.erase_node(node)
        _copy_into(graph, new)

    patches = {"joint_custom_pre_pass": rewrite_in_place}
    # A cached compilation would skip the rewriting, whose provenance the caller needs.
    settings = {"activation_memory_budget": memory_budget, "enable_autograd_cache": False}
    with torch._functorch.config.patch(settings):
        compiled: Compiled = torch._inductor.compile_fx.compile_fx(
            gm, list(inputs), config_patches=patches, decompositions=decompositions()
        )  # type: ignore[assignment]
    return compiled


def _copy_into(graph: Graph, other: Graph) -> Graph:
    """Append the nodes of another graph, its output with them."""
    output = graph.graph_copy(other, {})
    graph.output(output).meta = dict(other.output_node().meta)
    return graph


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


def mark_batch(x: Tensor, dim: int) -> None:
    """Ask the tracer to keep the size of `dim` symbolic; it refuses programs that need it fixed."""
    torch._dynamo.mark_dynamic(x, dim)
