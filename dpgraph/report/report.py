"""The report on what a mode trains and what the rewriting saved."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from rich.console import Group
from rich.table import Table
from torch import nn

from dpgraph.freezing import Freezing, find_freezing
from dpgraph.mechanism import Mechanism
from dpgraph.memory.alternatives import predict_alternatives
from dpgraph.memory.predict import predict
from dpgraph.memory.timeline import Timeline
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting
from dpgraph.report.activations import saved_activations
from dpgraph.report.memory import AlternativesReport, Measured, show_timeline, timeline_as_dict
from dpgraph.report.text import as_text, enumerated, readable

__all__ = ["Comparison", "Report", "Saved", "make_report"]

ADAM_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Bytes of the same thing in full fine-tuning and as compiled."""

    full: int
    compiled: int

    @property
    def ratio(self) -> float:
        """full / compiled; infinite if nothing is left."""
        return self.full / self.compiled if self.compiled else float("inf")


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that the forward keeps for the backward.

    Attributes:
        total: of all modules.
        by_module: by module name; "" is the model itself.
    """

    total: Comparison
    by_module: Mapping[str, Comparison]


@dataclass(frozen=True)
class Report:
    """What is trained, and what pruning and rewriting saved, at the sizes of the newest capture.

    Attributes:
        mode: what was asked for.
        trained_parameters, all_parameters: numbers of elements.
        saved_activations: as the graphs run, where the partitioner recomputes what is cheap; full is the graph as
            captured, in which every parameter gets an ordinary gradient.
        saved_without_recomputation: the same for autograd's way of saving: what the backward reads, and nothing
            computed again. The difference between the two is what recomputation hides of a mode's savings.
        gradients: bytes of all `p.grad`.
        optimizer_state: bytes of two moments for each trained parameter (Adam).
        all_reduce: bytes that one step of data-parallel training sends from each worker: the gradients.
        freezing: which parameters are not trained and who decided so, and which came frozen and are.

    Further properties are computed when they are asked for: `memory` takes seconds under Inductor, `alternatives` five
    times as long.
    """

    mode: str
    trained_parameters: int
    all_parameters: int
    saved_activations: Saved
    saved_without_recomputation: Saved
    gradients: Comparison
    optimizer_state: Comparison
    all_reduce: Comparison
    freezing: Freezing
    source: "Source" = field(repr=False, compare=False)

    @cached_property
    def memory(self) -> Timeline:
        """Bytes over the course of a step, by module and by kind, predicted from the compiled graphs."""
        source = self.source
        return predict(source.rewriting.last, source.options, norms=source.rewriting.norms)

    @cached_property
    def alternatives(self) -> AlternativesReport:
        """The same for other ways to train this model, from the same capture."""
        source = self.source
        captured = source.rewriting.stages["captured"]
        return AlternativesReport(predict_alternatives(captured, source.mechanism, source.options))

    def under(self, options: CompileOptions) -> "Report":
        """The same capture, predicted for other options of the backend."""
        return replace(self, source=replace(self.source, options=options))

    def largest_batch(self, num_bytes: int, *, optimizer_moments: int = ADAM_MOMENTS) -> int:
        """The largest batch of which everything is predicted to fit into `num_bytes`; 0 if none does.

        Everything is: parameters, buffers, inputs, the peak within forward and backward, in which the gradients are,
        and `optimizer_moments` numbers for each one trained (Adam keeps 2, plain SGD none). What an optimizer's step
        needs for itself, and what lies outside torch's tensors, is not.
        """
        return self.memory.largest_batch(num_bytes, optimizer_moments=optimizer_moments)

    def measured(self) -> Measured:
        """Run a step on zeros of the newest capture's sizes, and put its peak beside the prediction.

        Gradients, buffers and random state are afterwards as they were.

        Raises:
            ArgumentError: this is the report of a plan.
        """
        return Measured(predicted=self.memory.peak(), measured=self.source.measure())

    @property
    def trained_share(self) -> float:
        """Share of the parameters that is trained."""
        return self.trained_parameters / self.all_parameters

    def to_json(self) -> str:
        """The report as a JSON object; sizes in bytes."""
        fields: dict[str, Any] = {
            "mode": self.mode,
            "trained_parameters": self.trained_parameters,
            "all_parameters": self.all_parameters,
            "trained_share": self.trained_share,
            "freezing": asdict(self.freezing),
        }
        for name in ("saved_activations", "saved_without_recomputation", "gradients", "optimizer_state", "all_reduce"):
            fields[name] = asdict(getattr(self, name))
        return json.dumps({**fields, "memory": timeline_as_dict(self.memory)}, indent=2)

    def __rich__(self) -> Group:
        return Group(self._summary(), *self._freezing(), show_timeline(self.memory), self._modules())

    def __str__(self) -> str:
        return as_text(self)

    def _summary(self) -> Table:
        table = Table(
            title=f"{self.mode}: {self.trained_parameters:,} of {self.all_parameters:,} parameters "
            f"({self.trained_share:.3%}) trained",
            title_justify="left",
        )
        for name in ("", "full fine-tuning", "as compiled", "full / compiled"):
            table.add_column(name, justify="left" if not name else "right")
        rows = {
            "saved activations": self.saved_activations.total,
            "  if nothing were recomputed": self.saved_without_recomputation.total,
            "gradients": self.gradients,
            "optimizer state (Adam)": self.optimizer_state,
            "all-reduce a step": self.all_reduce,
        }
        for name, row in rows.items():
            table.add_row(name, readable(row.full), readable(row.compiled), f"{row.ratio:.1f}x")
        return table

    def _freezing(self) -> Iterator[str]:
        """A line for each decision; names where it is not the mode's."""
        found = self.freezing
        if found.by_mode:
            yield f"not trained in mode {self.mode!r}: {len(found.by_mode)} parameters"
        if found.by_author:
            yield f"not trained, as they came with requires_grad=False: {enumerated(found.by_author)}"
        if found.unfrozen:
            yield f"trained by also_train, though they came with requires_grad=False: {enumerated(found.unfrozen)}"

    def _modules(self) -> Table:
        table = Table(title="saved activations by module (full fine-tuning, as compiled)", title_justify="left")
        table.add_column("module")
        for name in ("full", "compiled", "full, nothing recomputed", "compiled, nothing recomputed"):
            table.add_column(name, justify="right")
        as_run, as_autograd = self.saved_activations.by_module, self.saved_without_recomputation.by_module
        nothing = Comparison(0, 0)
        for name in dict.fromkeys([*as_autograd, *as_run]):
            sizes = (as_run.get(name, nothing), as_autograd.get(name, nothing))
            table.add_row(
                name or "(the model itself)", *(readable(x) for row in sizes for x in (row.full, row.compiled))
            )
        return table


