"""The kernels that Inductor's own scheduler makes of a graph, with the memory of each.

What is read off the scheduler: which values get a buffer at all, which are fused away, in which order the kernels run,
which buffer a kernel writes in place of one that dies, and after which kernel each buffer is dropped. What Inductor's
wrapper does on top, handing freed memory to a later buffer of the same size, never raises the peak that this gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch.fx import GraphModule, Node

from dpgraph.capture.place import find_module
from dpgraph.memory.program import Allocation, Kernel, Program
from dpgraph.torch_compat import schedule, tree_leaves

__all__ = ["run_by_inductor"]


def run_by_inductor(half: GraphModule, *, is_backward: bool, donated: frozenset[str] = frozenset()) -> Program:
    """The program of a half of a joint graph; the module is changed.

    Args:
        half: forward or backward.
        is_backward: which of them.
        donated: names of inputs that the half may overwrite.
    """
    names = [x.name if isinstance(x, Node) else None for x in tree_leaves(half.graph.output_node().args)]
    graph = schedule(half, is_backward=is_backward)
    return _Reading(graph, donated).program(names)


@dataclass
class _Reading:
    """Walks the kernels in order.

    Attributes:
        graph: Inductor's graph, scheduled.
        donated: inputs that may be overwritten.
        base: for a buffer that is a part or a new version of another one, that one.
        made: allocations so far, by buffer.
        last: position of the last kernel that reads a buffer or an input.
        overwrites: buffers that take the memory of an input.
        done: operations that ran.
    """

    graph: Any
    donated: frozenset[str]
    base: dict[str, str] = field(default_factory=dict)
    made: dict[str, Allocation] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    overwrites: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def program(self, names: list[str | None]) -> Program:
        """`names`: what the graph returned before Inductor took it, in order."""
        nodes = self.graph.scheduler.nodes
        kernels = [self._kernel(node) for node in nodes]
        for position, (node, kernel) in enumerate(zip(nodes, kernels, strict=True)):
            self._run(position, node, kernel)
        end = len(nodes) - 1
        outputs = [self._output_name(x) for x in self.graph.graph_outputs]
        storage = {
            name: self._base(buffer)
            for name, buffer in zip(names, outputs, strict=True)
            if name is not None and buffer is not None
        }
        for buffer in storage.values():
            self.last[buffer] = end
        return Program(
            kernels=tuple(kernels),
            allocations=MappingProxyType({n: replace(a, last=self.last[n]) for n, a in self.made.items()}),
            inputs=MappingProxyType({name: self.last.get(name, -1) for name in self.graph.graph_input_names}),
            returned=tuple(names),
            storage=MappingProxyType(storage),
            overwrites=MappingProxyType(self.overwrites),
        )

    def _kernel(self, node: Any) -> Kernel:
        origins = [o for sub in node.get_nodes() if sub.node is not None for o in sub.node.get_origins()]
        modules = [m for o in origins if (m := find_module(o)) is not None]
        return Kernel(node.get_name(), modules[-1] if modules else "", frozenset(o.name for o in origins))

    def _run(self, position: int, node: Any, kernel: Kernel) -> None:
        for sub in node.get_nodes():
            for out in sub.get_outputs():
                self._make(position, node, sub, out, kernel.module)
            self.done.add(sub.get_name())
        for dependency in node.read_writes.reads_and_writes():
            name = self._base(dependency.name)
            if not getattr(dependency, "is_fake", False):
                self.last[name] = position

    def _make(self, position: int, node: Any, sub: Any, out: Any, module: str) -> None:
        name, buffer = out.get_name(), out.node
        kind = type(buffer.layout).__name__
        if name in self.graph.removed_buffers or self._lives_within(node, out):
            return
        if name in self.graph.scheduler.mutation_real_name:
            self.base[name] = self.graph.scheduler.mutation_real_name[name]
            return
        if kind == "NonOwningLayout":  # a part of a buffer that others fill too, which is made for the first of them
            self.base[name] = whole = buffer.layout.view.get_name()
            if whole not in self.made:
                self._allocate(position, whole, self.graph.get_buffer(whole), module)
            return
        if kind == "MultiOutputLayout":
            for part in tree_leaves(getattr(buffer, "outputs", ())):
                if hasattr(part, "layout"):
                    self._allocate(position, part.get_name(), part, module)
                    self.last[part.get_name()] = position
            return
        if kind == "NoneLayout" or name in self.made:
            return
        if aliased := buffer.get_inputs_that_alias_output():
            self.base[name] = aliased[0]
            return
        dying = next(self._dying(sub, out), None)
        self._allocate(position, name, buffer, module)
        if dying is None:
            return
        if dying in self.made:  # the memory goes from the one to the other, the kernel holds it once
            self.made[name] = replace(self.made[dying], module=module)
            del self.made[dying]
            self.base[dying] = name
        else:
            self.overwrites[name] = dying

    def _allocate(self, position: int, name: str, buffer: Any, module: str) -> None:
        size = self.graph.sizevars.simplify(buffer.get_layout().storage_size() * buffer.get_dtype().itemsize)
        self.made[name] = Allocation(size, module, position, position)
        self.last[name] = position

    def _lives_within(self, node: Any, out: Any) -> bool:
        """Whether a fused kernel alone reads what one of its parts writes: then it is never stored."""
        if len(node.get_nodes()) == 1:
            return False
        parts = {sub.get_name() for sub in node.get_nodes()}
        return all(user.node.get_name() in parts for user in out.users) and not out.get_mutations()

    def _dying(self, sub: Any, out: Any) -> Iterator[str]:
        """What a kernel may overwrite with one of its results, as `decide_inplace_update` has it."""
        if not hasattr(sub, "_body"):
            return
        writes = [w for w in sub.read_writes.writes if w.name == out.get_name()]
        for read in sub.read_writes.reads:
            name = self._base(read.name)
            before = self.graph.scheduler.name_to_buf.get(read.name)
            if before is not None:
                left = [u for u in before.users if u.node.get_name() not in self.done]
                may = len(left) == 1 and left[0].can_inplace and left[0].node is sub and name in self.made
                may = may and self._one_index(sub, before)
            else:
                readers = [n for n in self.graph.scheduler.nodes if read.name in n.used_buffer_names()]
                may = read.name in self.donated and readers[-1] is self.graph.scheduler.get_fused_node(sub)
                may = may and any(w.index == read.index for w in writes) and read.name not in self.overwrites.values()
            if may and self._same_size(name, read.name, out):
                yield name

    def _one_index(self, sub: Any, before: Any) -> bool:
        """Whether all parts of the fused kernel touch a buffer in the same order."""
        fused, name = self.graph.scheduler.get_fused_node(sub), before.get_name()
        parts = [n for n in fused.get_nodes() if any(u.node is n for u in before.users)]
        return len({d for n in parts for d in n.read_writes.reads_and_writes() if d.name == name}) <= 1

    def _same_size(self, name: str, read: str, out: Any) -> bool:
        before = self.graph.graph_inputs.get(read) if name not in self.made else self.graph.get_buffer(name)
        if before is None or not hasattr(before, "get_dtype"):
            return False
        wanted = out.node.get_layout().storage_size()
        return bool(before.get_dtype() == out.node.get_dtype() and before.get_layout().storage_size() == wanted)

    def _base(self, name: str) -> str:
        while name in self.base:
            name = self.base[name]
        return name

    def _output_name(self, output: Any) -> str | None:
        return output.get_name() if output.has_tensor_output() else None
