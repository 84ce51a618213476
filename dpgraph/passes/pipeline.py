"""The compiler: from the joint graph of ordinary training to that of private training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch.fx import Graph, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.forms import tensors_of
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.bound_offsets import bound_offsets
from dpgraph.passes.copy_bases_of_writes import copy_bases_of_writes
from dpgraph.passes.copy_written_inputs import copy_written_inputs
from dpgraph.passes.guard_matrices import guard_matrices
from dpgraph.passes.hold_operands import hold_operands
from dpgraph.passes.insert_clip_factors import insert_clip_factors
from dpgraph.passes.insert_materialised import insert_materialised
from dpgraph.passes.insert_norms import insert_norms
from dpgraph.passes.insert_per_sample_gradients import insert_per_sample_gradients
from dpgraph.passes.insert_weighted_sums import insert_weighted_sums
from dpgraph.passes.keep_groups_whole import keep_groups_whole
from dpgraph.passes.prune import prune
from dpgraph.passes.share_sizes import share_sizes
from dpgraph.plan_forms import Plan, plan_materialised
from dpgraph.provenance.assumptions import Assumptions, find_assumptions
from dpgraph.provenance.check import check_soundness
from dpgraph.provenance.infer import infer_provenance
from dpgraph.provenance.lattice import Provenance, Shared
from dpgraph.provenance.registry import Results
from dpgraph.sites.evaluate import SiteFunction
from dpgraph.sites.find import Site, find_sites
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["Rewriting", "rewrite"]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What the compiler did to one captured graph.

    Attributes:
        stages: the joint graph after each pass, by the pass's name, in order.
        sites: where the samples disappeared.
        forms: for each parameter with a site, the kinds of forms that its per-sample gradient is the sum of.
        returned: provenance of the values that the captured graph returns, in order.
        norms: names of the nodes of the norms [B], one for each group, from `insert_norms` on.
        assumptions: which sizes were taken for public, and what a sample can stop.
    """

    stages: Mapping[str, JointGraph]
    sites: tuple[Site, ...]
    forms: Mapping[str, tuple[str, ...]]
    returned: tuple[Provenance, ...]
    norms: tuple[str, ...]
    assumptions: Assumptions

    @property
    def last(self) -> JointGraph:
        """The joint graph after all passes."""
        return list(self.stages.values())[-1]

    @property
    def result(self) -> Graph:
        """The graph to lower."""
        return self.last.graph


def rewrite(
    captured: JointGraph, mechanism: Mechanism, options: CompileOptions, *, plan: Plan | None = None
) -> Rewriting:
    """Make the joint graph compute sums of clipped per-sample gradients.

    Args:
        captured: a joint graph that computes the gradient of every floating parameter.
        mechanism: what is trained, and how it is clipped.
        options: how; they change no result.
        plan: what to materialise, in the place of the options' choice.

    Raises:
        UnsoundProgramError: a sample influences another sample's gradient.
        UnsupportedProgramError: that cannot be decided.
    """
    trained, group_of = mechanism.trained, mechanism.group_of
    power = -1 if mechanism.loss_reduction == "mean" else 0
    guarded = guard_matrices(captured)
    provenance = infer_provenance(guarded, outer_power=power)
    bounded = bound_offsets(guarded, provenance)
    if bounded is not guarded:
        provenance = infer_provenance(bounded, outer_power=power)
    check_soundness(bounded, provenance, trained, expected_power=power)
    sites = find_sites(bounded, provenance, trained)
    functions = [SiteFunction(bounded, provenance, site) for site in sites]

    with_gradients, gradients = insert_per_sample_gradients(bounded, functions)
    chosen = plan_materialised(gradients, options) if plan is None else plan(gradients)
    with_materialised, gradients = insert_materialised(with_gradients, gradients, chosen)
    with_held = with_materialised
    if options.backend == "inductor":
        with_held, gradients = hold_operands(with_materialised, gradients)
    with_norms, norms, shares = insert_norms(with_held, gradients, group_of, mechanism.num_groups)
    with_factors, weights = insert_clip_factors(
        with_norms, norms, shares, mechanism.clipping, unit=mechanism.unit, weighed=_least_exact(gradients)
    )
    with_sums = insert_weighted_sums(with_factors, gradients, group_of, weights, mechanism.unit)
    with_shared_sizes = share_sizes(with_sums)
    pruned = prune(with_shared_sizes, trained)
    with_copied_inputs = copy_written_inputs(pruned)
    with_copied_bases = copy_bases_of_writes(with_copied_inputs)
    with_whole_groups = keep_groups_whole(with_copied_bases)
    stages = {
        "captured": captured,
        "guard_matrices": guarded,
        "bound_offsets": bounded,
        "insert_per_sample_gradients": with_gradients,
        "insert_materialised": with_materialised,
        "hold_operands": with_held,
        "insert_norms": with_norms,
        "insert_clip_factors": with_factors,
        "insert_weighted_sums": with_sums,
        "share_sizes": with_shared_sizes,
        "prune": pruned,
        "copy_written_inputs": with_copied_inputs,
        "copy_bases_of_writes": with_copied_bases,
        "keep_groups_whole": with_whole_groups,
    }
    forms = {name: tuple(type(form).__name__ for form in gradient.forms) for name, gradient in gradients.items()}
    return Rewriting(
        MappingProxyType(stages),
        sites,
        MappingProxyType(forms),
        tuple(_returned(bounded, provenance)),
        norms,
        find_assumptions(bounded, provenance, trained),
    )


def _least_exact(gradients: Mapping[str, PerSampleGradient]) -> torch.dtype:
    """The dtype of the operands that are weighed and added up with the fewest digits."""
    tensors = [x for gradient in gradients.values() for x in tensors_of(gradient.forms) if x.is_floating_point()]
    return torch.float64 if all(x.dtype == torch.float64 for x in tensors) else torch.float32


def _returned(captured: JointGraph, provenance: Mapping[Node, Results]) -> Iterator[Provenance]:
    for name in captured.returned:
        found = provenance[captured.nodes[name]] if name is not None else Shared()
        assert not isinstance(found, tuple), f"{name} has several results"
        yield found
