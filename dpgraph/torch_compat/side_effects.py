"""What Dynamo found around a graph: where its inputs came from, and what it writes to objects once the graph has run.

An assignment in forward (to an attribute, a list, a dict, a variable of an enclosing scope) is no op of the graph.
Dynamo notes it, has the graph return what is assigned, and does it afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from traceback import StackSummary
from typing import Any

from torch._dynamo.side_effects import SideEffects
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._dynamo.variables.base import AttributeMutationExisting, ValueMutationExisting, VariableTracker
from torch._dynamo.variables.lazy import LazyVariableTracker
from torch.fx import GraphModule, Node

__all__ = ["InputSource", "Written", "hooked_inputs", "input_sources", "written_values"]


@dataclass(frozen=True, slots=True)
class InputSource:
    """Where an input of a captured graph came from.

    Attributes:
        name: an expression over the arguments of the captured function, such as `L['model'].scale`.
        is_number: whether it is a number of Python's.
    """

    name: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One object that outlives the call, with what is written to it.

    Attributes:
        target: as in `InputSource`.
        nodes: of the captured graph, whose values are written, as they are or as a part of something.
        objects: tensors and containers that are written as they came in.
        trace: formatted stack of the statement; empty if that is not known.
    """

    target: str
    nodes: tuple[Node, ...]
    objects: tuple[Any, ...]
    trace: str


def input_sources(gm: GraphModule) -> list[InputSource]:
    """The source of every input of the graph that Dynamo hands to a backend, in order."""
    return [_source_of(node) for node in gm.graph.find_nodes(op="placeholder")]


def _source_of(node: Node) -> InputSource:
    arg = node.meta["grapharg"]
    return InputSource(_name_of(arg.source), not arg.is_tensor)


def _name_of(source: Any) -> str:
    if source is None:
        return ""
    name = source.name
    return str(name() if callable(name) else name)


def written_values() -> list[Written]:
    """What the capture that is under way will write to objects that it did not make; called from the backend."""
    return list(_written_values(InstructionTranslator.current_tx().output.side_effects))


def hooked_inputs() -> list[str]:
    """Names of the inputs on whose gradients the capture that is under way will set hooks; as in `InputSource`."""
    effects = InstructionTranslator.current_tx().output.side_effects
    return [_name_of(tensor.source) for tensor, *_ in effects.tensor_hooks.values()]


def _written_values(effects: SideEffects) -> Iterator[Written]:
    existing = (AttributeMutationExisting, ValueMutationExisting)
    for target in effects._get_modified_vars():
        if not isinstance(target.mutation_type, existing):
            continue  # made by the call itself: it leaves only within something that is returned or written
        stacks = getattr(effects, "mutation_user_stacks", {}).get(target, [])
        name = _name_of(target.source)
        attributes = effects.store_attr_mutations.get(target, {})
        for attribute, value in attributes.items():
            # a variable of an enclosing scope is a cell of the function, a global one is called like its attribute
            full = name if attribute == "cell_contents" or name.endswith(f"['{attribute}']") else f"{name}.{attribute}"
            yield _written(full, value, effects, _stack_of(stacks, attribute))
        for container in _containers_of(target, effects):
            for key, value in _items_of(container):
                yield _written(f"{name}{key}", value, effects, _stack_of(stacks, ""))


def _containers_of(target: VariableTracker, effects: SideEffects) -> list[VariableTracker]:
    """What holds written items of a target: itself, or what Dynamo keeps within an object of a container's subclass."""
    if isinstance(target.mutation_type, ValueMutationExisting):
        return [target]
    inner = [x for x in vars(target).values() if isinstance(x, VariableTracker) and x.mutation_type is not None]
    return [x for x in inner if effects.is_modified(x)]


def _items_of(container: VariableTracker) -> Iterator[tuple[str, Any]]:
    """Each item of a dict or a set, as it is written, with its key and value; the whole of any other container."""
    items: Any = getattr(container, "items", None)
    if not isinstance(items, dict):
        yield "", container
        return
    for key, value in items.items():
        constant = _of_key(key)
        named = f"[{constant.as_python_constant()!r}]" if constant.is_python_constant() else "[...]"
        yield named, [constant, value]


def _of_key(key: Any) -> Any:
    """The variable of a key, which Dynamo wraps to hash it."""
    return getattr(key, "vt", key)


def _stack_of(stacks: list[StackSummary], attribute: str) -> str:
    """The stack of the statement that names the attribute; the newest if none does."""
    formatted = ["".join(stack.format()) for stack in stacks]
    named = [text for text in formatted if attribute and f".{attribute}" in text]
    return (named or formatted or [""])[-1]


def _written(target: str, value: Any, effects: SideEffects, trace: str) -> Written:
    alive = {id(x): x for x in effects.keepalive}
    came_in = {id(known): alive[key] for key, known in effects.id_to_variable.items() if key in alive}
    nodes: dict[Node, None] = {}
    objects: list[Any] = []
    seen: dict[int, Any] = {}

    def visit(variable: VariableTracker) -> None:
        if isinstance(variable, LazyVariableTracker):
            objects.append(variable.peek_value())
            return
        items: Any = vars(variable).get("items")
        if isinstance(items, dict):
            VariableTracker.visit(visit, [_of_key(key) for key in items], seen)
        if variable.source is not None and "value" in vars(variable):
            objects.append(vars(variable)["value"])
        node = getattr(getattr(variable, "proxy", None), "node", None)
        if isinstance(node, Node) and node.op == "placeholder" and id(variable) in came_in:
            objects.append(came_in[id(variable)])
        elif isinstance(node, Node):
            nodes[node] = None

    VariableTracker.visit(visit, value, seen)
    todo = list(seen.values())
    for variable in todo:  # objects made in forward that are a part of what is written
        if isinstance(variable, VariableTracker) and variable in effects.store_attr_mutations:
            before = len(seen)
            VariableTracker.visit(visit, list(effects.store_attr_mutations[variable].values()), seen)
            todo += list(seen.values())[before:]
    return Written(target, tuple(nodes), tuple(objects), trace)
