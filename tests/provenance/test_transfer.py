"""What the analysis says of a program must be true of it: every claim is checked by changing one sample's values."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dpgraph.provenance.lattice import PerSample, Provenance, Refused, SamplePosition, Shared, SummedOverSamples
from dpgraph.provenance.registry import _TRANSFERS
from tests.provenance import claims, matrices
from tests.provenance.analysed import Input, analyse
from tests.provenance.claims import Program

PROGRAMS = [*claims.PROGRAMS, *matrices.PROGRAMS]
NUM_SAMPLES = 3


def name_of(found: Provenance) -> Any:
    match found:
        case PerSample(axis=axis):
            return axis
        case SummedOverSamples():
            return "sum"
        case Shared():
            return "shared"
        case Refused():
            return "refused"
        case SamplePosition():
            return "position"


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)
def test_the_claim_is_as_expected_and_true(case: Program) -> None:
    found = analyse(case.function, case.inputs, NUM_SAMPLES)
    assert tuple(map(name_of, found)) == case.expected
    for i, claim in enumerate(found):
        check_claim(claim, case, i)


def check_claim(claim: Provenance, case: Program, index: int) -> None:
    """Change the values of one sample, and see that the result changes nowhere else."""
    generator = torch.Generator().manual_seed(1)
    base = [spec.draw(NUM_SAMPLES, generator) for spec in case.inputs]
    other = [spec.draw(NUM_SAMPLES, generator) for spec in case.inputs]
    before = run(case, base, index)
    for b in range(NUM_SAMPLES):
        changed = with_sample(case.inputs, base, other, b)
        after = run(case, changed, index)
        match claim:
            case Shared():
                assert torch.equal(before, after)
            case PerSample():
                size = before.shape[claim.axis]
                outer, inner = int(claim.outer), int(claim.inner)
                assert size == outer * NUM_SAMPLES * inner
                rest = [i for i in range(size) if i // inner % NUM_SAMPLES != b]
                torch.testing.assert_close(
                    before.index_select(claim.axis, torch.tensor(rest)),
                    after.index_select(claim.axis, torch.tensor(rest)),
                    rtol=0,
                    atol=0,
                )
            case SummedOverSamples():
                others = [
                    with_sample(case.inputs, values, other, c)
                    for values in (base, changed)
                    for c in range(NUM_SAMPLES)
                    if c != b
                ]
                half = len(others) // 2
                for without, with_it in zip(others[:half], others[half:], strict=True):
                    step = run(case, with_it, index) - run(case, without, index)
                    torch.testing.assert_close(step, after - before)


def run(case: Program, values: list[Tensor], index: int) -> Tensor:
    torch.manual_seed(0)
    results = case.function(*values)
    result = (results if isinstance(results, (tuple, list)) else (results,))[index]
    return result.to(torch.float64)


def with_sample(specs: tuple[Input, ...], base: list[Tensor], other: list[Tensor], b: int) -> list[Tensor]:
    """`base`, with the values of sample b from `other`."""
    changed = []
    for spec, x, y in zip(specs, base, other, strict=True):
        if spec.axis is None:
            changed.append(x)
            continue
        x = x.clone()
        x.select(spec.axis, b).copy_(y.select(spec.axis, b))
        changed.append(x)
    return changed


def test_every_rule_stands_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, used = set(_TRANSFERS.values()), set()
    for operator, rule in list(_TRANSFERS.items()):

        def noting(step: Any, rule: Any = rule) -> Any:
            used.add(rule)
            return rule(step)

        monkeypatch.setitem(_TRANSFERS, operator, noting)
    for case in PROGRAMS:
        analyse(case.function, case.inputs, NUM_SAMPLES)
    assert {rule.__name__ for rule in rules - used} == set()
