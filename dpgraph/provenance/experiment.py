"""Hold a registered transfer rule against the operator itself: change one sample, and see what moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Refused, SummedOverSamples, mixes
from dpgraph.provenance.registry import Results, Step
from dpgraph.torch_compat import tree_map, unset_fake_temporarily

__all__ = ["find_contradiction"]

NUM_SAMPLES = 3


def find_contradiction(step: Step, claimed: Results) -> Refused | None:
    """What the operator does on random values that the claim denies, or that it cannot be tried; else None.

    Args:
        step: the op. Its operands get random values (integers and booleans are 0 or 1) in the shapes of the graph, with
            a batch of three.
        claimed: what the registered rule says of its results.
    """
    try:
        with unset_fake_temporarily():  # the graph is being captured
            found = _contradiction(_Experiment(step), claimed)
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        return step.unshown(f"has a registered transfer rule that could not be tried on random values ({told})")
    return None if found is None else mixes(step.node, found)


def _contradiction(experiment: "_Experiment", claimed: Results) -> str | None:
    before = experiment.run()
    for b in range(NUM_SAMPLES):
        after, other = experiment.run(b), (b + 1) % NUM_SAMPLES
        for i, claim in enumerate(claimed if isinstance(claimed, tuple) else (claimed,) * len(before)):
            if isinstance(claim, SummedOverSamples):
                apart = experiment.run(b, other)[i] - experiment.run(other)[i]
                moved = not torch.allclose(apart, after[i] - before[i], rtol=1e-6, atol=1e-9)
            else:
                moved = not torch.equal(_others(before[i], claim, b), _others(after[i], claim, b))
            if moved:
                return "has a registered transfer rule that an experiment contradicts: other samples' values move"
    return None


def _others(value: Tensor, claim: Provenance, b: int) -> Tensor:
    """What must not move when sample b changes."""
    if not isinstance(claim, PerSample):
        return value
    inner = int(claim.inner)
    kept = [i for i in range(value.shape[claim.axis]) if i // inner % NUM_SAMPLES != b]
    return value.index_select(claim.axis, torch.tensor(kept, device=value.device))


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Those of one seed; the generator goes on afterwards from where it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class _Experiment:
    """Runs an op on random values, of which those of some samples are others."""

    def __init__(self, step: Step) -> None:
        self.step = step
        with _same_random_numbers():
            self.base, self.other = ({x: self._draw(x) for x in step.tensors} for _ in range(2))

    def run(self, *changed: int) -> list[Tensor]:
        """The results, in float64, with the samples of these numbers changed."""
        values = {x: self._with(x, changed) for x in self.base}

        def value_of(x: Any) -> Any:
            if not isinstance(x, Node):
                return x
            return values[x] if x in values else int(self._number(x.meta["val"]))

        node = self.step.node
        args, kwargs = tree_map(value_of, node.args), tree_map(value_of, node.kwargs)
        assert callable(node.target)
        with _same_random_numbers():
            results = node.target(*args, **kwargs)
        several = results if isinstance(results, (tuple, list)) else (results,)
        return [torch.as_tensor(x, dtype=torch.float64) for x in several]

    def _draw(self, x: Node) -> Tensor:
        like = x.meta["val"]
        shape = [int(self._number(size)) for size in like.shape]
        if like.dtype.is_floating_point:
            return torch.randn(shape, dtype=like.dtype)
        return torch.randint(0, 2, shape).to(like.dtype)

    def _number(self, size: Any) -> sympy.Expr:
        """A size with a batch of three; other symbols are as they were at capture."""
        expression = self.step.size(size).subs(self.step.batch, NUM_SAMPLES)
        return expression if expression.is_number else sympy.Integer(size.node.hint)

    def _with(self, x: Node, changed: tuple[int, ...]) -> Tensor:
        found = self.step.of(x)
        if not isinstance(found, PerSample):
            return self.base[x]
        value = self.base[x].clone()
        for i in self._places(value.shape[found.axis], int(found.inner), changed):
            value.select(found.axis, i).copy_(self.other[x].select(found.axis, i))
        return value

    @staticmethod
    def _places(size: int, inner: int, changed: tuple[int, ...]) -> Iterator[int]:
        return (i for i in range(size) if i // inner % NUM_SAMPLES in changed)
