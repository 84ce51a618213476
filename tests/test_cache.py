"""A model that was compiled before is analysed anew; what Inductor made of it comes from Inductor's cache."""

import pytest
import torch
from torch import nn
from torch._inductor.utils import fresh_cache

from dpgraph import CompileOptions
from tests.programs.exact import check_exact


@pytest.fixture(autouse=True)
def _empty_cache():
    with fresh_cache():
        yield


def compile_and_count(mode: str = "full", **arguments) -> dict[str, int]:
    """Look-ups of the forward and the backward in the cache, by how they ended."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    module = check_exact(
        model, torch.randn(6, 5, dtype=torch.float64), mode=mode, options=CompileOptions(), **arguments
    )
    assert module.certificate.graphs
    counted = torch._dynamo.utils.counters["inductor"]
    return {end: counted[f"fxgraph_cache_{end}"] for end in ("hit", "miss", "bypass")}


@pytest.mark.inductor
def test_the_second_compilation_is_looked_up():
    assert compile_and_count() == {"hit": 0, "miss": 2, "bypass": 0}
    assert compile_and_count() == {"hit": 2, "miss": 0, "bypass": 0}


@pytest.mark.inductor
@pytest.mark.parametrize("other", [{"clipping": "abadi"}, {"max_grad_norm": 0.3}, {"mode": "bitfit"}], ids=str)
def test_another_mechanism_is_another_program(other):
    compile_and_count()
    assert compile_and_count(**other)["miss"] > 0
