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
from dpgraph.capture.joint import Constant, JointGraph, Sample
from dpgraph.clipping import CLIPPING_FUNCTIONS
from dpgraph.errors import Place
from dpgraph.mechanism import Mechanism
from dpgraph.passes.pipeline import Rewriting
from dpgraph.provenance.registry import REGISTERED
from dpgraph.report.text import as_text
from dpgraph.torch_compat import tree_leaves
from dpgraph.validate.record import Validation

__all__ = ["Certificate", "CertifiedGraph", "make_certificate"]

CLAIM = (
    "In each graph, the gradient of every trained parameter is a sum over the samples of terms that depend on one "
    "sample each and on nothing of the others: not on their values, not on how many there are, nor on a sample's place "
    "among them. Nothing that depends on samples is written into a buffer, or assigned to what outlives the call. Each "
    "term is weighted so that all parameters' terms of one sample together have a norm of at most `sensitivity`, as "
    "they are computed and rounded (docs/arithmetic.md)."
)


@dataclass(frozen=True, slots=True)
class CertifiedGraph:
    """One captured graph.

    Attributes:
        digest: SHA-256 of the captured joint graph as text: operators, arguments, shapes and dtypes.
        num_operators: how many operators it has.
        num_sites: how many parameters get a gradient from samples in it.
        entered: every tensor that it reads besides parameters, and what it was taken for.
        written: buffers and objects that it leaves changed.
        public: sizes of its inputs that vary from call to call.
        stops: operators that end in an error for some values of one sample, with their lines.
        validated: how it was compared with its operators run one by one.
    """

    digest: str
    num_operators: int
    num_sites: int
    entered: tuple[str, ...]
    written: tuple[str, ...]
    public: tuple[str, ...]
    stops: tuple[str, ...]
    validated: str


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
        for i, graph in enumerate(self.graphs):
            table.add_row(f"graph {i + 1} reads", "\n".join(f"- {x}" for x in graph.entered))
            table.add_row("writes", "\n".join(f"- {x}" for x in graph.written) or "nothing")
            table.add_row("takes for public", "\n".join(f"- {x}" for x in graph.public) or "no size that varies")
            table.add_row("may be stopped by", "\n".join(f"- {x}" for x in graph.stops) or "nothing that is known")
            table.add_row("validated", graph.validated)
        table.add_row("sensitivity", f"{self.sensitivity:g}  ({self.clipping}, {self.num_groups} groups)")
        table.add_row("trained", f"{len(self.trained)} parameters ({self.mode})")
        table.add_row("assumed", "\n".join(f"- {x}" for x in self.assumptions))
        table.add_row("trusted", "\n".join(f"- {x}" for x in self.trusted) or "nothing")
        table.add_row("by", ", ".join(f"{name} {v}" for name, v in self.versions.items()))
        return table

    def __str__(self) -> str:
        return as_text(self)


def make_certificate(
    mechanism: Mechanism,
    rewritings: Sequence[Rewriting],
    validations: Sequence[Validation],
    *,
    loss_inside: bool,
    batch_dims: BatchDims,
) -> Certificate:
    """The certificate of everything that was captured so far."""
    validated = {v.graph: str(v).partition(": ")[2] for v in validations}
    captured = [r.stages["captured"] for r in rewritings]
    graphs = [joint.graph for joint in captured]
    clipping = mechanism.clipping
    name = next((n for n, f in CLIPPING_FUNCTIONS.items() if f is clipping), None)
    is_known = type(clipping) in map(type, CLIPPING_FUNCTIONS.values())
    return Certificate(
        claim=CLAIM,
        graphs=tuple(
            CertifiedGraph(
                digest=_digest(joint.graph),
                num_operators=len(_operators(joint.graph)),
                num_sites=len(r.sites),
                entered=_entered(joint),
                written=_written(joint),
                public=tuple(map(str, r.assumptions.public_sizes)),
                stops=tuple(_shown(place) for place in r.assumptions.stops),
                validated=validated.get(i, "not yet, or not asked for"),
            )
            for i, (joint, r) in enumerate(zip(captured, rewritings, strict=True))
        ),
        mode=mechanism.mode,
        trained=mechanism.trained,
        clipping=name or (repr(clipping) if is_known else type(clipping).__name__),
        max_grad_norm=mechanism.max_grad_norm,
        num_groups=mechanism.num_groups,
        sensitivity=mechanism.sensitivity,
        assumptions=_assumptions(mechanism, loss_inside),
        trusted=_trusted(mechanism, graphs, batch_dims, known_clipping=is_known),
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
        "the rows of all calls between two optimizer steps are different samples, drawn as the accountant is told, and "
        f"at most {mechanism.sums.max_samples} in {mechanism.sums.max_parts} backwards",
        "matrix products are not in TF32, which rounds what is weighted to 11 bits",
        "noise is added to the gradients before anything else reads them; norms, outputs and losses are not released",
        "what is in `p.grad` when the optimizer steps came from one backward of each call and from nothing else; the "
        "noise of dpgraph.privacy sees what autograd adds, and not what other code writes there",
        "what the model holds (buffers, frozen parameters, attributes that are numbers) and the arguments that all "
        "samples share, numbers and tensors without axes among them, hold nothing of samples; nor does what functions "
        "marked with torch.compiler.assume_constant_result return",
        "sizes other than the number of samples are public: how long the inputs are is no secret of one sample; pad to "
        "a fixed length where it is, and divide by what a mask counts",
        "that a step ends in an error is no release: an index out of range, which one sample may hold, stops it for "
        "all",
    )


def _entered(joint: JointGraph) -> tuple[str, ...]:
    entered = {name: role for name, role in joint.inputs.items() if name != joint.probe}
    samples = [f"{x.name}: samples along axis {x.axis}" for x in entered.values() if isinstance(x, Sample)]
    shared = [f"{x.name}: the same for all samples" for x in entered.values() if isinstance(x, Constant) and x.name]
    return (*samples, *shared)


def _written(joint: JointGraph) -> tuple[str, ...]:
    buffers = (joint.inputs[placeholder] for placeholder in joint.written)
    names = [role.name for role in buffers if isinstance(role, Constant)] + [
        write.target for write in joint.assignments
    ]
    return tuple(dict.fromkeys(f"{name}: free of samples" for name in names))


def _shown(place: Place) -> str:
    return f"{place.op} at {place.line}" if place.line is not None else str(place.op)


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
