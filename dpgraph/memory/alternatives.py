"""The same model under other ways to train it, each predicted from a graph rewritten from the same capture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch.fx import GraphModule

from dpgraph.capture.joint import JointGraph
from dpgraph.errors import DPGraphError
from dpgraph.mechanism import Mechanism, Mode, is_bias
from dpgraph.memory.predict import join, predict, run_backward, run_forward, split
from dpgraph.memory.timeline import Timeline
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting, rewrite
from dpgraph.plan_forms import materialise_all

__all__ = ["ALTERNATIVES", "Alternatives", "predict_alternatives"]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Predictions by the name of the way to train.

    Attributes:
        timelines: those that the model allows.
        refused: why it does not allow the others.
    """

    timelines: Mapping[str, Timeline]
    refused: Mapping[str, str]


def predict_alternatives(captured: JointGraph, mechanism: Mechanism, options: CompileOptions) -> Alternatives:
    """Rewrite the captured graph in every way of `ALTERNATIVES` and predict each as it would run with these options.

    All have the clipping function, the backend and the memory budget in common; norms are over all parameters.
    """
    found = {name: _try(predicted, captured, mechanism, options) for name, predicted in ALTERNATIVES.items()}
    return Alternatives(
        MappingProxyType({name: x for name, x in found.items() if isinstance(x, Timeline)}),
        MappingProxyType({name: x for name, x in found.items() if isinstance(x, str)}),
    )


def _try(
    predicted: "Prediction", captured: JointGraph, mechanism: Mechanism, options: CompileOptions
) -> Timeline | str:
    """The timeline, or why there is none."""
    try:
        timeline = predicted(captured, mechanism, options)
    except DPGraphError as error:
        return str(error).partition("\n")[0]
    return timeline if timeline.trained else "there is nothing to train"


def _ordinary(captured: JointGraph, _: Mechanism, options: CompileOptions) -> Timeline:
    """The graph as captured: every parameter's ordinary gradient."""
    return predict(captured, options)


def _materialised(captured: JointGraph, mechanism: Mechanism, options: CompileOptions) -> Timeline:
    """Every parameter's per-sample gradients, all of them held from the norms to the weighted sums."""
    made = rewrite(captured, _trains(captured, mechanism, "full"), options, plan=materialise_all)
    return _of(made, options)


def _two_backwards(captured: JointGraph, mechanism: Mechanism, options: CompileOptions) -> Timeline:
    """A backward that ends in the norms, then an ordinary one of the weighted losses, on the same saved activations.

    One graph has both results, and is partitioned; its backward is then run once for the norms, with all that it does
    not need for them cut away, and once for the gradients.
    """
    made = rewrite(captured, _trains(captured, mechanism, "full"), replace(options, norm_strategy="ghost"))
    with_norms, ordinary = made.stages["insert_clip_factors"].copy(), captured.gradients
    with_norms.graph.eliminate_dead_code()
    halves = split(with_norms, options)
    first = _keep_outputs(halves.backward, lambda i: i == captured.probe_gradient - captured.num_forward_outputs)
    gradients = {position - captured.num_forward_outputs for position in ordinary.values()}
    second = _keep_outputs(halves.backward, gradients.__contains__)
    forward = run_forward(halves.forward, options)
    kept = run_backward(first, forward, with_norms, options, frees=False)
    return join(with_norms, forward, [kept, run_backward(second, forward, with_norms, options)], options)


def _planned(captured: JointGraph, mechanism: Mechanism, options: CompileOptions) -> Timeline:
    return _of(rewrite(captured, _trains(captured, mechanism, "full"), options), options)


def _biases(captured: JointGraph, mechanism: Mechanism, options: CompileOptions) -> Timeline:
    return _of(rewrite(captured, _trains(captured, mechanism, "bitfit"), options), options)


Prediction = Callable[[JointGraph, Mechanism, CompileOptions], Timeline]

# Sources: Abadi et al. 2016, arXiv:1607.00133, for materialising; Li et al. 2022, arXiv:2110.05679, section 4, for
# ghost clipping; Bu et al. 2024, arXiv:2210.00036, for DP-BiTFiT.
ALTERNATIVES: Mapping[str, Prediction] = MappingProxyType(
    {
        "full fine-tuning, not private": _ordinary,
        "DP full, materialised": _materialised,
        "DP full, ghost clipping, two backwards": _two_backwards,
        "DP full, as planned": _planned,
        "DP-BiTFiT": _biases,
    }
)


def _of(made: Rewriting, options: CompileOptions) -> Timeline:
    return predict(made.last, options, norms=made.norms)


def _trains(captured: JointGraph, mechanism: Mechanism, mode: Mode) -> Mechanism:
    """The mechanism with other parameters, all in one group; the probe keeps the columns that it was captured with."""
    trained = tuple(n for n in captured.gradients if captured.gradient_of(n) and (mode == "full" or is_bias(n)))
    return replace(mechanism, mode=mode, trained=trained, group_of=dict.fromkeys(trained, 0))


def _keep_outputs(half: GraphModule, kept: Callable[[int], bool]) -> GraphModule:
    """A copy of a backward that returns some of its outputs, and None for the others."""
    graph = type(half.graph)()
    outputs = graph.graph_copy(half.graph, {})
    graph.output([x if kept(i) else None for i, x in enumerate(outputs)])  # type: ignore[arg-type]
    graph.eliminate_dead_code()
    return GraphModule(half, graph)
