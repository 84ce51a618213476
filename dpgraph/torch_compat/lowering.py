"""How graphs are split and run: the partitioner, Inductor, op by op."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.config
import torch._inductor.compile_fx
import torch._inductor.config
import torch._inductor.debug
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.lowering import lowerings, make_fallback, require_contiguous
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule

from dpgraph import decompositions as own_decompositions
from dpgraph.torch_compat import aliases, drawn_once, once, own_memory
from dpgraph.torch_compat.aliases import restore_aliases
from dpgraph.torch_compat.compile_fx import compile_fx_with_writes_returned
from dpgraph.torch_compat.drawn_once import LEAST_BUDGET, keep_random_values
from dpgraph.torch_compat.engine import without_autocast
from dpgraph.torch_compat.tracing import LEFT_WHOLE, decompositions

__all__ = [
    "compile_eager",
    "compile_inductor",
    "inside_inductor",
    "partition",
    "partition_for_inductor",
    "run_whole",
    "schedule",
]

Compiled = Callable[..., Any]
Rewrite = Callable[[GraphModule, Sequence[Any]], Graph]
Watch = Callable[[Graph], None]
Around = Callable[[Sequence[Any]], list[Any]]


def partition(
    module: GraphModule, inputs: Sequence[Any], *, num_fwd_outputs: int, memory_budget: float, **kwargs: Any
) -> tuple[GraphModule, GraphModule]:
    """Split a joint graph into forward and backward by min-cut rematerialisation."""
    keep_random_values(module.graph)
    with torch._functorch.config.patch(activation_memory_budget=max(memory_budget, LEAST_BUDGET)):
        return min_cut_rematerialization_partition(
            module, inputs, compiler="inductor", num_fwd_outputs=num_fwd_outputs, **kwargs
        )


def partition_for_inductor(
    module: GraphModule, *, num_fwd_outputs: int, memory_budget: float
) -> tuple[GraphModule, GraphModule]:
    """Split a joint graph after Inductor's own passes over it, as `compile_inductor` has it done."""
    inputs = _placeholder_values(module)
    budget = torch._functorch.config.patch(activation_memory_budget=max(memory_budget, LEAST_BUDGET))
    last_pass = torch._inductor.config.patch(joint_custom_post_pass=_LastPass())
    with inside_inductor(inputs), budget, last_pass:
        return torch._inductor.compile_fx.partition_fn(module, inputs, num_fwd_outputs=num_fwd_outputs)


def schedule(half: GraphModule, *, is_backward: bool) -> GraphLowering:
    """What Inductor would make of a forward or a backward: its kernels in order, before any code is written.

    The module is changed. `result.scheduler.nodes` are the kernels. The steps are those of
    `torch._inductor.compile_fx._InProcessFxCompile`, up to the scheduler.
    """
    run_whole()
    inputs = _placeholder_values(half)
    half.graph.output_node().meta["user_visible_output_idxs"] = []
    view_to_reshape(half)
    with torch.no_grad():
        mode = torch._inductor.compile_fx.fake_tensor_prop(half, inputs)
    with inside_inductor(inputs):
        torch._inductor.compile_fx._recursive_post_grad_passes(half, is_inference=False)
    with V.set_fake_mode(mode), V.set_debug_handler(torch._inductor.debug.DebugContext()):
        graph = GraphLowering(half, example_inputs=inputs, shape_env=mode.shape_env, is_backward=is_backward)
        with V.set_graph_handler(graph), V.set_extern_kernel_nodes([]):
            graph.run(*inputs)
            graph.init_wrapper_code()
            graph._update_scheduler()
    return graph


def run_whole() -> None:
    """Have Inductor run the operators that are left whole as they are, where it has no lowering of its own.

    It would do so by itself, but refuses to where the variable CI is set, since it knows a decomposition.
    """
    for op in LEFT_WHOLE:
        if op not in lowerings:
            make_fallback(op, require_contiguous, warn=False, override_decomp=True)


@contextmanager
def inside_inductor(inputs: Sequence[Any]) -> Iterator[None]:
    """What is set while Inductor compiles a graph of these fake values."""
    mode = next(x.fake_mode for x in inputs if isinstance(x, FakeTensor))
    with mode, tracing(TracingContext(mode)), V.set_fake_mode(mode):
        yield


def _placeholder_values(module: GraphModule) -> list[Any]:
    return [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]


