"""Guards of what surrounds a graph: calls of no samples, what is frozen, the accounting of long runs."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

MUTANTS = (
    Mutant(
        "an empty batch runs the graph",
        "dpgraph/lower/compiler.py",
        "empty(*given) if call.tensors.is_empty else compiled(*given)",
        "compiled(*given)",
        ("tests/lower/test_empty.py::test_gradients_add_up_over_empty_calls",),
    ),
    Mutant(
        "an empty batch has a gradient",
        "dpgraph/lower/empty.py",
        "torch.zeros(shape, dtype=dtype, device=device)",
        "torch.ones(shape, dtype=dtype, device=device)",
        ("tests/lower/test_empty.py::test_gradients_add_up_over_empty_calls",),
    ),
    Mutant(
        "rows that are made up are computed with",
        "dpgraph/lower/empty.py",
        "isinstance(self._joint.inputs[node.name], Sample | Tangent)",
        "isinstance(self._joint.inputs[node.name], Tangent)",
        ("tests/lower/test_empty.py::test_gradients_add_up_over_empty_calls",),
    ),
    Mutant(
        "what came frozen is trained",
        "dpgraph/mechanism.py",
        "and _is_free(mode, parameter)",
        "and True",
        ("tests/test_freezing.py::test_what_came_frozen_stays_frozen",),
    ),
    Mutant(
        "what an earlier phase froze stays frozen",
        "dpgraph/freezing.py",
        "return CHANGED.get(parameter, parameter.requires_grad)",
        "return parameter.requires_grad",
        ("tests/test_freezing.py::test_a_second_phase_trains_what_the_first_left_alone",),
    ),
    Mutant(
        "steps of a long run are left out",
        "dpgraph/privacy/bounds.py",
        "return whole.compose(step.self_compose(rest)) if rest else whole",
        "return whole",
        ("tests/privacy/test_accounting.py::test_a_long_run_is_composed_in_parts_that_make_up_the_whole",),
    ),
)
