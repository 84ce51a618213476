"""The timeline of a joint graph: partition it, see what each half allocates, and put the halves together."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import sympy
import torch
from torch import Tensor
from torch.fx import GraphModule

from dpgraph.capture.joint import JointGraph, Parameter, Tangent
from dpgraph.memory.inductor import run_by_inductor
from dpgraph.memory.op_by_op import run_op_by_op
from dpgraph.memory.program import Program, bytes_of
from dpgraph.memory.timeline import Buffer, Kind, Timeline
from dpgraph.options import CompileOptions
from dpgraph.torch_compat import partition, partition_for_inductor, size_hint, storage_of

__all__ = ["Halves", "join", "predict", "run_backward", "run_forward", "split"]


@dataclass(frozen=True, slots=True)
class Halves:
    """A partitioned joint graph."""

    forward: GraphModule
    backward: GraphModule


def predict(joint: JointGraph, options: CompileOptions, *, norms: Collection[str] = ()) -> Timeline:
    """The timeline of a step of a joint graph, as it is run with these options.

    Args:
        joint: captured or rewritten.
        options: backend and memory budget.
        norms: names of the nodes of the norms, if there are any: what is made before one and read after it is held
            for the weighted sum.
    """
    halves = split(joint, options)
    forward = run_forward(halves.forward, options)
    return join(joint, forward, [run_backward(halves.backward, forward, joint, options)], options, norms=norms)


def split(joint: JointGraph, options: CompileOptions) -> Halves:
    """Partition a copy of a joint graph as it is for running."""
    module = GraphModule(joint.module, joint.copy().graph)
    n, budget = joint.num_forward_outputs, options.memory_budget
    if options.backend == "inductor":
        return Halves(*partition_for_inductor(module, num_fwd_outputs=n, memory_budget=budget))
    return Halves(*partition(module, [], num_fwd_outputs=n, memory_budget=budget))


def run_forward(half: GraphModule, options: CompileOptions) -> Program:
    """What a forward allocates; the module may be changed."""
    return run_by_inductor(half, is_backward=False) if options.backend == "inductor" else run_op_by_op(half.graph)


def run_backward(
    half: GraphModule, forward: Program, joint: JointGraph, options: CompileOptions, *, frees: bool = True
) -> Program:
    """What a backward allocates; the module may be changed.

    If it `frees` the saved activations, it may overwrite those that nobody else holds and that are saved once.
    """
    if options.backend == "eager":
        return run_op_by_op(half.graph)
    n = joint.num_forward_outputs
    outputs = {forward.storage[x] for x in forward.returned[:n] if x is not None and x in forward.storage}
    own = forward.allocations.keys() - outputs if frees else set()
    saved = [x for x in forward.returned[n:] if x is not None and forward.storage.get(x) in own]
    uses = Counter(forward.storage[x] for x in saved)
    donated = {x for x in saved if uses[forward.storage[x]] == 1}
    return run_by_inductor(half, is_backward=True, donated=frozenset(donated))


def join(
    joint: JointGraph,
    forward: Program,
    backwards: Sequence[Program],
    options: CompileOptions,
    *,
    norms: Collection[str] = (),
) -> Timeline:
    """One timeline of a forward and the backwards that follow it; the last of them frees the saved activations."""
    frees = options.backend == "inductor"  # its backward takes what it is given and drops each value after its use
    starts = [len(forward.kernels)]
    for program in backwards:
        starts.append(starts[-1] + len(program.kernels))
    end = starts[-1] - 1
    buffers = list(_of_forward(joint, forward, backwards[-1], starts[-2], end, frees=frees))
    for program, start, stop in zip(backwards, starts, starts[1:], strict=False):
        buffers += _of_backward(joint, program, start, stop - 1, end, norms, frees=frees)
    kernels = [k for program in (forward, *backwards) for k in program.kernels]
    batch, values = _symbols(joint)
    resident = [(role, joint.nodes[name].meta["val"]) for name, role in joint.inputs.items()]
    tensors = [(role, x) for role, x in resident if isinstance(x, Tensor) and not isinstance(role, Tangent)]
    sizes = {storage_of(x): (role, bytes_of(x)) for role, x in tensors}
    return Timeline(
        kernels=tuple((k.name, k.module) for k in kernels),
        forward_steps=len(forward.kernels),
        buffers=tuple(buffers),
        parameters=sum(int(size) for role, size in sizes.values() if isinstance(role, Parameter)),
        trained=sum(int(bytes_of(x.meta["val"])) for name in joint.gradients if (x := joint.gradient_of(name))),
        inputs=sum((s for role, s in sizes.values() if not isinstance(role, Parameter)), start=sympy.Integer(0)),
        batch_symbol=joint.batch_symbol,
        batch=batch,
        values=values,
    )


def _of_forward(
    joint: JointGraph, forward: Program, backward: Program, start: int, end: int, *, frees: bool
) -> Iterator[Buffer]:
    """Outputs live to the end, saved activations to their last reader, the rest to the one in the forward."""
    n = joint.num_forward_outputs
    outputs = {forward.storage[x] for x in forward.returned[:n] if x is not None and x in forward.storage}
    saved: dict[str, int] = {}
    for name in forward.returned[n:]:
        if name is not None and name in forward.storage and name in backward.inputs:
            read = backward.inputs[name]
            last = start + read if frees and read >= 0 else end
            saved[forward.storage[name]] = max(saved.get(forward.storage[name], 0), last)
    for name, made in forward.allocations.items():
        if name in outputs:
            yield Buffer(made.size, Kind.output, made.module, made.first, end)
        elif name in saved:
            yield Buffer(made.size, Kind.saved, made.module, made.first, saved[name])
        else:
            yield Buffer(made.size, Kind.temporary, made.module, made.first, made.last)


def _of_backward(
    joint: JointGraph, backward: Program, start: int, stop: int, end: int, norms: Collection[str], *, frees: bool
) -> Iterator[Buffer]:
    for name, role in joint.inputs.items():
        value = joint.nodes[name].meta["val"]
        if isinstance(role, Tangent) and name in backward.inputs and isinstance(value, Tensor):
            read = backward.inputs[name]
            yield Buffer(bytes_of(value), Kind.tangent, "", start, start + read if frees and read >= 0 else stop)
    returned = {backward.storage[x] for x in backward.returned if x is not None and x in backward.storage}
    known = {next((i for i, k in enumerate(backward.kernels) if norm in k.origins), -1) for norm in norms}
    for name, made in backward.allocations.items():
        first, last = start + made.first, start + made.last
        if name in backward.overwrites:  # the memory was counted until this kernel, as that of what it overwrites
            first += 1
        if name in returned:
            yield Buffer(made.size, Kind.gradient, made.module, first, end)
        elif any(made.first <= i < made.last for i in known):
            yield Buffer(made.size, Kind.held, made.module, first, last)
        elif first <= last:
            yield Buffer(made.size, Kind.temporary, made.module, first, last)


def _symbols(joint: JointGraph) -> tuple[int, Mapping[sympy.Symbol, int]]:
    """The batch size and the other symbols, as they were at capture."""
    values: dict[sympy.Symbol, int] = {}
    for node in joint.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        sizes = [value] if isinstance(value, torch.SymInt) else [*getattr(value, "shape", ())]
        for size in sizes:
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                values[size.node.expr] = size_hint(size)
    return values.pop(joint.batch_symbol), MappingProxyType(values)