def compile_eager(
    gm: GraphModule, inputs: Sequence[Any], rewrite: Rewrite, memory_budget: float, *, around: Around
) -> Compiled:
    """Rewrite the joint graph of `gm`, partition it and run both halves op by op; see `compile_inductor`."""

    def rewrite_and_partition(joint: GraphModule, joint_inputs: Sequence[Any], **kwargs: Any) -> Any:
        rewritten = GraphModule(joint, rewrite(joint, joint_inputs))
        return partition(rewritten, joint_inputs, memory_budget=memory_budget, **kwargs)

    def run_forward(half: GraphModule, _: Sequence[Any]) -> Compiled:
        return make_boxed_func(_for_any_strides(half).forward)

    def run_backward(half: GraphModule, _: Sequence[Any]) -> Compiled:
        run = _for_any_strides(half)

        def call(*args: Any) -> list[Any]:
            with without_autocast():
                return around(run.forward(*args))

        return make_boxed_func(call)

    backend = aot_autograd(
        fw_compiler=run_forward,
        bw_compiler=run_backward,
        partition_fn=rewrite_and_partition,
        decompositions=decompositions(),
    )
    return backend(gm, inputs)


def _for_any_strides(half: GraphModule) -> GraphModule:
    """The same, where fake values have other strides than the real ones, as some in half precision do."""
    view_to_reshape(half)
    half.recompile()
    return half


def compile_inductor(
    gm: GraphModule,
    inputs: Sequence[Any],
    rewrite: Rewrite,
    memory_budget: float,
    *,
    around: Around,
    replayed: bool = False,
    watch: Watch | None = None,
) -> Compiled:
    """Rewrite the joint graph of `gm` before Inductor's own passes see it, and compile it.

    Args:
        gm: what Dynamo captured.
        inputs: its inputs, fake.
        rewrite: from the joint graph to the one to run.
        memory_budget: share of the activations that the partitioner may save.
        around: what becomes of the backward's outputs before autograd has them.
        replayed: on a GPU, record each size as a CUDA graph and replay that.
        watch: is shown the joint graph as Inductor's passes over it have left it.
    """
    run_whole()
    rewriting = _RewriteInPlace(rewrite)
    patches = {
        "joint_custom_pre_pass": rewriting,
        "joint_custom_post_pass": _LastPassAndShow(rewriting, watch),
        "triton.cudagraphs": replayed,
    }
    # Only what comes after the rewriting may be had from a cache: the caller needs the provenance that it finds.
    settings = {"activation_memory_budget": max(memory_budget, LEAST_BUDGET), "enable_autograd_cache": False}
    with torch._functorch.config.patch(settings):
        return compile_fx_with_writes_returned(
            gm, list(inputs), config_patches=patches, decompositions=decompositions, around=around
        )


class _RewriteInPlace(CustomGraphPass):
    """A rewrite as a pass of Inductor's; what becomes of its result may still be looked up in Inductor's cache."""

    def __init__(self, rewrite: Rewrite) -> None:
        self.rewrite = rewrite
        self.rewritten: Graph | None = None

    def __call__(self, graph: Graph) -> None:
        owner = graph.owning_module
        assert owner is not None, "a joint graph belongs to a module"
        captured = GraphModule(owner, _copy_into(Graph(), graph))  # what is captured outlives this graph
        new = self.rewrite(captured, _placeholder_values(captured))
        for node in reversed(list(graph.nodes)):
            graph.erase_node(node)
        _copy_into(graph, new)
        self.rewritten = graph

    def uuid(self) -> bytes:
        """What is looked up is a forward or backward that is rewritten already: it depends on how that is lowered."""
        files = (inspect.getfile(x) for x in (own_decompositions, decompositions, once, own_memory))
        return get_hash_for_files((__file__, *files))


class _LastPass(CustomGraphPass):
    """Puts right, before a joint graph is split, what Inductor's passes over it have made wrong or not seen."""

    def __call__(self, graph: Graph) -> None:
        keep_random_values(graph)
        restore_aliases(graph)

    def uuid(self) -> bytes:
        """It says what is saved, not how a half is compiled; a half that saves something else is another graph."""
        return get_hash_for_files((__file__, *(inspect.getfile(x) for x in (aliases, drawn_once))))


class _LastPassAndShow(_LastPass):
    """Shows what became of the rewritten graph, too, and of no graph inside it."""

    def __init__(self, rewriting: _RewriteInPlace, watch: Watch | None) -> None:
        self.rewriting = rewriting
        self.watch = watch

    def __call__(self, graph: Graph) -> None:
        super().__call__(graph)
        if self.watch is not None and graph is self.rewriting.rewritten:
            self.watch(graph)


def _copy_into(graph: Graph, other: Graph) -> Graph:
    """Append the nodes of another graph, its output with them."""
    output = graph.graph_copy(other, {})
    graph.output(output).meta = dict(other.output_node().meta)
    return graph
