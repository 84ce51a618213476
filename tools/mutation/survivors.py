"""Mutants that no test need kill, and why: each is the same program, or differs in what nobody was promised.

A mutant is named by its file, its function, the text of its line and the change, as `python -m tools.mutate` prints
them. An entry that names no mutant any more is stale, and the run says so.
"""

from dataclasses import dataclass

__all__ = ["ACCEPTED", "Accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Mutants that survive for one reason."""

    reason: str
    mutants: tuple[tuple[str, str, str, str], ...]


ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "The result does not depend on the order of the two operands.",
        (
            (
                "dpgraph/gradients/forms.py",
                "accumulated",
                "return x.to(torch.promote_types(x.dtype, torch.float32))",
                "`x.dtype, torch.float32` → `torch.float32, x.dtype`",
            ),
            (
                "dpgraph/gradients/ghost_norm.py",
                "ghost_norm_sq",
                "return _from_products(gram_norm_sq(u, v), u, v)",
                "`u, v` → `v, u`",
            ),
            (
                "dpgraph/gradients/ghost_norm.py",
                "_blocked_norm_sq",
                "blocks = list(zip(u.split(BLOCK, 1), v.split(BLOCK, 1), strict=True))",
                "`u.split(BLOCK, 1), v.split(BLOCK, 1)` → `v.split(BLOCK, 1), u.split(BLOCK, 1)`",
            ),
        ),
    ),
    Accepted(
        "A choice of speed: both ways compute the same.",
        (
            (
                "dpgraph/gradients/gram.py",
                "gram_norm_sq",
                "if not isinstance(length, int) or length < 2 * SMALLEST_BLOCK:",
                "`2` → `3`",
            ),
            (
                "dpgraph/gradients/ghost_norm.py",
                "blocked_norm_sq",
                "at_once = math.ceil(BLOCK**2 / (1 + u.shape[1] ** 2))",
                "`1` → `2`",
            ),
            (
                "dpgraph/gradients/outer.py",
                "Outer.weighted_sum",
                "u, v = (u * scale, v) if u.shape[-1] < v.shape[-1] else (u, v * scale)",
                "`u.shape[-1] < v.shape[-1]` → `False`",
            ),
            (
                "dpgraph/gradients/outer.py",
                "Outer.weighted_sum",
                "u, v = (u * scale, v) if u.shape[-1] < v.shape[-1] else (u, v * scale)",
                "`<` → `<=`",
            ),
            (
                "dpgraph/sites/evaluate.py",
                "SiteFunction._run",
                "carries_on = any(isinstance(env.get(x), tuple) for x in node.all_input_nodes)",
                "`any` → `all`",
            ),
            ("dpgraph/sites/find.py", "_backward_slice", "continue", "`continue` → `pass`"),
        ),
    ),
    Accepted(
        "A write that does not accumulate is refused before a gradient rule sees it, so no call takes the default.",
        (
            (
                "dpgraph/gradients/rules/embedding.py",
                "index_put_of_shared",
                "zeros: Tensor, indices: Sequence[Any], gradient: Gradient, accumulate: bool = False",
                "`False` → `True`",
            ),
        ),
    ),
    Accepted(
        "Any other sample and any random values will do; the compiler sets the generator back.",
        (
            (
                "dpgraph/provenance/experiment.py",
                "_contradiction",
                "after, other = experiment.run(b), (b + 1) % NUM_SAMPLES",
                "`1` → `2`",
            ),
            (
                "dpgraph/provenance/experiment.py",
                "_same_random_numbers",
                "torch.manual_seed(0)",
                "`0` → `1`",
            ),
        ),
    ),
    Accepted(
        "It keeps a clear end for operands that no operator of the tested version of torch has: shapes of scalars.",
        (
            (
                "dpgraph/provenance/registry.py",
                "Step.shape",
                "return tuple(self.size(s) for s in value.shape) if isinstance(value, Tensor) else ()",
                "`isinstance(value, Tensor)` → `True`",
            ),
        ),
    ),
    Accepted(
        "Kernels of GPUs are not there where the tests run.",
        (("dpgraph/gradients/ghost_norm.py", "", "if HAS_KERNEL:", "`HAS_KERNEL` → `False`"),),
    ),
    Accepted(
        "The axis of the samples is none of size 1.",
        (
            (
                "dpgraph/provenance/rules/views.py",
                "squeeze",
                "return moved(step, found, axis_of(found) - sum(shape[d] == 1 and d < axis_of(found) for d in gone), "
                '"squeezes it")',
                "`<` → `<=`",
            ),
        ),
    ),
    Accepted(
        "A second guard: samples on the axis of channels make the kernel one of theirs, which is refused first.",
        (
            (
                "dpgraph/provenance/rules/convolutions.py",
                "_images_apart",
                "if isinstance(found, PerSample) and found.axis >= 1:",
                "`1` → `2`",
            ),
        ),
    ),
    Accepted(
        "What the other branch says is a refusal too, in other words.",
        (
            (
                "dpgraph/provenance/rules/parts.py",
                "scatter_part",
                "if isinstance(piece, SummedOverSamples) and isinstance(found, Shared):",
                "`and` → `or`",
            ),
        ),
    ),
    Accepted(
        "The powers of B of a site cancel, so any number of samples may stand for one.",
        (
            (
                "dpgraph/sites/evaluate.py",
                "SiteFunction._for_one_sample",
                "alone = size.subs(batch, 1)",
                "`1` → `2`",
            ),
        ),
    ),
    Accepted(
        "The rules of sizes are solved again, to the same; it takes longer.",
        tuple(
            ("dpgraph/capture/sizes.py", "_rules_of", "if known is None or known[0] != state:", change)
            for change in ("`known is None or known[0] != state` → `True`", "`0` → `1`")
        ),
    ),
    Accepted(
        "The slope is 1 or -1, by which to divide is to multiply.",
        (
            (
                "dpgraph/capture/sizes.py",
                "_solve_for_an_atom",
                "return atom, sympy.expand(-rest / slope)",
                "`/` → `*`",
            ),
        ),
    ),
    Accepted(
        "A remainder that B is left in counts as depending on it, with a common factor before it or not.",
        (
            (
                "dpgraph/capture/sizes.py",
                "_without_common_batch.remainder",
                "common = not any(batch in part.free_symbols for part in parts)",
                "`any` → `all`",
            ),
        ),
    ),
)
