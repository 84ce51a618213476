"""The measurement of the kernel runs to its end, says what it found, and refuses to measure what is not there."""

import io
import json

import pytest
import torch
import typer
from rich.console import Console

from tools.bench.norm_kernel import Dtype, KernelRecord, Measured, Operands, main, measure, show
from tools.bench.record import Environment

CPU = torch.device("cpu")
SMALL = Operands(2, 5, 3, Dtype.float32)


def record(*measured: Measured) -> KernelRecord:
    return KernelRecord(Environment.current(CPU, torch.float32, 1), SMALL, measured)


def test_what_it_found():
    found = record(
        Measured("kernel", 1024, (0.002, 0.002), 2048, 1e-7),
        Measured("two Gram matrices", 1024, (0.001, 0.003), 10**7, 1e-6),
        Measured("kernel", 2048, (0.004,), 4096, 1e-7),
        Measured("two Gram matrices", 2048, (0.008,), 4 * 10**7, 1e-6),
        Measured("kernel", 4096, (0.016,), 4096, 1e-7),
        Measured("two Gram matrices", 4096),
    )
    assert found.slower_at == [1024]
    assert found.kernel_bytes == (2048, 4096)
    console = Console(width=150, file=io.StringIO())
    show(found, console)
    text = console.file.getvalue()
    for part in ("2.000", "40.00", "out of memory", "2048 to 4096 bytes", "not faster at T = 1024"):
        assert part in text
    assert json.loads(found.to_json())["operands"]["dtype"] == "float32"


@pytest.mark.inductor
def test_all_ways_come_to_the_same():
    found = measure(SMALL, 70, 1, 1, CPU)
    assert [m.way for m in found] == ["kernel", "two Gram matrices", "gradient"]
    assert all(m.error < 1e-5 and len(m.seconds) == 1 and m.added_bytes is None for m in found)
    assert record(*found).kernel_bytes is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(typer.BadParameter, match="needs a GPU"):
        main(out=tmp_path)
    assert list(tmp_path.iterdir()) == []
