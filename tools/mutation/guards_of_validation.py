"""Guards of the comparison of compiled graphs with their operators."""

from tools.mutation.guard import guard

__all__ = ["MUTANTS"]

MUTANTS = (
    guard(
        "no graph is compared",
        "lower/compiler.py",
        "            check(inputs)\n",
        "",
        "the_module_hands_nothing_out",
    ),
    guard(
        "a graph that was refused runs at the next call",
        "validate/check.py",
        "if self._refusal is not None:",
        "if False:",
        "the_module_hands_nothing_out",
    ),
    guard(
        "what the backward writes is not seen",
        "validate/as_compiled.py",
        "after_backward={i: given[i].detach() for i in own}",
        "after_backward=after_forward",
        "a_buffer_that_the_backward_writes",
    ),
    guard(
        "parameters that are written are not seen",
        "validate/as_compiled.py",
        "if checksum != before[i]",
        "if False",
        "a_parameter_that_is_written",
    ),
    guard(
        "what differs is always rounding",
        "validate/compare.py",
        "return difference.absolute <= difference.allowed + FREEDOM * distance",
        "return True",
        "what_moves_by_itself_is_rounding_and_nothing_else",
    ),
    guard(
        "what is not finite may be so anywhere",
        "validate/compare.py",
        "return not (self.same_places and self.absolute <= self.allowed)",
        "return not self.absolute <= self.allowed",
        "what_is_not_finite_must_be_so_in_the_same_places",
    ),
    guard(
        "a batch without a finite gradient is enough",
        "validate/check.py",
        "return record, outcome.found_finite and bool(record.compared)",
        "return record, bool(record.compared)",
        "batches_without_samples_or_without_a_finite_one_do_not_count",
    ),
    guard(
        "a loop that does not clip",
        "gradient_audit.py",
        "return torch.where(finite, factors, 0), norms",
        "return torch.ones_like(norms), norms",
        "exact_with_a_loss_inside_a_mean_and_groups",
    ),
)
