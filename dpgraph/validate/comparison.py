"""One comparison of a compiled graph with its operators run one by one, on given inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.validate.as_compiled import Observed, run_compiled
from dpgraph.validate.compare import Difference, Freedom, Precision, compare, precision_of
from dpgraph.validate.draws import Draws, depends_on_draws
from dpgraph.validate.interface import Interface, read_interface
from dpgraph.validate.op_by_op import Noise, find_overflow, run_op_by_op
from dpgraph.validate.samples import Captured, zeros_like
from dpgraph.validate.values import NORMS, Value, name_values

__all__ = ["Outcome", "Reference", "compare_with_op_by_op"]

# How often a graph is rounded differently at most, to see what moves by itself: where one element of a ReLU lies within
# rounding of zero, each way of rounding has it on the other side with a probability of a quarter or more.
NUM_ROUNDINGS = 24


@dataclass(frozen=True, slots=True)
class Reference:
    """The op-by-op run of a graph on fixed inputs, which can be repeated for any nodes."""

    joint: JointGraph
    captured: Captured
    interface: Interface
    draws: Draws
    inputs: Sequence[Any]
    tangents: Mapping[str, Tensor]
    precision: Precision

    def run(self, keep: Mapping[str, Node]) -> dict[str, Any]:
        """Values of nodes, by any names."""
        with same_random_numbers(self.inputs):
            return run_op_by_op(self.joint, self._read, self.draws.seeds, keep)

    def settle(
        self,
        suspects: Mapping[str, Node],
        differences: Mapping[str, Difference],
        found: Mapping[str, Tensor | None],
        expected: Mapping[str, Tensor | None],
    ) -> list[str]:
        """The values that differ by more than they do between ways of rounding the same graph.

        Args:
            suspects: nodes of the values in question, by name.
            differences: of `found` from `expected`.
            found: values of another run, by name.
            expected: those of this one.
        """
        freedom = {name: Freedom(differences[name], found[name], expected[name]) for name in suspects}
        unsettled = dict(suspects)
        for seed in range(NUM_ROUNDINGS):
            if not unsettled:
                break
            with same_random_numbers(self.inputs):
                noise = Noise(self.precision.eps, seed)
                moved = run_op_by_op(self.joint, self._read, self.draws.seeds, unsettled, noise)
            for name, value in moved.items():
                freedom[name].see(value)
            unsettled = {name: node for name, node in unsettled.items() if not freedom[name].covers_difference}
        return list(unsettled)

    def find_overflow(self) -> Node | None:
        """The first node that makes of finite numbers one that is not."""
        with same_random_numbers(self.inputs):
            return find_overflow(self.joint, self._read, self.draws.seeds)

    def _read(self, placeholder: str) -> Any:
        if placeholder in self.interface.inputs:
            x = self.inputs[self.interface.inputs[placeholder]]
            return x.detach() if isinstance(x, Tensor) else x
        if placeholder in self.tangents:
            return self.tangents[placeholder]
        return zeros_like(self.captured, self.inputs, self.joint.nodes[placeholder].meta["val"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a comparison.

    Attributes:
        values: all that was computed, by name.
        differences: of what was compared.
        rounding: names of what differs, and by no more than it moves by itself.
        wrong: names of what differs by more.
        left_out: what could not be compared, and why.
        found_finite: whether some sample had a finite gradient: if none has, all are weighted with 0.
        reference: the op-by-op run.
    """

    values: Mapping[str, Value]
    differences: Mapping[str, Difference]
    rounding: tuple[str, ...]
    wrong: tuple[str, ...]
    left_out: Mapping[str, str]
    found_finite: bool
    reference: Reference


def compare_with_op_by_op(
    compiled: Callable[..., Any],
    joint: JointGraph,
    captured: Captured,
    draws: Draws,
    inputs: Sequence[Any],
    rows: int,
) -> tuple[Observed, Outcome]:
    """Run a graph both ways, from the same random state, and compare everything.

    Args:
        compiled: the graph as it runs for the user.
        joint: the graph that was compiled.
        captured: what is known of its inputs.
        draws: who draws which random numbers.
        inputs: those of a call.
        rows: how many samples they hold.
    """
    interface = read_interface(joint)
    with same_random_numbers(inputs):
        observed = run_compiled(compiled, captured, interface, inputs, rows)
    reference = Reference(joint, captured, interface, draws, inputs, observed.tangents, precision_of(joint.graph))
    values = name_values(observed, captured, interface, inputs)
    return observed, _judge(values, reference)


def _judge(values: Mapping[str, Value], reference: Reference) -> Outcome:
    draws = reference.draws
    random = depends_on_draws(reference.joint.graph)
    by_chance = {name for name, value in values.items() if value.node in random}
    left_out = {} if draws.unmatched is None else dict.fromkeys(by_chance, draws.unmatched)
    compared = {name: value for name, value in values.items() if name not in left_out}
    nodes = {name: value.node for name, value in compared.items() if value.node is not None}
    try:
        kept = reference.run(nodes)
    except Exception as error:  # noqa: BLE001  whatever it is, the graph as compiled did not raise it
        reason = f"its operators cannot be run one by one: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return Outcome(values, {}, (), (), {**left_out, "everything else": reason}, False, reference)
    found = {name: value.found for name, value in compared.items()}
    expected = {name: kept.get(name, value.kept) for name, value in compared.items()}
    gradients = [name for name, value in compared.items() if value.is_gradient]
    differences = compare(found, expected, reference.precision, together=gradients)
    suspects = [name for name, difference in differences.items() if difference.exceeds]
    known = {name: nodes[name] for name in suspects if name in nodes}
    unsettled = set(reference.settle(known, differences, found, expected))
    wrong = [name for name in suspects if name in unsettled or name not in known]
    rounding = [name for name in suspects if name not in wrong]
    if wrong and not draws.in_order:
        reason = "several random operators draw from one generator, in an order that the backend chooses"
        left_out |= {name: reason for name in wrong if name in by_chance}
    if wrong and (overflow := _overflow(found.get(NORMS), expected.get(NORMS), reference)):
        left_out |= {name: overflow for name in wrong if compared[name].is_gradient or name == NORMS}
    return Outcome(
        values=values,
        differences={name: d for name, d in differences.items() if name not in left_out},
        rounding=tuple(rounding),
        wrong=tuple(name for name in wrong if name not in left_out),
        left_out=left_out,
        found_finite=_some_finite(expected.get(NORMS)),
        reference=reference,
    )


def _some_finite(norms: Tensor | None) -> bool:
    return norms is None or bool(torch.isfinite(norms).all(1).any())


def _overflow(found: Tensor | None, expected: Tensor | None, reference: Reference) -> str | None:
    """Why gradients differ, if op by op a number is too large for its dtype that is not too large as compiled."""
    if found is None or expected is None or bool((torch.isfinite(expected) | ~torch.isfinite(found)).all()):
        return None
    node = reference.find_overflow()
    return None if node is None else f"op by op a sample overflows at {node.name}, and as compiled it does not"


@contextmanager
def same_random_numbers(inputs: Sequence[Any]) -> Iterator[None]:
    """Within, random numbers are drawn from the state of now, to which generators return in the end."""
    devices = {x.device for x in inputs if isinstance(x, Tensor) and x.device.type not in ("cpu", "meta")}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in devices:
            stack.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
        yield
