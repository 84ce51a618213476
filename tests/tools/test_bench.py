"""The benchmark times what is right and nothing else, and keeps what it found; at sizes that tell nothing of speed."""

import math
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.models.run import Run
from tools.bench import __main__ as command
from tools.bench import measure, peers, run
from tools.bench.correctness import TOLERANCES, Tolerance, error_of, find_references
from tools.bench.measure import MemoryLine, peak_bytes, time_in_turns
from tools.bench.models import WORKLOADS, Batch, Sizes, Workload
from tools.bench.plots import draw
from tools.bench.record import Environment, Record, Result, Status, WorkloadRecord, ratio
from tools.bench.run import KINDS, Settings, parse_variant, run_workload
from tools.bench.table import ratios
from tools.bench.variants import Eager, Kind, Loop

CPU = torch.device("cpu")
SMALL = {"batch": 3, "length": 6, "layers": 1, "width": 8, "heads": 2, "classes": 7}
OF_IMAGES = {
    "vit": {**SMALL, "length": 32},
    "resnet50-gn": {**SMALL, "length": 32, "layers": 50, "width": 4},
}
EAGER_VARIANTS = [f"{kind}-{mode}" for mode in ("full", "bitfit") for kind in ("eager", "loop", "vmap")]


def small(name: str) -> Workload:
    return WORKLOADS[name].resized(**OF_IMAGES.get(name, SMALL))


@pytest.fixture
def linear() -> Workload:
    def make(sizes: Sizes) -> nn.Module:
        return Run(lambda m, x: m.layer(x), layer=nn.Linear(sizes.width, 1))

    def draw_rows(sizes: Sizes, num_samples: int) -> Batch:
        return Batch(torch.randn(num_samples, sizes.width), torch.randn(num_samples, 1))

    return Workload("linear", Sizes(4, 0, 1, 3, 0, 1), make, draw_rows, lambda y, t: (y - t).square().sum(1))


# torch maps attention over the samples one by one where it has no rule, and says so
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", ["gpt2-t32", "gpt2-t32-peers", "bert", "bert-peers", "vit", "resnet50-gn", "llama"])
def test_every_model_is_trained_by_the_variants_of_torch(name):
    """One of each family; the others differ in size alone."""
    record = run_workload(small(name), ["eager-full", "loop-full", "vmap-full"], Settings(rounds=1, memory=False))
    assert [r.reason for r in record.results] == [""] * 3
    assert all(r.error < 1e-4 for r in record.results)
    assert record.num_parameters > 0


def test_a_run_has_times_and_peaks(linear):
    settings = Settings(rounds=4, steps_of_a_turn=2, limit_bytes=10**6, dtype=torch.float64)
    record = run_workload(linear, EAGER_VARIANTS, settings)
    for result in record.results:
        assert result.status is Status.timed, result.reason
        assert result.error < 1e-8
        assert len(result.seconds) == 4
        assert result.peak_bytes > 0
        assert result.largest_batch is None or result.largest_batch > 0
    eager = record.timed("eager-full")
    assert eager.largest_batch > record.sizes.batch


def scaled(factor: float) -> type[Eager]:
    class Wrong(Loop):
        def step(self, batch: Batch) -> None:
            super().step(batch)
            next(iter(self.task.trained)).grad.mul_(factor)

    return Wrong


@pytest.mark.parametrize("factor", [0.99, 0.0, math.nan], ids=["scaled", "zero", "not a number"])
def test_a_wrong_gradient_is_not_timed(linear, monkeypatch, factor):
    monkeypatch.setitem(KINDS, "loop", Kind("loop", True, "wrongly", scaled(factor)))
    record = run_workload(linear, ["loop-full", "eager-full"], Settings(rounds=1))
    wrong, right = record.results
    assert wrong.status is Status.wrong
    assert "against a loop over the samples" in wrong.reason
    assert wrong.seconds == ()
    assert wrong.peak_bytes is None
    assert right.status is Status.timed


def test_clipping_that_does_nothing_is_wrong(linear, monkeypatch):
    monkeypatch.setitem(KINDS, "loop", Kind("loop", True, "without clipping", Eager))
    (found,) = run_workload(linear, ["loop-full"], Settings(rounds=1)).results
    assert found.status is Status.wrong


