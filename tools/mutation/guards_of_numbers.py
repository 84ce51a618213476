"""Guards of numbers that come from data, and of clipping functions."""

from tools.mutation.guard import Mutant

__all__ = ["MUTANTS"]

KERNELS = "tests/capture/test_kernel_choice.py::test_the_models_own_condition_is_refused"
NUMBERS, CLIPPING = "tests/provenance/test_numbers.py", "tests/test_clipping_contract.py"
REFUSED = f"{NUMBERS}::test_numbers_that_samples_decide_are_refused"

MUTANTS = (
    Mutant(
        "a number made of refused numbers",
        "dpgraph/provenance/numbers.py",
        "return earliest(refused) if refused else Shared()\n\n\ndef with_sizes",
        "return Shared()\n\n\ndef with_sizes",
        (REFUSED,),
    ),
    Mutant(
        "a size that samples decide",
        "dpgraph/provenance/numbers.py",
        "return earliest(refused) if refused else step.mixed(COUNTS)",
        "return Shared()",
        (REFUSED,),
    ),
    Mutant(
        "a size of a cut along the batch",
        "dpgraph/provenance/numbers.py",
        "return None if any(step.batch in n.free_symbols for n in lengths) else numbers",
        "return numbers",
        (f"{NUMBERS}::test_the_number_of_samples_is_no_public_number",),
    ),
    Mutant(
        "a count that is read as a number",
        "dpgraph/provenance/numbers.py",
        "        return mixes(found.origin, COUNTS)\n",
        "        return found\n",
        (f"{NUMBERS}::test_a_count_in_a_shape_alone_may_be_sound_and_as_a_number_mixes",),
    ),
    Mutant(
        "what torch asks to choose a kernel answers for the model",
        "dpgraph/torch_compat/capture_env.py",
        "            self.var_to_range.update(ranges)\n",
        "",
        (KERNELS,),
    ),
    Mutant(
        "a float64 number is one that Python reads",
        "dpgraph/torch_compat/capture_env.py",
        "isinstance(source, CallMethodItemSource)",
        "False",
        ("tests/capture/test_numbers_in_tensors.py::test_numbers_that_are_written",),
    ),
    Mutant(
        "what was asked to choose a kernel is not asked again",
        "dpgraph/torch_compat/capture_env.py",
        "            self._forget_answers()\n",
        "",
        (KERNELS,),
    ),
    Mutant(
        "values that creations read",
        "dpgraph/provenance/rules/creations.py",
        "if i not in of_shapes",
        "if not of_shapes",
        (REFUSED,),
    ),
    Mutant(
        "rows of a clipping function",
        "dpgraph/passes/insert_clip_factors.py",
        "    _check_rows(clipping, factor, joint.batch_symbol)\n",
        "",
        (f"{CLIPPING}::test_rows_are_kept_apart_by_proof",),
    ),
    Mutant(
        "the contract of a clipping function",
        "dpgraph/clipping_contract.py",
        "            _check_values(clipping, norms, factors, bound)\n",
        "",
        (f"{CLIPPING}::test_a_contract_that_is_broken",),
    ),
    Mutant(
        "a clipping function with a state",
        "dpgraph/clipping_contract.py",
        "            _check_repeats(clipping, norms, factors, max_norm)\n",
        "",
        (f"{CLIPPING}::test_a_state_is_noticed",),
    ),
    Mutant(
        "a matrix that is not finite",
        "dpgraph/passes/guard_matrices.py",
        "    node.replace_input_with(matrices, safe)\n",
        "",
        ("tests/passes/test_guard_matrices.py::test_a_sample_stops_nobody_else",),
    ),
)
