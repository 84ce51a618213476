"""The table of mutants: every guard on which privacy rests, and what to put in its place to break it."""

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]

GUARDS = "tests/test_guards.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break one guard.

    Attributes:
        name: what is broken, a few words.
        file: the file, relative to the root.
        source: text that occurs exactly once in it.
        replacement: the text to put in its place.
        tests: pytest node ids, of which at least one must fail.
    """

    name: str
    file: str
    source: str
    replacement: str
    tests: tuple[str, ...]


def guard(name: str, file: str, source: str, replacement: str, *tests: str) -> Mutant:
    """A mutant that tests of `tests/test_guards.py` must kill."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, tuple(f"{GUARDS}::test_{test}" for test in tests))


NONFINITE = "a_sample_that_is_not_finite_adds_nothing"

MUTANTS = (
    guard(
        "a norm that is not finite keeps its factor",
        "passes/insert_clip_factors.py",
        "torch.where(torch.isfinite(norms), factors, 0)",
        "factors",
        NONFINITE,
    ),
    guard(
        "0 * inf of a masked sample",
        "gradients/forms.py",
        "return torch.where(w.reshape(-1, *[1] * (x.ndim - 1)) != 0, x, 0)",
        "return x",
        NONFINITE,
    ),
    guard(
        "the left factor of a product is not masked",
        "gradients/outer.py",
        "u, v = mask_samples(self.u, w), mask_samples(self.v, w)",
        "u, v = self.u, mask_samples(self.v, w)",
        NONFINITE,
    ),
    guard(
        "the right factor of a product is not masked",
        "gradients/outer.py",
        "u, v = mask_samples(self.u, w), mask_samples(self.v, w)",
        "u, v = mask_samples(self.u, w), self.v",
        NONFINITE,
    ),
    guard(
        "rows of a table are not masked",
        "gradients/rows.py",
        "v = mask_samples(self.v, w) *",
        "v = self.v *",
        NONFINITE,
    ),
    guard(
        "materialised gradients are not masked",
        "gradients/dense.py",
        "g = mask_samples(self.g, w)",
        "g = self.g",
        NONFINITE,
    ),
    guard(
        "no terms between positions in the ghost norm",
        "gradients/gram.py",
        "return ((u.to(dtype) @ p.mT.to(dtype)) * (v.to(dtype) @ q.mT.to(dtype))).sum((1, 2))",
        "return ((u.to(dtype) @ p.mT.to(dtype)) * (v.to(dtype) @ q.mT.to(dtype))).diagonal(dim1=1, dim2=2).sum(1)",
        "ghost_norm_has_the_terms_between_positions",
    ),
    guard(
        "pairs across the halves of a sequence counted once",
        "gradients/gram.py",
        "return 2 * across + within.sum(1)",
        "return across + within.sum(1)",
        "ghost_norm_of_a_long_sequence_counts_pairs_twice",
    ),
    guard(
        "the last position of an odd sequence",
        "gradients/gram.py",
        " + 2 * across + gram_dot(last_u, last_u, last_v, last_v)",
        " + 2 * across",
        "ghost_norm_of_a_long_sequence_counts_pairs_twice",
    ),
    guard(
        "no cross term of tied uses",
        "gradients/forms.py",
        "total = total + 2 * earlier.dot(form)",
        "pass",
        "uses_of_a_tied_parameter_meet_in_the_norm",
    ),
    guard(
        "cross term of tied uses counted once",
        "gradients/forms.py",
        "total = total + 2 * earlier.dot(form)",
        "total = total + earlier.dot(form)",
        "uses_of_a_tied_parameter_meet_in_the_norm",
    ),
    guard(
        "rows of different tokens meet",
        "gradients/rows.py",
        "return torch.where(same, gram, 0).sum((1, 2))",
        "return gram.sum((1, 2))",
        "rows_of_different_tokens_do_not_meet_in_the_norm",
    ),
    guard(
        "norms in the dtype of the model",
        "gradients/forms.py",
        "return torch.promote_types(dtype, torch.float32)",
        "return dtype",
        "norms_are_added_up_in_float32",
    ),
    guard(
        "the row of padding is trained",
        "gradients/rules/embedding.py",
        "if padding >= 0:",
        "if padding >= 9:",
        "the_row_of_padding_gets_nothing",
    ),
    guard(
        "every group has the norm of all",
        "passes/insert_norms.py",
        " if column == k)",
        ")",
        "groups_have_norms_of_their_own",
    ),
    guard(
        "every group has the weights of the first",
        "passes/insert_weighted_sums.py",
        "w[:, group]",
        "w[:, 0]",
        "groups_have_norms_of_their_own",
    ),
    guard(
        "no loss scale in the norms",
        "passes/insert_norms.py",
        ".sqrt() * probe.to(dtype)",
        ".sqrt()",
        "a_mean_over_the_batch_is_undone_before_clipping",
    ),
    guard(
        "no loss scale in the weights",
        "passes/insert_clip_factors.py",
        " * probe.to(norms.dtype)",
        "",
        "a_mean_over_the_batch_is_undone_before_clipping",
    ),
    guard(
        "a mean is not undone",
        "lower/module.py",
        'float(call.num_samples) if self._mechanism.loss_reduction == "mean" else 1.0',
        "1.0",
        "a_mean_over_the_batch_is_undone_before_clipping",
    ),
    guard(
        "rows of padding count",
        "lower/module.py",
        "probe = torch.zeros(",
        "probe = torch.ones(",
        "rows_that_fill_up_a_small_batch_do_not_count_where_the_model_sums",
    ),
    guard(
        "each of K groups gets all of R",
        "mechanism.py",
        "return self.max_grad_norm / math.sqrt(self.num_groups)",
        "return self.max_grad_norm",
        "groups_share_the_bound",
    ),
    guard(
        "the sensitivity of one group",
        "mechanism.py",
        "return math.sqrt(self.num_groups) * self",
        "return self",
        "groups_share_the_bound",
    ),
    guard(
        "a threshold that is not finite",
        "mechanism.py",
        "math.isfinite(max_grad_norm) and max_grad_norm > 0",
        "max_grad_norm > 0",
        "a_threshold_that_bounds_nothing_is_refused",
    ),
    guard(
        "a threshold of zero",
        "mechanism.py",
        "math.isfinite(max_grad_norm) and max_grad_norm > 0",
        "math.isfinite(max_grad_norm) and max_grad_norm >= 0",
        "a_threshold_that_bounds_nothing_is_refused",
    ),
    guard(
        "auto-v at norm 0",
        "clipping.py",
        "torch.where(norm > threshold, max_norm / norm.clamp_min(info.tiny), 0)",
        "max_norm / norm.clamp_min(info.tiny)",
        "clipping_functions_keep_their_bound_from_nothing_to_the_largest_norm",
    ),
    guard(
        "rounding noise blown up by auto-v",
        "clipping.py",
        "threshold = (self.noise * info.eps * largest).clamp_min(threshold)",
        "pass",
        "auto_v_does_not_blow_up_rounding_noise",
    ),
    guard(
        "auto-s without its stability constant",
        "clipping.py",
        "max_norm / (norm + self.stability)",
        "max_norm / norm",
        "clipping_functions_keep_their_bound_from_nothing_to_the_largest_norm",
    ),
    guard(
        "abadi lets small gradients grow",
        "clipping.py",
        ".clamp_max(1)",
        "",
        "clipping_functions_keep_their_bound_from_nothing_to_the_largest_norm",
    ),
    guard(
        "a sample is counted once for each group",
        "lower/module.py",
        "finite.all(1)",
        "finite",
        "a_sample_that_is_not_finite_in_one_group_is_counted_once",
    ),
    guard(
        "gradients of untrained parameters stay",
        "passes/prune.py",
        "if name not in kept",
        "if name in ()",
        "only_what_is_trained_is_computed",
    ),
    guard(
        "parameters in one storage",
        "mechanism.py",
        "if other != name and chosen & {name, other}:",
        "if False:",
        "parameters_that_share_storage_are_refused",
    ),
    guard(
        "a pattern that matches nothing",
        "mechanism.py",
        "if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in every):",
        "if False:",
        "a_pattern_that_matches_nothing_is_refused",
    ),
    guard(
        "a mode that trains nothing",
        "mechanism.py",
        "if not trained:",
        "if False:",
        "a_mode_that_trains_nothing_is_refused",
    ),
    guard(
        "a parameter in two groups",
        "mechanism.py",
        "if len(matches) != 1:",
        "if len(matches) < 1:",
        "a_parameter_belongs_to_exactly_one_group",
    ),
    guard(
        "a parameter unfrozen later",
        "lower/module.py",
        "if parameter.requires_grad and name not in trained:",
        "if False:",
        "a_parameter_that_is_unfrozen_later_is_refused",
    ),
    guard(
        "a refused model stays changed",
        "lower/module.py",
        "self._change.undo()",
        "pass",
        "a_refused_model_is_as_it_was",
    ),
    guard(
        "added biases stay",
        "lower/reversible.py",
        'module.register_parameter("bias", None)',
        "pass",
        "a_refused_model_is_as_it_was",
    ),
    guard(
        "inputs of different numbers of samples",
        "capture/batch.py",
        "if len(set(sizes.values())) != 1:",
        "if not sizes:",
        "inputs_agree_on_the_number_of_samples",
    ),
    guard(
        "errors of the tracer come through",
        "lower/capture_errors.py",
        'if type(error).__module__.startswith("torch._dynamo"):',
        "if False:",
        "a_graph_break_is_named",
    ),
    guard(
        "buffers remember samples",
        "provenance/check.py",
        "_check_buffer(node, provenance)",
        "pass",
        "a_buffer_does_not_remember_samples",
    ),
    guard(
        "a gradient scaled by the number of samples",
        "provenance/check.py",
        "if isinstance(found, SummedOverSamples) and found.power != expected_power:",
        "if False:",
        "the_number_of_samples_is_not_data",
    ),
    guard(
        "the number of samples as a value",
        "provenance/scale.py",
        'return mixes(step.node, "uses the number of samples in the batch as a value")',
        "return 0, None",
        "the_number_of_samples_is_not_added",
    ),
    guard(
        "the number of samples as an index",
        "provenance/infer.py",
        'mixes(node, "takes the number of samples for an index or a setting")',
        "found",
        "the_number_of_samples_is_no_index",
    ),
    guard(
        "the number of samples as an axis",
        "provenance/infer.py",
        'return step.mixed("gives a value as many places as there are samples")',
        "return found",
        "the_number_of_samples_is_no_axis",
    ),
    guard(
        "a branch on the number of samples",
        "capture/batch_size.py",
        "if batch in condition.free_symbols and not _holds_for_all(condition, batch):",
        "if False:",
        "the_program_does_not_branch_on_the_number_of_samples",
    ),
    guard(
        "every guard is a choice of kernels",
        "torch_compat.py",
        "return any(path.endswith(file) and function in names for file, names in KERNEL_CHOICES.items())",
        "return True",
        "the_program_does_not_branch_on_the_number_of_samples",
    ),
    guard(
        "the line that fixes the number of samples",
        "capture/batch_size.py",
        "    if node is not None:\n        return batch_size_fixed(find_place(node))\n",
        "    return batch_size_fixed(Place())\n",
        "the_number_of_samples_is_not_fixed",
    ),
    guard(
        "a mean that is taken for a sum",
        "provenance/scale.py",
        "own = -1 if step.node.target in MEANS and _sums_samples(step, result) else 0",
        "own = 0",
        "a_mean_over_a_batch_of_one_is_that_of_its_sample",
    ),
    guard(
        "a padded batch",
        "provenance/rules/views.py",
        'return found if _axis(found) not in padded else step.mixed("pads the batch, which shifts the samples")',
        "return found",
        "the_batch_is_not_padded",
    ),
    guard(
        "rows that several samples share",
        "provenance/rules/indexing.py",
        "        sums = accumulates and is_zero(operand)\n",
        "        return Shared()\n",
        "samples_are_not_written_to_rows_that_they_share",
    ),
    guard(
        "a kernel that depends on the samples",
        "provenance/rules/batched.py",
        "if not isinstance(step.of(weight), Shared) or not isinstance(step.of(step.args[2]), Shared):",
        "if False:",
        "a_kernel_that_depends_on_the_samples_is_refused",
    ),
    guard(
        "pooling of an image without a batch",
        "provenance/rules/batched.py",
        "num_leading = len(step.shape(step.args[0])) - _num_axes_of_space(step)",
        "num_leading = 2",
        "pooling_of_one_image_does_not_run_along_the_batch",
    ),
    guard(
        "a loss that is not one number a sample",
        "lower/module.py",
        "if isinstance(losses, Tensor) and losses.shape == (call.num_rows,):",
        "if True:",
        "a_loss_is_one_number_for_each_sample",
    ),
    guard(
        "an unknown op",
        "provenance/infer.py",
        'return Refused(node, "unknown", "has no transfer rule in dpgraph")',
        "return _for_each_result(node, found[0])",
        "an_op_that_nobody_knows_is_refused",
    ),
    guard(
        "the largest of the batch",
        "provenance/rules/reductions.py",
        'return step.mixed("reduces over the samples")',
        "return Shared()",
        "the_largest_of_the_batch_is_refused",
        "softmax_over_the_batch_is_refused",
    ),
    guard(
        "a scan along the batch",
        "provenance/rules/reductions.py",
        "found.axis != dim % max(rank, 1)",
        "True",
        "a_running_sum_over_the_batch_is_refused",
    ),
    guard(
        "a flip of the batch",
        "provenance/rules/views.py",
        'return step.mixed("reverses the order of the samples")',
        "return found",
        "the_order_of_the_batch_is_kept",
    ),
    guard(
        "a part of the batch",
        "provenance/rules/views.py",
        'return step.mixed("takes only some of the samples, which shifts them against each other")',
        "return found",
        "one_sample_is_not_shown_to_all",
    ),
    guard(
        "operands that hold their samples on different axes",
        "provenance/registry.py",
        "met = here if found is None else meet(found, here)",
        "met = here",
        "values_of_different_samples_are_not_paired_in_a_merged_axis",
    ),
    guard(
        "a product of all samples with all",
        "provenance/rules/contractions.py",
        "if len(roles) != 1:",
        "if len(roles) < 1:",
        "samples_are_not_multiplied_with_one_another",
    ),
    guard(
        "attention along the batch",
        "provenance/rules/batched.py",
        "found.axis >= num_leading",
        "False",
        "attention_does_not_run_along_the_batch",
    ),
    guard(
        "a sum over the samples used again",
        "provenance/rules/pointwise.py",
        'return step.mixed("uses the sum of several samples in a way that is not linear")',
        "return first",
        "a_sum_over_the_batch_does_not_come_back",
    ),
    guard(
        "the position of a sample as data",
        "provenance/rules/pointwise.py",
        'return step.mixed("computes with the position of a sample in the batch")',
        "return PerSample(0)",
        "the_position_in_the_batch_is_not_data",
    ),
    guard(
        "the position of a sample as an index",
        "provenance/rules/indexing.py",
        "if dim != own or not isinstance(found, PerSample) or (found.outer, found.inner) != (1, 1):",
        "if False:",
        "the_position_in_the_batch_is_no_index_of_a_table",
    ),
    guard(
        "samples picked by an index",
        "provenance/rules/indexing.py",
        'elif dim == own:\n            return step.mixed("picks samples out of the batch")',
        "elif dim == own:\n            continue",
        "samples_are_not_picked_out_of_the_batch",
    ),
    guard(
        "gather along the batch",
        "provenance/rules/indexing.py",
        "if isinstance(found, PerSample) and found.axis == dim % len(step.shape(operand)):",
        "if False:",
        "gather_does_not_run_along_the_batch",
    ),
    guard(
        "a gradient scaled by counts over the batch",
        "provenance/rules/indexing.py",
        "if step.args[4] and not",
        "if False and not",
        "counts_over_the_batch_do_not_scale_a_gradient",
    ),
)
