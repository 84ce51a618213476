"""The report on what a mode trains and what the rewriting saved."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from torch import nn

from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting
from dpgraph.report.activations import saved_activations

__all__ = ["Comparison", "Report", "make_report"]

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
class Report:
    """What is trained, and what pruning and rewriting saved, at the sizes of the newest capture.

    Attributes:
        mode: what was asked for.
        trained_parameters, all_parameters: numbers of elements.
        saved_activations: bytes that the forward keeps for the backward; full is the graph as captured, in which every
            parameter gets an ordinary gradient.
        saved_by_module: the same by module name; "" is the model itself.
        gradients: bytes of all `p.grad`.
        optimizer_state: bytes of two moments for each trained parameter (Adam).
        all_reduce: bytes that one step of data-parallel training sends from each worker: the gradients.
    """

    mode: str
    trained_parameters: int
    all_parameters: int
    saved_activations: Comparison
    saved_by_module: Mapping[str, Comparison]
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

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(self._summary())
        if self.saved_by_module:
            console.print(self._modules())
        written: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in written.splitlines())

    def _summary(self) -> Table:
        table = Table(
            title=f"{self.mode}: {self.trained_parameters:,} of {self.all_parameters:,} parameters "
            f"({self.trained_share:.3%}) trained",
            title_justify="left",
        )
        for name in ("", "full fine-tuning", "as compiled", "full / compiled"):
            table.add_column(name, justify="left" if not name else "right")
        rows = {
            "saved activations": self.saved_activations,
            "gradients": self.gradients,
            "optimizer state (Adam)": self.optimizer_state,
            "all-reduce a step": self.all_reduce,
        }
        for name, row in rows.items():
            table.add_row(name, _readable(row.full), _readable(row.compiled), f"{row.ratio:.1f}x")
        return table

    def _modules(self) -> Table:
        table = Table(title="saved activations by module", title_justify="left")
        for name in ("module", "full fine-tuning", "as compiled"):
            table.add_column(name, justify="left" if name == "module" else "right")
        for name, row in self.saved_by_module.items():
            table.add_row(name or "(the model itself)", _readable(row.full), _readable(row.compiled))
        return table


def make_report(model: nn.Module, mechanism: Mechanism, options: CompileOptions, rewriting: Rewriting) -> Report:
    """Partition the captured graph and the rewritten one, and compare them."""
    captured, pruned = rewriting.stages["captured"], rewriting.stages["prune"]
    before = saved_activations(captured, memory_budget=options.memory_budget)
    after = saved_activations(pruned, memory_budget=options.memory_budget)
    names = list(before) + [name for name in after if name not in before]
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    counts = {name: p.numel() for name, p in model.named_parameters()}
    gradients = Comparison(sum(sizes.values()), sum(sizes[name] for name in mechanism.trained))
    return Report(
        mode=mechanism.mode,
        trained_parameters=sum(counts[name] for name in mechanism.trained),
        all_parameters=sum(counts.values()),
        saved_activations=Comparison(sum(before.values()), sum(after.values())),
        saved_by_module={name: Comparison(before.get(name, 0), after.get(name, 0)) for name in names},
        gradients=gradients,
        optimizer_state=Comparison(ADAM_MOMENTS * gradients.full, ADAM_MOMENTS * gradients.compiled),
        all_reduce=gradients,
    )


def _readable(num_bytes: int) -> str:
    """Bytes with a binary prefix."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
