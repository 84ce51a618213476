"""Guards of the comparison of compiled graphs with their operators."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

MUTANTS = (
    Mutant(
        "no graph is compared",
        "dpgraph/lower/compiler.py",
        "            check(inputs)\n",
        "",
        ("tests/validate/test_planted.py::test_the_module_hands_nothing_out",),
    ),
    Mutant(
        "a graph that was refused runs at the next call",
        "dpgraph/validate/check.py",
        "if self._refusal is not None:",
        "if False:",
        ("tests/validate/test_planted.py::test_a_graph_that_was_refused_is_not_tried_again",),
    ),
    Mutant(
        "what the backward writes is not seen",
        "dpgraph/validate/as_compiled.py",
        "after_backward={i: given[i].detach() for i in own}",
        "after_backward=after_forward",
        ("tests/validate/test_planted.py::test_a_buffer_that_the_backward_writes",),
    ),
    Mutant(
        "parameters that are written are not seen",
        "dpgraph/validate/as_compiled.py",
        "if checksum != before[i]",
        "if False",
        ("tests/validate/test_planted.py::test_a_parameter_that_is_written",),
    ),
    Mutant(
        "what differs is always rounding",
        "dpgraph/validate/compare.py",
        "return self._difference.absolute <= self._difference.allowed + FREEDOM * self._distance",
        "return True",
        ("tests/validate/test_no_alarm.py::test_what_moves_by_itself_is_rounding_and_nothing_else",),
    ),
    Mutant(
        "inputs alone are rounded differently",
        "dpgraph/validate/op_by_op.py",
        'if self.noise is not None and n.op == "call_function":',
        'if self.noise is not None and self.noise._eps == 0 and n.op == "call_function":',
        ("tests/validate/test_kinks.py::test_a_relu_of_nearly_zero_is_no_alarm",),
    ),
    Mutant(
        "one other way of rounding is tried",
        "dpgraph/validate/comparison.py",
        "NUM_ROUNDINGS = 24\n",
        "NUM_ROUNDINGS = 1\n",
        ("tests/validate/test_kinks.py::test_a_relu_of_nearly_zero_is_no_alarm",),
    ),
    Mutant(
        "what is not finite may be so anywhere",
        "dpgraph/validate/compare.py",
        "return not (self.same_places and self.absolute <= self.allowed)",
        "return not self.absolute <= self.allowed",
        ("tests/validate/test_no_alarm.py::test_what_is_not_finite_must_be_so_in_the_same_places",),
    ),
    Mutant(
        "a batch without a finite gradient is enough",
        "dpgraph/validate/check.py",
        "return record, outcome.found_finite and bool(record.compared)",
        "return record, bool(record.compared)",
        ("tests/validate/test_no_alarm.py::test_batches_without_samples_or_without_a_finite_one_do_not_count",),
    ),
    Mutant(
        "a loop that does not clip",
        "dpgraph/gradient_audit.py",
        "return torch.where(finite, factors, 0), norms",
        "return torch.ones_like(norms), norms",
        ("tests/test_gradient_audit.py::test_exact_with_a_loss_inside_a_mean_and_groups",),
    ),
)
