"""Check by experiment that gradients are the sums of clipped gradients that they should be: loop over the samples."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.batch import BatchedCall, find_batch
from dpgraph.errors import ArgumentError
from dpgraph.lower.module import DPModule
from dpgraph.mechanism import Mechanism
from dpgraph.torch_compat import tree_leaves

__all__ = ["GradientAudit", "GradientError", "audit_gradients"]

# A gradient that is zero in exact arithmetic is rounding noise, of some units in the last place of the largest one.
UNITS = 64
SHOWN = 10


@dataclass(frozen=True, slots=True)
class GradientError:
    """How far one parameter's gradient is from the loop's.

    Attributes:
        parameter: its name.
        error: norm of the difference, relative to the loop's norm.
        norm: norm of the loop's gradient.
        exact: whether the difference is rounding.
    """

    parameter: str
    error: float
    norm: float
    exact: bool


@dataclass(frozen=True, slots=True)
class GradientAudit:
    """What an audit found.

    Attributes:
        num_samples: how many samples there were.
        backend: what computed the private gradients.
        loop_dtype: in which the loop ran.
        tolerance: the relative error that is taken for rounding.
        norms_error: largest difference of a sample's norm, relative to the largest norm.
        errors: one for each trained parameter, the worst first.
    """

    num_samples: int
    backend: str
    loop_dtype: torch.dtype
    tolerance: float
    norms_error: float
    errors: tuple[GradientError, ...]

    @property
    def exact(self) -> bool:
        """Whether every gradient and every norm is the loop's, but for rounding."""
        return self.norms_error <= self.tolerance and all(e.exact for e in self.errors)

    def __str__(self) -> str:
        wrong = sum(not e.exact for e in self.errors)
        verdict = "all exact" if self.exact else f"{wrong} of {len(self.errors)} parameters are wrong"
        lines = [
            f"{self.num_samples} samples through {self.backend}, against a loop in {self.loop_dtype}: {verdict} "
            f"(tolerance {self.tolerance:.1e}, norms {self.norms_error:.1e})"
        ]
        lines += [
            f"  {'     ' if e.exact else 'WRONG'} {e.error:.1e} of norm {e.norm:.1e}  {e.parameter}"
            for e in self.errors[:SHOWN]
        ]
        if len(self.errors) > SHOWN:
            lines.append(f"  and {len(self.errors) - SHOWN} more")
        return "\n".join(lines)


def audit_gradients(
    model: DPModule,
    inputs: tuple[Any, ...] | Mapping[str, Any],
    *,
    targets: tuple[Any, ...] = (),
    output_dim: int = 0,
    tolerance: float | None = None,
    seed: int = 0,
) -> GradientAudit:
    """Compare what a backward leaves in `p.grad` with a loop over the samples, one plain backward each.

    Both run on copies of the model in eval mode, so that dropout is off and every sample is by itself: what is compared
    is the private graph of eval mode, through the backend and with the mechanism of `model`. (The graphs of train mode
    are compared with their own operators at their first batch, see `CompileOptions.verify`.) The loop uses neither the
    analysis nor the graph: gradients of the model as it is written, in float64 where it runs in that, the clipping
    function on their norms by group, and a sum.

    The loss is `loss_fn` if the module has one, else the inner product of the outputs with fixed random numbers.

    Args:
        model: what `dp_compile` returned. It is left as it is: gradients, buffers, mode, random state.
        inputs: arguments of a call with a few samples, by position or by name.
        targets: as in the call, if the module has a `loss_fn`.
        output_dim: the axis of the samples in the outputs, if it has none.
        tolerance: relative error that is taken for rounding; by default the square root of the precision of the
            coarsest trained parameter, which for half precision says little: audit a float32 copy.
        seed: of the random numbers.

    Returns:
        The errors by parameter; costs a capture, and a backward for each sample.

    Raises:
        ArgumentError: `model` is no `DPModule`, or no output depends on the parameters and has a batch on `output_dim`.
        CaptureError, UnsoundProgramError, UnsupportedProgramError: the program is refused.

    >>> from torch import nn
    >>> from dpgraph import CompileOptions, dp_compile
    >>> model = dp_compile(nn.Linear(3, 2).double(), "full", options=CompileOptions(backend="eager"))
    >>> audit_gradients(model, (torch.randn(4, 3, dtype=torch.float64),)).exact
    True
    """
    if not isinstance(model, DPModule):
        raise ArgumentError(
            f"audit_gradients was given a {type(model).__name__}",
            why="what is audited is the gradients of a compiled module, under its own backend and mechanism",
            fix="pass what dp_compile returned",
        )
    given = Arguments.of_call(inputs, targets)
    signature = inspect.signature(model.original_module.forward)
    call = find_batch(given, signature, model._calls.batch_dims)
    experiment = _Experiment(model, given, call, output_dim, seed)
    found, norms = experiment.through_the_module()
    dtype, samples = experiment.through_the_loop()
    mechanism = model._calls.mechanism
    factors, expected_norms = _clip(mechanism, samples)
    dtypes = {p.dtype for n, p in model.original_module.named_parameters() if n in found}
    coarsest = max(dtypes, key=lambda d: torch.finfo(d).eps)
    eps = torch.finfo(coarsest).eps
    allowed = eps**0.5 if tolerance is None else tolerance
    expected = {
        name: torch.stack([factors[b, mechanism.group_of[name]] * g[name] for b, g in enumerate(samples)]).sum(0)
        for name in found
    }
    largest = max(float(e.norm()) for e in expected.values())
    errors = [_error(name, g, expected[name], allowed, UNITS * eps * largest) for name, g in found.items()]
    norms_error = float((norms - expected_norms).abs().max() / expected_norms.max().clamp_min(torch.finfo(dtype).tiny))
    return GradientAudit(
        num_samples=call.num_samples,
        backend=model._calls.compiler.options.backend,
        loop_dtype=dtype,
        tolerance=allowed,
        norms_error=norms_error,
        errors=tuple(sorted(errors, key=lambda e: (e.exact, -e.error))),
    )


