"""Every operator of the tables is met by a program whose claim is checked, and the powers of B behind it are right.

The decompositions replace some operators in the version of torch that is tested, so the programs are analysed without
them too.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dpgraph.provenance import infer, scale
from dpgraph.provenance.lattice import Refused
from dpgraph.provenance.registry import _TRANSFERS
from dpgraph.provenance.rules import CREATIONS
from tests.provenance.analysed import B, Input, analyse, samples, shared
from tests.provenance.operators import OPERATORS
from tests.provenance.program import Program
from tests.provenance.test_transfer import NUM_SAMPLES, PROGRAMS, check_claim, name_of, run

# Attention of GPUs and of devices from outside: nothing here can run them.
ELSEWHERE = {
    f"aten._scaled_dot_product_{kind}_attention{backward}.default"
    for kind in ("flash", "efficient", "cudnn", "fused")
    for backward in ("", "_backward")
} | {f"aten._scaled_dot_product_fused_attention_overrideable{backward}.default" for backward in ("", "_backward")}


@pytest.mark.parametrize("decomposed", [True, False], ids=["decomposed", "as it is"])
@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: case.name)
def test_the_claim_is_as_expected_and_true(case: Program, decomposed: bool) -> None:
    found = analyse(case.function, case.inputs, NUM_SAMPLES, decomposed=decomposed)
    assert tuple(map(name_of, found)) == case.expected
    for i, claim in enumerate(found):
        check_claim(claim, case, i)


def divisible(case: Program) -> bool:
    """Whether the first operand is real numbers of the samples."""
    return case.inputs[0].integers is None and case.inputs[0].axis is not None


# The other programs have operators that are known decomposed alone.
ONE_WAY = [(c, True) for c in PROGRAMS] + [(c, False) for c in OPERATORS]


@pytest.mark.parametrize(
    ("case", "decomposed"), [pytest.param(c, d, id=f"{c.name}-{d}") for c, d in ONE_WAY if divisible(c)]
)
def test_a_power_of_the_number_of_samples_goes_through_what_is_linear(case: Program, decomposed: bool) -> None:
    """With the first operand divided by B, the result is refused or, as it says, divided by B."""

    def divided(x: Any, *others: Any) -> Any:
        return case.function(x / x.shape[case.inputs[0].axis], *others)

    plain = analyse(case.function, case.inputs, NUM_SAMPLES, decomposed=decomposed)
    found = analyse(divided, case.inputs, NUM_SAMPLES, decomposed=decomposed)
    generator = torch.Generator().manual_seed(1)
    values = [spec.draw(NUM_SAMPLES, generator) for spec in case.inputs]
    smaller = [values[0] / NUM_SAMPLES, *values[1:]]
    for i, (before, claim) in enumerate(zip(plain, found, strict=True)):
        if isinstance(claim, Refused) or isinstance(before, Refused):
            continue
        power = getattr(claim, "power", 0) - getattr(before, "power", 0)
        expected = run(case, values, i) * float(NUM_SAMPLES) ** power
        torch.testing.assert_close(run(case, smaller, i), expected)
    linear = all(not isinstance(p, Refused) for p in found)
    assert linear or case.name not in LINEAR


# Programs that are linear in their first operand, and whose rules must say so: a mean over the batch comes before them.
NAMES = """
    broadcast samples, dropout, values of a sample's shape, times the number of samples, made zeros over
    merged axes, sum of ones, arange, expanded row, repeated row, mean minus scaled, times one over the number
    of samples, noise over merged axes, flatten, flatten and back, flatten from the second axis, merged
    behind, merged in the middle, alias, permute, transpose, matrix transpose, unsqueeze before, unsqueeze
    behind, squeeze, squeeze before, expand, expand before, repeat, repeat the batch, repeat interleaved,
    slice, slice a block of the batch, select, chunk, split, unbind, flip, roll, unfold, sum over features,
    sum keeping axes, sum over samples, sum of all, mean over samples, mean of features, mean of all, cumsum,
    copy of a sum, copy, linear, matrix product, product from the left, sum of outer products, with one side
    shared, over flattened positions, vector, sum as a vector product, dot, attention scores, batched sum of
    products, linear in a sum, scaled sum, shared value times a sum, sum where a condition holds, sum plus
    zero, sum in another type, joined with zeros, convolution, convolution backward, average pool, adaptive
    pool, average pool backward, grid sample backward, reflection, embedding backward, position of each
    sample, position of another type, pick features, gather, index_put of a sum, scatter of a sum, scatter_add
    of a sum, adaptive pool backward, large windows backward, average pool of volumes, average pool of volumes
    backward, max pool of volumes backward, upsample backward, grid sample of volumes backward, attention
    backward, sum and zeros like a shared value, scaled, Fourier transform, Fourier transform of reals and back,
    Fourier transform of a sum, diagonal of each matrix, diagonals in front of the samples, diagonals between the
    samples, diagonal of a sum, sum as a diagonal of zeros, backward of distances to shared rows, backward
    of distances from shared rows, one of equal rows, the first of equal rows, one of random rows, equal rows as
    positions and samples, adaptive pool of volumes backward, conjugates, squeeze all, squeeze all before
