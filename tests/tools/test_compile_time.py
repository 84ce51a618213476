"""The time of a compilation is told apart by phases that add up to it."""

import pytest
import torch
from torch import nn

from tools.bench.compile_time import Compilation, CompileRecord, Line, compile_once
from tools.bench.models import WORKLOADS, Batch, Sizes, Workload
from tools.bench.record import Environment
from tools.bench.stopwatch import CAPTURE, OURS, PHASES, Stopwatch


def test_every_function_that_is_timed_is_there():
    with Stopwatch().watching():
        pass


def test_inner_phases_are_taken_off_outer_ones(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("tools.bench.stopwatch.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    inner = watch.around("inner", lambda: None)
    watch.around("outer", lambda: (inner(), inner()))()
    assert watch.seconds == {"inner": 2, "outer": 3}


def test_a_phase_that_fails_is_over(monkeypatch):
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError):
        watch.around("fails", lambda: 1 / 0)()
    watch.around("later", lambda: None)()
    assert set(watch.seconds) == {"fails", "later"}


def test_a_line_through_times():
    line = Line.fit([4, 8, 16], [6.0, 10.0, 18.0])
    assert (line.fixed, line.per_layer) == pytest.approx((2.0, 1.0))
    assert line.deviation < 1e-9
    assert Line.fit([4, 8, 16], [6.0, 10.0, 30.0]).deviation > 0.1


def compilation(kind: str, layers: int, total: float) -> Compilation:
    return Compilation(kind, layers, total, {CAPTURE: total * 0.9, "provenance": total * 0.08, "prune": total * 0.02})


def test_a_record_comes_back_from_json_and_has_medians():
    found = [compilation("dp", 4, total) for total in (3.0, 1.0, 2.0)] + [compilation("dp", 8, 4.0)]
    environment = Environment.current(torch.device("cpu"), torch.float32, 1)
    record = CompileRecord(environment, "gpt2-t128", WORKLOADS["gpt2-t128"].sizes, "full", tuple(found))
    assert CompileRecord.from_json(record.to_json()) == record
    assert record.median("dp", 4).total == 2
    assert record.median("dp", 4).share == pytest.approx(0.1)
    assert record.depths == [4, 8]
    assert record.line("dp").per_layer == pytest.approx(0.5)


@pytest.mark.inductor
@pytest.mark.slow
def test_the_phases_of_a_compilation_add_up():
    def draw(sizes: Sizes, num_samples: int) -> Batch:
        return Batch(torch.randn(num_samples, 3), torch.randn(num_samples, 2))

    def make(_: Sizes) -> nn.Module:
        return nn.Linear(3, 2)

    workload = Workload("linear", Sizes(4, 0, 1, 0, 0, 0), make, draw, lambda y, t: (y - t).square().sum(1))
    found = compile_once(workload, "dp", "full", torch.device("cpu"))
    assert sum(found.phases.values()) == pytest.approx(found.total)
    assert set(found.phases) == set(PHASES)
    assert all(seconds > 0 for seconds in found.phases.values())
    assert 0 < found.share < 1
    assert set(OURS) < set(PHASES)