@dataclass(frozen=True, slots=True)
class Source:
    """What a report is read off.

    Attributes:
        measure: runs a step and gives the bytes at its peak.
    """

    rewriting: Rewriting
    mechanism: Mechanism
    options: CompileOptions
    measure: Callable[[], int]


def make_report(
    model: nn.Module,
    mechanism: Mechanism,
    options: CompileOptions,
    rewriting: Rewriting,
    measure: Callable[[], int],
) -> Report:
    """Partition the captured graph and the rewritten one, and compare them."""
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    trained = sum(sizes[name] for name in mechanism.trained)
    counts = {name: p.numel() for name, p in model.named_parameters()}
    # gradients of half-precision parameters are in float32 when they are sums of clipped ones
    own = [p.numel() * max(p.element_size(), 4) for name, p in model.named_parameters() if name in mechanism.trained]
    gradients = Comparison(sum(sizes.values()), sum(own))
    return Report(
        mode=mechanism.mode,
        trained_parameters=sum(counts[name] for name in mechanism.trained),
        all_parameters=sum(counts.values()),
        saved_activations=_compare_saved(rewriting, options),
        saved_without_recomputation=_compare_saved(rewriting, None),
        gradients=gradients,
        optimizer_state=Comparison(ADAM_MOMENTS * gradients.full, ADAM_MOMENTS * trained),
        all_reduce=gradients,
        freezing=find_freezing(model, mechanism.trained),
        source=Source(rewriting, mechanism, options, measure),
    )


def _compare_saved(rewriting: Rewriting, options: CompileOptions | None) -> Saved:
    before, after = (saved_activations(rewriting.stages[stage], options) for stage in ("captured", "prune"))
    by_module = {name: Comparison(before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*before, *after])}
    return Saved(Comparison(sum(before.values()), sum(after.values())), by_module)
