"""Run a joint graph operator by operator, freeing values as soon as nothing reads them any more."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.torch_compat import OpOverload, draw_from_seed, draw_seeds, tree_leaves, without_autocast
from dpgraph.validate.draws import SEEDED, Seed, is_random
from dpgraph.validate.interface import is_write

__all__ = ["Noise", "find_overflow", "run_op_by_op"]

aten = torch.ops.aten
COMPARISONS = {aten.gt.Scalar, aten.ge.Scalar, aten.lt.Scalar, aten.le.Scalar}
Read = Callable[[str], Any]


class Noise:
    """Rounds values differently: inputs, and what operators compute, are off by up to one unit, at random.

    Whole numbers are left alone: they are exact, and may be flags or counts that a program compares with.
    """

    def __init__(self, eps: float, seed: int) -> None:
        """Prepare one way of rounding.

        Args:
            eps: the unit of inputs; that of what is computed is its dtype's.
            seed: of the way.
        """
        self._eps = eps
        self._seed = seed
        self._drawn = 0

    def of_input(self, x: Any) -> Any:
        """An input with noise, if it is a floating tensor."""
        return self._rounded(x, self._eps) if _is_floating(x) else x

    def of_result(self, n: Node, x: Any) -> Any:
        """What an operator computed with noise, if it is a floating tensor and was not only moved or drawn."""
        if not _is_floating(x) or is_random(n) or _is_view(n):
            return x
        return self._rounded(x, torch.finfo(x.dtype).eps)

    def _rounded(self, x: Tensor, eps: float) -> Tensor:
        self._drawn += 1
        generator = torch.Generator(x.device).manual_seed(self._seed * 10_007 + self._drawn)
        exact = torch.promote_types(x.dtype, torch.float32)
        share = torch.rand(x.shape, generator=generator, device=x.device, dtype=exact) * 2 - 1
        noisy = (x.detach().to(exact) * (1 + eps * share)).to(x.dtype)
        return torch.where(x == x.round(), x, noisy)


def run_op_by_op(
    joint: JointGraph, read: Read, seeds: Mapping[str, Seed], keep: Mapping[str, Node], noise: Noise | None = None
) -> dict[str, Any]:
    """Values of nodes of a joint graph.

    Random operators draw from torch's generator in the order of the graph, but for those with a seed of Inductor's.

    Args:
        joint: without side effects, but for writes of inputs at its end, which are left out.
        read: value of a placeholder, by name; asked when it is needed first.
        seeds: seeds of random operators, by their names.
        keep: nodes whose values are wanted, by any names.
        noise: of inputs and results; None for the values as they are.
    """
    run = _OpByOp(joint, read, seeds, set(keep.values()), noise)
    with torch.no_grad(), without_autocast():
        run.run()
    return {name: run.kept[node] for name, node in keep.items()}


def find_overflow(joint: JointGraph, read: Read, seeds: Mapping[str, Seed]) -> Node | None:
    """The first node that makes of finite numbers one that is not finite."""
    run = _OpByOp(joint, read, seeds, set(), None, watch=True)
    with torch.no_grad(), without_autocast():
        run.run()
    return run.overflow


class _OpByOp(Interpreter):
    def __init__(
        self,
        joint: JointGraph,
        read: Read,
        seeds: Mapping[str, Seed],
        wanted: set[Node],
        noise: Noise | None,
        *,
        watch: bool = False,
    ) -> None:
        assert isinstance(joint.module, torch.nn.Module)
        super().__init__(joint.module, graph=joint.graph)
        self.read = read
        self.seeds = seeds
        self.wanted = wanted
        self.noise = noise
        self.watch = watch
        self.kept: dict[Node, Any] = {}
        self.overflow: Node | None = None
        self._drawn: dict[torch.device, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """The value of one node."""
        if n.op == "placeholder":
            value = self.read(n.name)
            value = value if self.noise is None else self.noise.of_input(value)
        elif n.op == "output":
            return None  # what is wanted was kept
        elif is_write(n):
            value = self.env[n.args[1]]  # type: ignore[index]
        elif n.name in self.seeds:
            value = self._draw(n, self.seeds[n.name])
        elif n.target == aten.view.default:
            value = aten.reshape.default(*self.fetch_args_kwargs_from_env(n)[0])
        else:
            value = super().run_node(n)
        if self.noise is not None and n.op == "call_function":
            value = self.noise.of_result(n, value)
        if self.watch and self.overflow is None and _overflows(value, [self.env[x] for x in n.all_input_nodes]):
            self.overflow = n
        if n in self.wanted:
            self.kept[n] = value
        return value

    def _draw(self, n: Node, seed: Seed) -> Tensor:
        """Numbers of Inductor's; all seeds of a device are drawn at the first."""
        if seed.device not in self._drawn:
            self._drawn[seed.device] = draw_seeds(seed.count, seed.device)
        args = self.fetch_args_kwargs_from_env(n)[0]
        kind = SEEDED[n.target]  # type: ignore[index]
        low, high, size = args[:3] if kind == "randint" else (0, 0, args[0])
        numbers = draw_from_seed(self._drawn[seed.device][seed.slot].clone(), size, kind, low, high)
        # compared with a number, as dropout does, they are not rounded to half precision before
        return numbers if all(user.target in COMPARISONS for user in n.users) else numbers.to(n.meta["val"].dtype)


def _overflows(value: Any, operands: list[Any]) -> bool:
    """Whether finite operands, at least one, became something that is not finite."""
    known = [x for x in tree_leaves(operands) if isinstance(x, Tensor)]
    return bool(known) and all(map(_finite, known)) and not all(map(_finite, tree_leaves(value)))


def _is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point


def _is_view(n: Node) -> bool:
    return isinstance(n.target, OpOverload) and any(r.alias_info is not None for r in n.target._schema.returns)


def _finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or not x.dtype.is_floating_point or bool(torch.isfinite(x).all())