def test_in_low_precision_a_variant_may_be_off_as_ordinary_training_is(linear):
    results = run_workload(linear, ["eager-full", "loop-full"], Settings(rounds=1, dtype=torch.bfloat16)).results
    assert [r.reason for r in results] == ["", ""]
    assert all(1e-5 < r.error < 0.1 for r in results)


@pytest.mark.inductor
@pytest.mark.parametrize(("of_ordinary", "status"), [(2.0, Status.timed), (0.0, Status.wrong)])
def test_where_ordinary_training_is_off_a_variant_may_be_twice_as_far(linear, monkeypatch, of_ordinary, status):
    monkeypatch.setitem(TOLERANCES, torch.float32, Tolerance(0.0, 1e-2, of_ordinary))
    (result,) = run_workload(linear, ["eager-full"], Settings(rounds=1)).results
    assert result.status is status
    assert result.error > 0


def test_a_variant_that_fails_does_not_stop_the_others(linear, monkeypatch):
    class Fails(Eager):
        def step(self, batch: Batch) -> None:
            raise NotImplementedError("no such layer\nand more")

    monkeypatch.setitem(KINDS, "loop", Kind("loop", True, "not at all", Fails))
    failed, timed = run_workload(linear, ["loop-full", "eager-full"], Settings(rounds=1)).results
    assert (failed.status, failed.reason) == (Status.failed, "NotImplementedError: no such layer")
    assert timed.status is Status.timed


def test_a_library_that_is_not_there_is_reported(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    (found,) = run_workload(linear, ["opacus-ghost-full"], Settings(rounds=1)).results
    assert found.status is Status.missing
    assert found.reason.startswith("ModuleNotFoundError")
    assert peers.why_missing(KINDS["eager"]) == ""


def test_a_mode_that_trains_nothing_is_reported():
    (found,) = run_workload(small("llama"), ["eager-bitfit"], Settings(rounds=1)).results
    assert found.status is Status.untrained


def test_half_of_the_samples_are_clipped(linear):
    torch.manual_seed(0)
    model, batch = linear.make(linear.sizes), linear.draw(linear.sizes, 5)
    found = find_references(model, linear, batch, ["full"])["full"]
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(linear.loss(model(x), y).sum(), model.parameters())]).norm()
        for x, y in ((batch.inputs[b : b + 1], batch.targets[b : b + 1]) for b in range(5))
    ]
    assert found.max_grad_norm == pytest.approx(sorted(norms)[2].item(), rel=1e-5)


def test_no_gradient_counts_as_zero(linear):
    model = linear.make(linear.sizes)
    zeros = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in model.named_parameters()}
    assert error_of(model, zeros, torch.float64) == 0
    assert error_of(model, {**zeros, "layer.bias": torch.ones(1, dtype=torch.float64)}, torch.float64) == pytest.approx(
        1
    )


@pytest.mark.parametrize("name", ["dp", "dp-half", "fast-full", ""])
def test_unknown_variants_are_refused(name):
    with pytest.raises(ValueError, match="choose from plain-full"):
        parse_variant(name)


