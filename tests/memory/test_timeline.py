"""Timelines that can be worked out by hand, and what follows from one for other batch sizes."""

import pytest
import sympy

from dpgraph.memory.timeline import Buffer, Kind, Timeline

B = sympy.Symbol("B", integer=True, positive=True)
T = sympy.Symbol("T", integer=True, positive=True)


def timeline(*buffers: Buffer, steps: int = 4) -> Timeline:
    return Timeline(
        kernels=tuple((f"k{i}", "block") for i in range(steps)),
        forward_steps=2,
        buffers=buffers,
        parameters=1000,
        trained=300,
        inputs=8 * B,
        batch_symbol=B,
        batch=10,
        values={T: 5},
    )


THREE = timeline(
    Buffer(4 * B * T, Kind.saved, "block.a", 0, 2),
    Buffer(6 * B, Kind.temporary, "block.b", 1, 1),
    Buffer(sympy.Integer(300), Kind.gradient, "block.a", 2, 3),
)


def test_what_is_live_while_each_kernel_runs():
    assert THREE.live() == (200, 260, 500, 300)
    assert THREE.live(batch=20) == (400, 520, 700, 300)


def test_the_peak_by_kind_and_by_module():
    moment = THREE.at_peak()
    assert (moment.step, moment.total, THREE.peak()) == (2, 500, 500)
    assert dict(moment.by_kind) == {"gradient": 300, "saved activation": 200}
    assert dict(moment.by_module) == {"block.a": 500}
    assert THREE.at(1).by_module == {"block.a": 200, "block.b": 60}


def test_the_total_counts_what_lives_outside_the_step_too():
    assert THREE.total() == 1000 + 80 + 500
    assert THREE.total(optimizer_moments=2) == 1000 + 600 + 80 + 500


@pytest.mark.parametrize("budget", [1700, 2000, 123_456, 10**9])
@pytest.mark.parametrize("moments", [0, 2])
def test_the_largest_batch_fits_and_the_next_does_not(budget, moments):
    largest = THREE.largest_batch(budget, optimizer_moments=moments)
    if largest:
        assert THREE.total(largest, optimizer_moments=moments) <= budget
    assert THREE.total(largest + 1, optimizer_moments=moments) > budget


def test_a_batch_of_one_is_filled_up_to_two_rows():
    assert THREE.peak(1) == THREE.peak(2)
    assert THREE.largest_batch(THREE.total(2)) == 2
    assert THREE.largest_batch(THREE.total(2) - 1) == 0


def test_a_size_without_the_batch_lets_any_batch_in():
    assert timeline(Buffer(sympy.Integer(4), Kind.saved, "", 0, 1)).largest_batch(10**20) > 2**30
