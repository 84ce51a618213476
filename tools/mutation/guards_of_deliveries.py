"""Guards of what reaches `p.grad`: that it came from a private graph, once, and that a step takes nothing else."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

STEPS = "tests/privacy/test_stepping.py::test_"
DETOURS = "tests/lower/test_detours.py::test_"
DELIVERIES = "tests/lower/test_delivery.py::test_"


def at_step(name: str, file: str, source: str, replacement: str, test: str) -> Mutant:
    """A mutant that a test of the optimizer's step kills."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, (STEPS + test,))


def at_call(name: str, file: str, source: str, replacement: str, test: str) -> Mutant:
    """A mutant that a test of the module's call kills."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, (DETOURS + test,))


def at_backward(name: str, file: str, source: str, replacement: str) -> Mutant:
    """A mutant that a case of the backward kills."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, (DELIVERIES + "op_by_op",))


MUTANTS = (
    at_backward("a call delivers twice", "lower/delivery.py", "if self.is_done:", "if False:"),
    at_backward(
        "nobody watches parameters", "lower/guard.py", "if gradient is None or parameter is None or", "if True or"
    ),
    at_backward(
        "a failed backward leaves gradients",
        "deliveries.py",
        "            if record.was_empty:\n",
        "            if False:\n",
    ),
    at_backward(
        "ours are added to a foreign gradient",
        "lower/delivery.py",
        "case Origin.REWRITTEN | Origin.FOREIGN:",
        "case Origin.REWRITTEN:",
    ),
    at_backward(
        "a hook on a trained parameter",
        "lower/guard.py",
        "if tensor_hooks or parameter._post_accumulate_grad_hooks:",
        "if False:",
    ),
    at_call(
        "a call that ran no graph of ours",
        "lower/calls.py",
        "        if not self.compiler.has_run:\n            raise went_around()\n",
        "",
        "falling_back_to_eager_is_refused",
    ),
    at_call(
        "parameters that are tied later",
        "lower/parameters.py",
        "                self._check_tie(first, name)\n",
        "",
        "parameters_that_become_one_are_refused",
    ),
    at_call(
        "parameters that share memory later",
        "lower/parameters.py",
        "    if other != name:\n        raise _tied(other, name)\n",
        "",
        "parameters_that_become_one_are_refused",
    ),
    at_call(
        "parameters that are frozen later",
        "lower/parameters.py",
        "if frozen and trained:",
        "if False:",
        "a_parameter_that_was_frozen_later_is_refused",
    ),
    at_step(
        "a step with a foreign gradient",
        "privacy/stepping.py",
        "(where is Origin.FOREIGN and only_delivered)",
        "False",
        "the_model_itself_is_not_stepped_with",
    ),
    at_step(
        "a failed backward is stepped with",
        "deliveries.py",
        "            record.forget()\n",
        "",
        "a_backward_that_failed_is_not_stepped_with",
    ),
    at_step(
        "what is added when nobody watches",
        "deliveries.py",
        "known = self._unwatched_version in (None, _version(gradient))",
        "known = True",
        "what_is_added_when_nobody_watches_is_not_taken_for_ours",
    ),
    at_step(
        "a step without noise after one that failed",
        "privacy/noise.py",
        "if self._depth > 0 and repeats(parameters):",
        "if self._depth > 0:",
        "after_a_step_that_failed_new_gradients_get_new_noise",
    ),
)
