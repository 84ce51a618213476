"""Guards of what surrounds a graph: calls of no samples, what is frozen, the accounting of long runs."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

MUTANTS = (
    Mutant(
        "an empty batch runs the graph",
        "dpgraph/lower/compiler.py",
        "compiled(*given) if call.tensors.num_samples else empty(*given)",
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
        "dpgraph/lower/forward.py",
        "isinstance(self.joint.inputs[node.name], Sample | Tangent)",
        "isinstance(self.joint.inputs[node.name], Tangent)",
        ("tests/lower/test_empty.py::test_gradients_add_up_over_empty_calls",),
    ),
    Mutant(
        "sizes that are returned count the padding",
        "dpgraph/lower/compiler.py",
        "num_samples=call.num_samples)",
        "num_samples=len(call.probe))",
        ("tests/lower/test_padding.py::test_sizes_that_are_returned_are_those_of_the_samples",),
    ),
    Mutant(
        "an error at the first call leaves what it captured",
        "dpgraph/lower/calls.py",
        "            self.change.redo(self._model, self.mechanism.trained)\n",
        "",
        ("tests/lower/test_reversible.py::test_an_error_at_the_first_call_is_not_the_last_word",),
    ),
    Mutant(
        "what is written lies in memory that is read",
        "dpgraph/lower/compiler.py",
        "            check_written(forward, inputs)\n",
        "",
        ("tests/lower/test_written.py::test_memory_that_is_shared_from_a_later_call_on",),
    ),
    Mutant(
        "a trained parameter is gone",
        "dpgraph/lower/parameters.py",
        "if gone := self.trained.difference(trained, frozen):",
        "if gone := set():",
        ("tests/lower/test_written.py::test_a_trained_parameter_that_is_gone",),
    ),
    Mutant(
        "what comes from outside is kept",
        "dpgraph/capture/writes.py",
        "id(leaf) not in tensors.constants:",
        "False:",
        ("tests/capture/test_writes.py::test_what_depends_on_samples_is_not_kept",),
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
