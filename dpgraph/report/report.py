"""The report on what a mode trains and what the rewriting saved."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Group
from rich.table import Table
from torch import nn

from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting
from dpgraph.report.activations import saved_activations
from dpgraph.report.text import as_text

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


@dataclass(frozen=True, slots=True)
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
    """

    mode: str
    trained_parameters: int
    all_parameters: int
    saved_activations: Saved
    saved_without_recomputation: Saved
    gradients: Comparison
    optimizer_state: Comparison
    all_reduce: Comparison

    @property
    def trained_share(self) -> float:
        """Share of the parameters that is trained."""
        return self.trained_parameters / self.all_parameters

    def to_json(self) -> str:
        """The report as a JSON object; sizes in bytes."""
        return json.dumps({**asdict(self), "trained_share": self.trained_share}, indent=2)

    def __rich__(self) -> Group:
        return Group(self._summary(), self._modules())

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
            table.add_row(name, _readable(row.full), _readable(row.compiled), f"{row.ratio:.1f}x")
        return table

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
                name or "(the model itself)", *(_readable(x) for row in sizes for x in (row.full, row.compiled))
            )
        return table


def make_report(model: nn.Module, mechanism: Mechanism, options: CompileOptions, rewriting: Rewriting) -> Report:
    """Partition the captured graph and the rewritten one, and compare them."""
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    counts = {name: p.numel() for name, p in model.named_parameters()}
    gradients = Comparison(sum(sizes.values()), sum(sizes[name] for name in mechanism.trained))
    return Report(
        mode=mechanism.mode,
        trained_parameters=sum(counts[name] for name in mechanism.trained),
        all_parameters=sum(counts.values()),
        saved_activations=_compare_saved(rewriting, options.memory_budget),
        saved_without_recomputation=_compare_saved(rewriting, None),
        gradients=gradients,
        optimizer_state=Comparison(ADAM_MOMENTS * gradients.full, ADAM_MOMENTS * gradients.compiled),
        all_reduce=gradients,
    )


def _compare_saved(rewriting: Rewriting, memory_budget: float | None) -> Saved:
    before, after = (
        saved_activations(rewriting.stages[stage], memory_budget=memory_budget) for stage in ("captured", "prune")
    )
    by_module = {name: Comparison(before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*before, *after])}
    return Saved(Comparison(sum(before.values()), sum(after.values())), by_module)


def _readable(num_bytes: int) -> str:
    """Bytes with a binary prefix."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
