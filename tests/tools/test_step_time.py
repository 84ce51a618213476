"""The benchmark runs, at sizes that tell nothing about speed."""

import pytest
import torch

from tools.bench import step_time


@pytest.mark.inductor
@pytest.mark.slow
def test_the_benchmark_prints_a_row_for_each_variant(capsys):
    threads = torch.get_num_threads()
    step_time.main(
        layers=1,
        width=16,
        heads=2,
        tokens=8,
        batch=3,
        vocabulary=20,
        threads=1,
        rounds=2,
        steps=1,
        variants="plain-full,dp-bitfit",
        loss=step_time.Loss.inside,
        memory=True,
    )
    torch.set_num_threads(threads)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    names = [row[0].strip() for row in rows]
    assert names == ["plain-full", "dp-bitfit"]
    assert float(rows[0][3]) == 1
    assert all(float(cell) > 0 for row in rows for cell in (row[1], row[2], row[3]))
