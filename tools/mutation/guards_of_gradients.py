"""Guards of the gradients: norms, clip factors and weighted sums, and samples that are not finite."""

from tools.mutation.guard import Mutant, guard

__all__ = ["MUTANTS"]

NONFINITE = "a_sample_that_is_not_finite_adds_nothing"
SEVERAL_GROUPS = ("tests/passes/test_insert_clip_factors.py::test_what_a_clipping_function_does_with_several_groups",)


def native(name: str, source: str, replacement: str, test: str) -> Mutant:
    """A mutant of the kernel for CPUs."""
    tests = (f"tests/gradients/test_native.py::test_{test}",)
    return Mutant(name, "dpgraph/kernels/ghost_norm.cpp", source, replacement, tests)


def by(name: str, file: str, source: str, replacement: str, test: str) -> Mutant:
    """A mutant that a test elsewhere kills."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, (f"tests/{test}",))


MUTANTS = (
    guard(
        "a norm that is not finite keeps its factor",
        "passes/insert_clip_factors.py",
        "torch.where(usable, found, 0)",
        "found",
        NONFINITE,
    ),
    guard(
        "0 * inf of a masked sample",
        "gradients/forms.py",
        "return torch.where(w != 0, x, 0)",
        "return x",
        NONFINITE,
    ),
    guard(
        "the left factor of a product is not masked",
        "gradients/outer.py",
        "mask_samples(accumulated(self.u), w), mask",
        "accumulated(self.u), mask",
        NONFINITE,
    ),
    guard(
        "the right factor of a product is not masked",
        "gradients/outer.py",
        ", mask_samples(accumulated(self.v), w)",
        ", accumulated(self.v)",
        NONFINITE,
    ),
    guard(
        "rows of a table are not masked",
        "gradients/rows.py",
        "weigh_samples(self.v, w)",
        "(self.v * w.to(self.v.dtype).reshape(-1, 1, 1))",
        NONFINITE,
    ),
    guard(
        "materialised gradients are not masked",
        "gradients/dense.py",
        "summed(weigh_samples(self.g, w))",
        "summed(self.g * w.to(self.g.dtype).reshape(-1, *[1] * (self.g.ndim - 1)))",
        NONFINITE,
    ),
    guard(
        "no terms between positions in the ghost norm",
        "gradients/gram.py",
        "return (gram(u, p) * gram(v, q)).sum((1, 2))",
        "return (gram(u, p) * gram(v, q)).diagonal(dim1=1, dim2=2).sum(1)",
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
    native(
        "pairs above the diagonal counted once", "value[0] + 2 * value[1]", "value[0] + value[1]", "it_is_the_plain_sum"
    ),
    native(
        "no bound of its own",
        "magnitude(of_u) * around_v + around_u * (magnitude(of_v) + around_v)",
        "0 * around_u",
        "it_bounds_what_cancels",
    ),
    native("features that fill no vector", "if (k < depth) add(", "if (false) add(", "it_is_the_plain_sum"),
    native("positions beyond the end", "position + r < length ?", "true ?", "it_reads_nothing_around_its_operands"),
    native(
        "features beyond those read first",
        "k < x.features; k += kDepth",
        "k < std::min(kDepth, x.features); k += kDepth",
        "it_is_the_plain_sum",
    ),
    guard(
        "no cross term of tied uses",
        "gradients/forms.py",
        ", *(g.dot(h, of_g * of_h).times(2) for (g, of_g), (h, of_h) in pairs)]",
        "]",
        "uses_of_a_tied_parameter_meet_in_the_norm",
    ),
    guard(
        "cross term of tied uses counted once",
        "gradients/forms.py",
        "g.dot(h, of_g * of_h).times(2)",
        "g.dot(h, of_g * of_h)",
        "uses_of_a_tied_parameter_meet_in_the_norm",
    ),
    guard(
        "rows of different tokens meet",
        "gradients/rows.py",
        "return torch.where(same, gram(self.v, other.v), 0).sum((1, 2))",
        "return gram(self.v, other.v).sum((1, 2))",
        "rows_of_different_tokens_do_not_meet_in_the_norm",
    ),
    guard(
        "norms in the dtype of the model",
        "gradients/dense.py",
        "g = self.g.double()",
        "g = self.g",
        "norms_are_added_up_in_float64",
    ),
    by(
        "an error that is no small share of the square is let pass",
        "gradients/certified.py",
        "torch.where(error <= 2 * SHARE * square, square, square + error)",
        "square.clamp_min(0)",
        "arithmetic/test_holes.py::test_cancellation",
    ),
    by(
        "what rounding takes from terms that cancel",
        "gradients/forms.py",
        "first = replace(squares[0], lost=sum(lost[1:], start=lost[0]))",
        "first = squares[0]",
        "arithmetic/test_sums.py::test_terms_of_a_sample_that_cancel",
    ),
    by(
        "thin products are added up position by position",
        "gradients/outer.py",
        "x.flatten(0, 1).double() if self._is_thin else x.flatten(0, 1)",
        "x.flatten(0, 1)",
        "arithmetic/test_sums.py::test_one_sample_decides_how_the_others_are_rounded",
    ),
    by(
        "uses of a row are added up one by one",
        "gradients/rows.py",
        "dtype=torch.float64).index_put((of_row[index],), v.double()",
        "dtype=v.dtype).index_put((of_row[index],), v",
        "arithmetic/test_sums.py::test_one_sample_decides_how_the_others_are_rounded",
    ),
    by(
        "an autocast reaches the backward",
        "torch_compat/lowering.py",
        "            with without_autocast():\n                return around",
        "            if True:\n                return around",
        "arithmetic/test_sums.py::test_autocast_around_the_backward_alone",
    ),
    by(
        "a factor that is no ordinary number",
        "passes/insert_clip_factors.py",
        " & _is_usable(factors, table.dtype) & _is_usable(found, weighed)",
        "",
        "arithmetic/test_holes.py::test_factors_that_underflow",
    ),
    by(
        "factors in half precision",
        "gradients/forms.py",
        "x.to(torch.promote_types(x.dtype, torch.float32))",
        "x",
        "arithmetic/test_holes.py::test_weights_do_not_go_through_half_precision",
    ),
    by(
        "sums in half precision",
        "passes/insert_weighted_sums.py",
        ".to(torch.promote_types(like.dtype, torch.float32))",
        ".to(like.dtype)",
        "arithmetic/test_holes.py::test_sums_do_not_go_through_half_precision",
    ),
    by(
        "gradients pass autograd, which rounds them",
        "unrounded.py",
        "    if apart:\n        AROUND[outputs[probe]] = apart\n    return [None if i in apart else x",
        "    return [x",
        "arithmetic/test_holes.py::test_sums_do_not_go_through_half_precision",
    ),
    by(
        "more is added up than is covered",
        "privacy/stepping.py",
        "            _check_sums(name, p)",
        "            pass",
        "privacy/test_stepping.py::test_more_is_added_up_than_the_sensitivity_covers",
    ),
    guard(
        "the row of padding is trained",
        "gradients/rules/embedding.py",
        "if padding >= 0:",
        "if padding >= 9:",
        "the_row_of_padding_gets_nothing",
    ),
    guard(
        "the first group has the norm of all",
        "passes/insert_norms.py",
        "group = group_of[parameter]",
        "group = 0",
        "groups_have_norms_of_their_own",
    ),
    guard(
        "every group has the weights of the first",
        "passes/insert_weighted_sums.py",
        "weights[group_of[parameter]]",
        "weights[0]",
        "groups_have_norms_of_their_own",
    ),
    Mutant(
        "a clipping function sees each group alone",
        "dpgraph/passes/insert_clip_factors.py",
        "[[k] for k in columns] if _is_elementwise(factor.graph) else [columns]",
        "[[k] for k in columns]",
        SEVERAL_GROUPS,
    ),
    Mutant(
        "any constant of a clipping function is taken for a number",
        "dpgraph/passes/insert_clip_factors.py",
        """not node.all_input_nodes and node.meta["val"].ndim == 0""",
        "not node.all_input_nodes",
        SEVERAL_GROUPS,
    ),
    guard(
        "no loss scale in the norms",
        "passes/insert_norms.py",
        ".to(dtype) * scale",
        ".to(dtype)",
        "a_mean_over_the_batch_is_undone_before_clipping",
    ),
    guard(
        "no loss scale in the weights",
        "passes/insert_clip_factors.py",
        "found = factors * scale",
        "found = factors * 1",
        "a_mean_over_the_batch_is_undone_before_clipping",
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
        "torch.maximum(self.noise * info.eps * largest, (info.tiny * max_norm).clamp_min(info.tiny))",
        "(info.tiny * max_norm).clamp_min(info.tiny)",
        "auto_v_does_not_blow_up_rounding_noise",
    ),
    guard(
        "auto-s without its stability constant",
        "clipping.py",
        "max_norm / (norm + self.gamma)",
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
        "gradients of untrained parameters stay",
        "passes/prune.py",
        "if name not in kept",
        "if name in ()",
        "only_what_is_trained_is_computed",
    ),
    by(
        "a write in place passes",
        "capture/in_place.py",
        "if writes_in_place(node):",
        "if False:",
        "capture/test_in_place.py::test_a_write_in_place_is_refused",
    ),
    by(
        "an expanded tensor is written in place",
        "passes/copy_bases_of_writes.py",
        "if _packet(base) not in NEW:",
        "if False:",
        "passes/test_copy_bases_of_writes.py::test_what_is_written_into_is_new",
    ),
    by(
        "a backward reads a buffer after its write",
        "passes/copy_written_inputs.py",
        "for name in joint.written:",
        "for name in ():",
        "test_written_buffers.py::test_public_values_are_exact",
    ),
    by(
        "what is drawn is drawn again",
        "torch_compat/drawn_once.py",
        "if draws_numbers(node) and not must_recompute(node):",
        "if False:",
        "lower/test_random_values.py::test_the_gradient_is_that_of_the_outputs",
    ),
    by(
        "a view seems to lie in the memory of a copy that is gone",
        "torch_compat/lowering.py",
        "        restore_aliases(graph)\n",
        "",
        "lower/test_kept_outputs.py::test_outputs_outlive_the_backward",
    ),
    by(
        "a budget of nothing saves nothing that is drawn",
        "torch_compat/drawn_once.py",
        "LEAST_BUDGET = 1e-9",
        "LEAST_BUDGET = 0.0",
        "lower/test_random_values.py::test_the_gradient_is_that_of_the_outputs",
    ),
    by(
        "a write into a buffer stays in the graph",
        "torch_compat/compile_fx.py",
        "keep_inference_input_mutations=False",
        "keep_inference_input_mutations=True",
        "test_written_buffers.py::test_public_values_are_exact_through_inductor",
    ),
    by(
        "an order of factors is chosen by their sizes",
        "torch_compat/tracing.py",
        "if torch.backends.opt_einsum.enabled:",
        "if False:",
        "capture/test_einsum.py::test_products_of_several_factors_are_exact",
    ),
)