def _error(name: str, found: Tensor, expected: Tensor, tolerance: float, noise: float) -> GradientError:
    difference, norm = float((found.to(expected) - expected).norm()), float(expected.norm())
    relative = difference / norm if norm > 0 else (0.0 if difference == 0 else float("inf"))
    return GradientError(name, relative, norm, exact=difference <= tolerance * norm + noise)


def _clip(mechanism: Mechanism, samples: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Factors and norms, [B, K] each."""
    norms = torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [g[n].double().norm().cpu() for n in mechanism.trained if mechanism.group_of[n] == k]
                    ).norm()
                    for k in range(mechanism.num_groups)
                ]
            )
            for g in samples
        ]
    )
    finite = torch.isfinite(norms)
    factors = mechanism.clipping.factor(norms, torch.full_like(norms, mechanism.max_group_norm))
    return torch.where(finite, factors, 0), norms


@dataclass(frozen=True, slots=True)
class _Experiment:
    model: DPModule
    given: Arguments
    call: BatchedCall
    output_dim: int
    seed: int

    def through_the_module(self) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients that one backward of a copy leaves, by parameter, and norms [B, K]."""
        twin = copy.deepcopy(self.model).eval()
        twin.zero_grad()
        behind = {"targets": self.given.targets} if self.model._calls.loss_fn is not None else {}
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            outputs = twin(*self.given.args, **self.given.kwargs, **behind)
            loss = self._loss(outputs, rows=range(self.call.num_samples))
            (loss / self.call.num_samples if self.model._calls.mechanism.loss_reduction == "mean" else loss).backward()
        parameters = dict(twin.named_parameters())
        found = {n: parameters[n] for n in self.model._calls.mechanism.trained}
        norms = twin.grad_norms.reshape(self.call.num_samples, -1).double().cpu()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in found.items()}, norms

    def through_the_loop(self) -> tuple[torch.dtype, list[dict[str, Tensor]]]:
        """Gradients of each sample alone, in float64, or in the dtype of the model if it does not run in that."""
        try:
            return torch.float64, self._loop(lambda x: x.double())
        except (RuntimeError, TypeError):  # dtypes that are written in the program
            dtype = next(iter(self.model.parameters())).dtype
            return dtype, self._loop(lambda x: x)

    def _loop(self, convert: Any) -> list[dict[str, Tensor]]:
        twin = copy.deepcopy(self.model.original_module).eval()
        convert(twin)
        parameters = {n: p for n, p in twin.named_parameters() if n in self.model._calls.mechanism.group_of}
        for p in parameters.values():
            p.requires_grad_()

        def row(b: int, x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            one = x.narrow(self.call.dims[id(x)], b, 1) if id(x) in self.call.dims else x
            return convert(one) if one.dtype.is_floating_point else one

        samples = []
        with torch.random.fork_rng(), torch.enable_grad():
            for b in range(self.call.num_samples):
                torch.manual_seed(self.seed)
                one = self.call.arguments.map(partial(row, b))
                outputs = twin(*one.args, **one.kwargs)
                if self.model._calls.loss_fn is not None:
                    outputs = self.model._calls.loss_fn(outputs, *one.targets)
                gradients = torch.autograd.grad(
                    self._loss(outputs, rows=range(b, b + 1)), list(parameters.values()), allow_unused=True
                )
                samples.append(
                    {
                        n: torch.zeros_like(p) if g is None else g
                        for (n, p), g in zip(parameters.items(), gradients, strict=True)
                    }
                )
        return samples

    def _loss(self, outputs: Any, rows: range) -> Tensor:
        """The sum of losses, or of outputs with random weights that are those of the same samples in every batch."""
        if self.model._calls.loss_fn is not None:
            total: Tensor = outputs.sum()
            return total
        terms = []
        for i, x in enumerate(x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.dtype.is_floating_point):
            if x.requires_grad and x.ndim > self.output_dim and x.shape[self.output_dim] == len(rows):
                first = x.movedim(self.output_dim, 0)
                terms += [(first[j] * self._weights(first[j], i, b)).sum() for j, b in enumerate(rows)]
        if not terms:
            raise ArgumentError(
                f"no output of the model depends on parameters and has the samples on axis {self.output_dim}",
                why="gradients are compared for a sum over the samples",
                fix="pass output_dim, or compile the model with a loss_fn",
            )
        return torch.stack(terms).sum()

    def _weights(self, like: Tensor, output: int, sample: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * output + sample)
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64) / max(like.numel(), 1) ** 0.5
        weights: Tensor = drawn.to(like)
        return weights