def test_everyone_takes_turns(monkeypatch):
    monkeypatch.setattr(measure, "WARM_UP_ROUNDS", 1)
    order = []
    steps = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = time_in_turns(steps, 2, 1, CPU)
    assert "".join(order) == "aabbcc" + "bbccaa" + "ccaabb"
    assert {name: len(found) for name, found in seconds.items()} == dict.fromkeys("abc", 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep what is freed")
def test_freed_memory_stays_with_the_process():
    script = """if True:
        import resource, torch
        from pathlib import Path
        from tools.bench.measure import keep_heap
        keep_heap()
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        before = resident()
        torch.ones(10_000_000)
        print(resident() - before)
    """
    ran_by = [sys.executable, "-c", script]
    ran = subprocess.run(ran_by, check=True, capture_output=True, text=True)
    assert int(ran.stdout) > 35_000_000


def test_the_peak_is_what_a_step_holds_at_once():
    @dataclass
    class Holds:
        held: torch.Tensor | None = None

        def clear(self) -> None:
            self.held = None

        def step(self, batch: Batch) -> None:
            self.clear()
            first = torch.ones(1000)
            self.held = torch.cat([first, first])
            del first
            torch.ones(500)

    peak = peak_bytes(Holds(), Batch(torch.ones(1), torch.ones(1)), CPU)
    assert 12000 <= peak < 13000


def test_the_largest_batch_is_where_the_line_meets_the_limit():
    line = MemoryLine.through(4, 140, 8, 180)
    assert line == MemoryLine(100.0, 10.0)
    assert [line.largest_batch(limit) for limit in (99, 110, 119, 1000)] == [0, 1, 1, 90]
    assert MemoryLine(100.0, 0.0).largest_batch(1000) is None


def timed(variant: str, *seconds: float, peak: int = 100) -> Result:
    return Result(variant, Status.timed, "eager", error=1e-7, first_seconds=1.0, seconds=seconds, peak_bytes=peak)


@pytest.fixture
def record() -> Record:
    results = (
        timed("plain-full", 1.0, 2.0, 3.0, peak=50),
        timed("plain-any-size-full", 1.0, 2.0, 4.0),
        replace(timed("dp-full", 1.5, 2.0, 6.0), largest_batch=7),
        timed("opacus-ghost-full", 3.0, 8.0, 6.0, peak=300),
        Result("opacus-hooks-full", Status.wrong, "eager", "relative error 4.1e-01", error=0.41),
    )
    workload = WorkloadRecord("gpt2-t32", WORKLOADS["gpt2-t32"].sizes, 12, results)
    return Record(Environment.current(CPU, torch.float32, 1), 3, 1, 10**9, (workload,))


def test_a_record_comes_back_from_json(record):
    assert Record.from_json(record.to_json()) == record
    assert record.environment.versions["torch"] == torch.__version__
    assert record.environment.dtype == "float32"
    assert record.environment.device


def test_ratios_are_taken_within_rounds(record):
    found = {(r.numerator, r.denominator): r for r in ratios(record.workloads[0])}
    own = {("dp-full", "plain-full"), ("dp-full", "plain-any-size-full")}
    assert set(found) == own | {("opacus-ghost-full", "dp-full")}
    dp = found["dp-full", "plain-full"]
    assert (dp.median, dp.low, dp.high, dp.of_minima, dp.memory) == (1.5, 1.0, 2.0, 1.5, 2.0)
    assert ratio(timed("a", 2.0), timed("b", 1.0)).median == 2


def test_plots_are_written(record, tmp_path):
    pytest.importorskip("matplotlib")
    written = draw(record, tmp_path)
    assert sorted(path.name for path in written) == ["largest_batch.png", "peak_memory.png", "throughput.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


@pytest.fixture
def in_this_process(monkeypatch, linear):
    monkeypatch.setattr(command, "run_apart", run.run_workload)
    monkeypatch.setitem(WORKLOADS, "gpt2-t32", linear)


def invoke(*arguments: str) -> str:
    app = command.typer.Typer()
    app.command()(command.main)
    result = CliRunner().invoke(app, [*arguments])
    return f"{result.exit_code} {result.output}"


@pytest.mark.usefixtures("in_this_process")
def test_the_command_prints_tables_and_writes_the_record(tmp_path):
    variants = "eager-full,loop-full,fastdp-full"
    out = invoke(
        "--models", "gpt2-t32", "--variants", variants, "--rounds", "2", "--threads", "1", "--out", str(tmp_path)
    )
    assert out.startswith("0 ")
    assert "not timed: fastdp-full: not importable" in out
    rows = {row.split("│")[1].strip(): row.split("│")[2:-1] for row in out.splitlines() if row.startswith("│")}
    assert set(rows) == {"eager-full", "loop-full"}
    assert all(float(row[0]) > 0 for row in rows.values())
    found = Record.from_json((tmp_path / "record.json").read_text("utf-8"))
    assert [r.variant for r in found.workloads[0].results] == variants.split(",")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("arguments", [("--models", "none"), ("--variants", "dp"), ("--dtype", "int8")])
def test_the_command_refuses_what_it_does_not_know(arguments, tmp_path):
    assert invoke(*arguments, "--out", str(tmp_path)).startswith("2 ")


@pytest.mark.inductor
@pytest.mark.slow
def test_compiled_variants_are_right(linear):
    record = run_workload(linear, ["plain-full", "plain-any-size-full", "dp-bitfit"], Settings(rounds=2))
    assert [r.status for r in record.results] == [Status.timed] * 3