"""
LINEAR = set(" ".join(NAMES.split()).split(", "))
assert {c.name for c, _ in ONE_WAY} >= LINEAR


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the operators of all nodes that are made."""
    names: set[str] = set()
    create_node = torch.fx.Graph.create_node

    def noting(graph: Any, op: str, target: Any, *args: Any, **kwargs: Any) -> Any:
        names.add(str(target))
        return create_node(graph, op, target, *args, **kwargs)

    monkeypatch.setattr(torch.fx.Graph, "create_node", noting)
    return names


def test_every_operator_stands_in_a_program(met: set[str]) -> None:
    for case in PROGRAMS:
        analyse(case.function, case.inputs, NUM_SAMPLES)
    for case in OPERATORS:
        for decomposed in (True, False):
            analyse(case.function, case.inputs, NUM_SAMPLES, decomposed=decomposed)
    tables = {*_TRANSFERS, *CREATIONS, *scale.MEANS, *scale.PRODUCTS, *scale.QUOTIENTS, *scale.ADDED, *scale.LINEAR}
    named = {str(x) for x in tables if isinstance(x, torch._ops.OpOverload)}
    assert named - met - ELSEWHERE == set()


ALONE = {
    "factors of matrices whose rows are samples",
    "grid sample of channels that are samples at rows of points that are",
    "written to the places of samples that the data decide",
}


@pytest.mark.parametrize("case", [c for c, _ in ONE_WAY if c.name in ALONE], ids=lambda case: case.name)
@pytest.mark.parametrize("decomposed", [True, False], ids=["decomposed", "as it is"])
def test_a_rule_refuses_without_the_guard_on_places(
    case: Program, decomposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That guard refuses a result with as many places as there are samples; a rule must not lean on it."""
    monkeypatch.setattr(infer, "_with_one_batch_axis", lambda _, results: results)
    found = analyse(case.function, case.inputs, NUM_SAMPLES, decomposed=decomposed)
    assert tuple(map(name_of, found)) == ("refused",)


@pytest.mark.parametrize(("lengths", "expected"), [(shared(3, integers=4), 0), (samples(B, integers=4), "refused")])
def test_lengths_in_the_attention_of_gpus_are_of_the_whole_batch(lengths: Input, expected: Any) -> None:
    """The operator has shapes here, if no kernel."""

    def gradients(x: Any, row_maxima: Any, lengths: Any, seed: Any) -> Any:
        op = torch.ops.aten._scaled_dot_product_flash_attention_backward
        return op(x, x, x, x, x, row_maxima, lengths, lengths, 4, 4, 0.0, False, seed, seed)

    inputs = [samples(B, 2, 4, 8), samples(B, 2, 4), lengths, shared(2, integers=4)]
    found = analyse(gradients, inputs, NUM_SAMPLES, decomposed=False)
    assert tuple(map(name_of, found)) == (expected,) * 3


def test_a_transform_that_names_no_axes_is_taken_for_one_over_all() -> None:
    (found,) = analyse(
        lambda x: torch.ops.aten._fft_c2c(torch.view_as_complex(x), [], 0, True),
        [samples(B, 4, 2)],
        NUM_SAMPLES,
        decomposed=False,
    )
    assert name_of(found) == "refused"
