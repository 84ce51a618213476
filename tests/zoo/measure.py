"""Train one architecture for a step, and say how it went."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dpgraph import CompileOptions, DPGraphError, DPModule, dp_compile
from tests.models.architecture import Architecture, Batch
from tests.oracle import group_names, per_sample_gradients
from tests.oracle.comparison import ZERO_IN_EXACT_ARITHMETIC, relative_errors

__all__ = ["Backend", "Row", "measure"]

Backend = Literal["eager", "inductor"]
NUM_SAMPLES = 4
# A model that computes in float32 inside, whatever its parameters are, can be no closer.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}
# Nor is what it makes of a gradient that is zero in exact arithmetic any smaller than its rounding.
NOISE = {torch.float64: ZERO_IN_EXACT_ARITHMETIC, torch.float32: torch.finfo(torch.float32).eps}


@dataclass(frozen=True)
class Row:
    """What came of one model.

    Attributes:
        name: of the model.
        num_parameters: elements of its parameters, before biases are added.
        adds_biases: whether the model has none, and "bitfit" was measured with `add_biases`.
        forms: how many of the forms of each kind its per-sample gradients are made of.
        num_fallbacks: operators that were mapped over the samples by vmap.
        error: largest relative error of a parameter's clipped sum against the loop over the samples.
        tolerance: what it may be.
        skipped: trained parameters that have a gradient in the loop and got none.
        refusal: the first line of the error, if it was refused.
    """

    name: str
    num_parameters: int
    adds_biases: bool = False
    forms: Mapping[str, int] = field(default_factory=dict)
    num_fallbacks: int = 0
    error: float = 0.0
    tolerance: float = 0.0
    skipped: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def num_sites(self) -> int:
        """How many forms there are."""
        return sum(self.forms.values())


def measure(architecture: Architecture, mode: str = "full", backend: Backend = "eager") -> Row:
    """One step with R / n, whose sum moves with every error of a norm, against the loop over the samples."""
    torch._dynamo.reset()
    model = architecture.build()
    num_parameters = sum(p.numel() for p in model.parameters())
    torch.manual_seed(2)
    batch = architecture.batch(NUM_SAMPLES).to(torch.float64)
    adds_biases = mode == "bitfit" and not any("bias" in n.rpartition(".")[2] for n, _ in model.named_parameters())
    try:
        module = dp_compile(model, mode, clipping="auto-v", add_biases=adds_biases, options=CompileOptions(backend))
        architecture.losses(module, batch).sum().backward()
    except DPGraphError as error:
        return Row(architecture.name, num_parameters, adds_biases, refusal=error.what)
    expected = _expected(architecture, model, batch)
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    skipped = tuple(name for name, g in found.items() if g is None and expected[name].any())
    given = {name: torch.zeros_like(expected[name]) if g is None else g for name, g in found.items()}
    norms = module.graphs["insert_per_sample_gradients"].nodes
    coarsest = _coarsest(module)
    return Row(
        architecture.name,
        num_parameters,
        adds_biases,
        dict(Counter(kind for kinds in module.rewriting.forms.values() for kind in kinds)),
        sum(node.target is torch.ops.dpgraph.map_over_samples.default for node in norms),
        max(relative_errors(given, expected, NOISE[coarsest]).values()),
        TOLERANCES[coarsest],
        skipped,
    )


def _expected(architecture: Architecture, model: Any, batch: Batch) -> dict[str, Tensor]:
    samples = per_sample_gradients(model, lambda twin, b: architecture.losses(twin, batch.sample(b)).sum(), NUM_SAMPLES)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return samples.clipped_sum(group_names(trained, "flat"), "auto-v", 1.0)


def _coarsest(module: DPModule) -> torch.dtype:
    """float32 if anything is computed in less than float64."""
    values = [
        v for node in module.graphs["captured"].nodes for v in torch.utils._pytree.tree_leaves(node.meta.get("val"))
    ]
    coarse = any(isinstance(v, Tensor) and v.dtype in (torch.float32, torch.complex64) for v in values)
    return torch.float32 if coarse else torch.float64
