"""Transfer rules: from the provenance of an op's operands to that of its results, indexed by operator.

A rule is a function `rule(step) -> Provenance` (or a tuple, for an op with several results). It sees no refused
operands, and at least one that depends on the samples: an op of shared values alone has a shared result, whatever it
does, and the walker says so for all ops at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.sizes import size_of
from dpgraph.provenance.lattice import PerSample, Provenance, Refused, Shared, SummedOverSamples, meet, mixes, unshown
from dpgraph.torch_compat import OpOverload, tree_leaves

__all__ = ["REGISTERED", "Results", "Step", "Transfer", "find_transfer", "transfer"]

Results = Provenance | tuple[Provenance, ...]
"""What is known of each result of an op; one provenance stands for all of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One op of the graph with what is known of its operands.

    Attributes:
        node: the op.
        batch: the symbol of the batch size B.
        known: provenance of every node before this one (a tuple for an op with several results).
    """

    node: Node
    batch: sympy.Symbol
    known: dict[Node, Results]

    @property
    def args(self) -> tuple[Any, ...]:
        """Arguments by position; their types are those of the operator's schema."""
        return self.node.args

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """The argument at a position or by its name in the schema."""
        if index < len(self.node.args):
            return self.node.args[index]
        return self.node.kwargs.get(name, default)

    def of(self, operand: Any) -> Provenance:
        """Provenance of one operand; what is not a node is shared."""
        if not isinstance(operand, Node):
            return Shared()
        found = self.known[operand]
        assert not isinstance(found, tuple), f"{operand} has several results"
        return found

    def shape(self, operand: Node) -> tuple[sympy.Expr, ...]:
        """Symbolic shape of an operand; () for a scalar."""
        value = operand.meta.get("val")
        return tuple(self.size(s) for s in value.shape) if isinstance(value, Tensor) else ()

    def size(self, value: Any) -> sympy.Expr:
        """A size among the arguments, or of a tensor: a number, a SymInt or its node."""
        return size_of(value.meta["val"] if isinstance(value, Node) else value, self.batch)

    @property
    def out_shape(self) -> tuple[sympy.Expr, ...]:
        """Symbolic shape of the only result."""
        return self.shape(self.node)

    @property
    def tensors(self) -> list[Node]:
        """All operands that are tensors, in order, those in lists too."""
        leaves = tree_leaves((self.node.args, self.node.kwargs))
        return [x for x in leaves if isinstance(x, Node) and isinstance(x.meta.get("val"), Tensor)]

    def mixed(self, reason: str) -> Refused:
        """This op mixes samples; if an operand is already a sum over the samples, that sum is where they met."""
        for operand in self.tensors:
            found = self.of(operand)
            if isinstance(found, SummedOverSamples):
                return mixes(found.origin, f"sums over the samples, and {reason} at a later op")
        return mixes(self.node, reason)

    def unshown(self, reason: str, fix: str = "") -> Refused:
        """A sound program may do what this op does, but the analysis cannot tell it from one that mixes samples."""
        return unshown(self.node, reason, fix)

    def agreed(self, operands: Sequence[Any], shifts: Sequence[int] | None = None) -> PerSample | Refused | Shared:
        """The one way in which `operands` are per sample, with `shifts` added to their axes; shared if all are."""
        found: PerSample | None = None
        for i, operand in enumerate(operands):
            provenance = self.of(operand)
            if isinstance(provenance, Shared):
                continue
            if not isinstance(provenance, PerSample):
                return self.mixed("combines it with single samples")
            here = provenance.moved_to(provenance.axis + (shifts[i] if shifts else 0))
            met = here if found is None else meet(found, here)
            if met is None:
                return self.mixed("pairs values of different samples")
            found = met
        return found if found is not None else Shared()


Transfer = Callable[[Step], Results]
_TRANSFERS: dict[object, Transfer] = {}
REGISTERED: set[OpOverload] = set()
"""Operators whose rules came from outside, and are held against an experiment wherever they occur."""


def transfer(*operators: object) -> Callable[[Transfer], Transfer]:
    """Register a transfer rule for operators.

    Raises:
        AssertionError: an operator has a rule already; both owners are named.
    """

    def register(rule: Transfer) -> Transfer:
        for operator in operators:
            owner = _TRANSFERS.get(operator)
            assert owner is None, f"{operator} has two transfer rules: {owner} and {rule}"
            _TRANSFERS[operator] = rule
        return rule

    return register


def find_transfer(operator: object) -> Transfer | None:
    """The rule of an operator; pointwise operators are known by PyTorch's own tag."""
    rule = _TRANSFERS.get(operator)
    if rule is None and isinstance(operator, OpOverload) and torch.Tag.pointwise in operator.tags:
        return _TRANSFERS[torch.Tag.pointwise]
    return rule
