"""What was proved of a module, about which graphs, and what was taken on trust."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.table import Table
from torch import Tensor
from torch.fx import Graph, Node

from dpgraph.capture.batch import BatchDims
from dpgraph.clipping import CLIPPING_FUNCTIONS
from dpgraph.mechanism import Mechanism
from dpgraph.passes.pipeline import Rewriting
from dpgraph.provenance.registry import REGISTERED
from dpgraph.report.text import as_text
from dpgraph.torch_compat import tree_leaves

__all__ = ["Certificate", "CertifiedGraph", "make_certificate"]

CLAIM = (
    "In each graph, the gradient of every trained parameter is a sum over the samples of terms that depend on one "
    "sample each and on nothing of the others: not on their values, not on how many there are, nor on a sample's place "
    "among them. No buffer is written with a value that depends on samples. Each term is weighted so that all "
    "parameters' terms of one sample together have a norm of at most `sensitivity`."
)


@dataclass(frozen=True, slots=True)
class CertifiedGraph:
    """One captured graph.

    Attributes:
        digest: SHA-256 of the captured joint graph as text: operators, arguments, shapes and dtypes.
        num_operators: how many operators it has.
        num_sites: how many parameters get a gradient from samples in it.
    """

    digest: str
    num_operators: int
    num_sites: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the compiler stands for, and what it does not.

    Attributes:
        claim: what was proved of each graph.
        graphs: every graph that was captured so far; a call of another kind adds one.
        mode, trained: what is trained.
        clipping: the clipping function, by its name or its type.
        max_grad_norm, num_groups: R and K.
        sensitivity: the largest norm of what one sample adds to the gradients of a call.
        assumptions: what lies outside the graphs and has to hold for the claim to mean privacy.
        trusted: what was taken from the user's word.
        versions: of dpgraph and torch.
    """

    claim: str
    graphs: tuple[CertifiedGraph, ...]
    mode: str
    trained: tuple[str, ...]
    clipping: str
    max_grad_norm: float
    num_groups: int
    sensitivity: float
    assumptions: tuple[str, ...]
    trusted: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> str:
        """The certificate as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __rich__(self) -> Table:
        table = Table(title="certificate", title_justify="left", show_header=False, show_lines=True)
        table.add_row("proved", self.claim)
        table.add_row("about", "\n".join(f"{g.digest[:16]}  {g.num_operators} operators" for g in self.graphs) or "-")
        table.add_row("sensitivity", f"{self.sensitivity:g}  ({self.clipping}, {self.num_groups} groups)")
        table.add_row("trained", f"{len(self.trained)} parameters ({self.mode})")
        table.add_row("assumed", "\n".join(f"- {x}" for x in self.assumptions))
        table.add_row("trusted", "\n".join(f"- {x}" for x in self.trusted) or "nothing")
        table.add_row("by", ", ".join(f"{name} {v}" for name, v in self.versions.items()))
        return table

    def __str__(self) -> str:
        return as_text(self)


def make_certificate(
    mechanism: Mechanism, rewritings: Sequence[Rewriting], *, loss_inside: bool, batch_dims: BatchDims
) -> Certificate:
    """The certificate of everything that was captured so far."""
    captured = [r.stages["captured"].graph for r in rewritings]
    name = next((n for n, f in CLIPPING_FUNCTIONS.items() if f is mechanism.clipping), None)
    return Certificate(
        claim=CLAIM,
        graphs=tuple(
            CertifiedGraph(_digest(g), len(_operators(g)), len(r.sites))
            for g, r in zip(captured, rewritings, strict=True)
        ),
        mode=mechanism.mode,
        trained=mechanism.trained,
        clipping=name or type(mechanism.clipping).__name__,
        max_grad_norm=mechanism.max_grad_norm,
        num_groups=mechanism.num_groups,
        sensitivity=mechanism.sensitivity,
        assumptions=_assumptions(mechanism, loss_inside),
        trusted=_trusted(mechanism, captured, batch_dims, known_clipping=name is not None),
        versions={"dpgraph": _own_version(), "torch": torch.__version__},
    )


def _assumptions(mechanism: Mechanism, loss_inside: bool) -> tuple[str, ...]:
    total = "mean" if mechanism.loss_reduction == "mean" else "sum"
    loss = (
        f"what is called backward on is the {total} over the samples of the losses returned"
        if loss_inside
        else f"the loss outside the graph is the {total} over the samples of terms of one row of the outputs each"
    )
    return (
        loss,
        "the rows of all calls between two optimizer steps are different samples, drawn as the accountant is told",
        "noise is added to the gradients before anything else reads them; norms, outputs and losses are not released",
        "forward has no effects outside the graph that later calls read, and no argument of it that is a number, or a "
        "tensor without axes, depends on the samples",
    )


def _trusted(
    mechanism: Mechanism, graphs: Sequence[Graph], batch_dims: BatchDims, *, known_clipping: bool
) -> tuple[str, ...]:
    trusted = []
    if batch_dims is not None:
        trusted.append(f"batch_dims={batch_dims!r}: where the samples are, and which inputs all of them share")
    if not known_clipping:
        trusted.append(
            f"the bound that {type(mechanism.clipping).__name__} declares, beyond the norms at which it was tried"
        )
    used = sorted({str(n.target) for g in graphs for n in g.nodes if n.target in REGISTERED})
    trusted += [f"the registered transfer rule of {target}, which an experiment did not contradict" for target in used]
    return tuple(trusted)


def _operators(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _digest(graph: Graph) -> str:
    """SHA-256 of the graph as text, with shapes and dtypes."""
    lines = [
        f"{node.format_node()} {[_described(v) for v in tree_leaves(node.meta.get('val'))]}" for node in graph.nodes
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else str(value)


def _own_version() -> str:
    try:
        return version("dpgraph")
    except PackageNotFoundError:
        return "not installed"
