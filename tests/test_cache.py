"""A model that was compiled before is analysed anew; what Inductor made of it comes from Inductor's cache."""

import pytest
import torch
from torch import nn
from torch._inductor.utils import fresh_cache

from dpgraph import dp_compile
from tests.programs.exact import check_exact


@pytest.fixture(autouse=True)
def _empty_cache():
    with fresh_cache():
        yield


def compile_and_count(sizes: tuple[int, ...] = (6,), mode: str = "full", **arguments) -> dict[str, int]:
    """Train on batches of these sizes; look-ups of the forward and the backward in the cache, by how they ended."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    module = dp_compile(model, mode, **arguments)
    for size in sizes:
        check_exact(model, torch.randn(size, 5, dtype=torch.float64), mode=mode, module=module, **arguments)
    assert len(module.certificate.graphs) == 1
    counted = torch._dynamo.utils.counters["inductor"]
    return {end: counted[f"fxgraph_cache_{end}"] for end in ("hit", "miss", "bypass")}


@pytest.mark.inductor
def test_the_second_compilation_is_looked_up_whatever_size_comes_first():
    assert compile_and_count((6, 3, 0)) == {"hit": 0, "miss": 2, "bypass": 0}
    assert compile_and_count((3, 1, 7)) == {"hit": 2, "miss": 0, "bypass": 0}


@pytest.mark.inductor
@pytest.mark.parametrize("other", [{"clipping": "abadi"}, {"grouping": "per-layer"}, {"mode": "bitfit"}], ids=str)
def test_another_mechanism_is_another_program(other):
    compile_and_count()
    assert compile_and_count(**other)["miss"] > 0


@pytest.mark.inductor
def test_another_bound_is_the_same_program():
    compile_and_count()
    assert compile_and_count(max_grad_norm=0.3) == {"hit": 2, "miss": 0, "bypass": 0}
