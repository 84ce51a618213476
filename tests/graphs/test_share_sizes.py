"""Every size is read from one place, so that compilers see which products are the same."""

import pytest
import torch
from torch import SymInt, Tensor, nn
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx import Graph

from dpgraph import CompileOptions, dp_compile
from tests.programs.exact import check_exact


class Heads(nn.Module):
    """Three layers of one input, as queries, keys and values are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, width, bias=False) for width in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, 9] of x [B, T, 5]."""
        return torch.cat([layer(x) for layer in self.layers], -1)


def graph_of(num_samples: int) -> Graph:
    options = CompileOptions(backend="eager", norm_strategy="ghost")
    x = torch.randn(num_samples, 7, 5, dtype=torch.float64)
    return check_exact(Heads().double(), x, options=options).graphs["prune"]


def test_no_size_is_computed_twice():
    used = [node for node in graph_of(4).nodes if node.users and isinstance(node.meta.get("val"), SymInt)]
    assert used
    assert len({node.meta["val"].node.expr for node in used}) == len(used)


@pytest.mark.usefixtures("uncompiled")
def test_layers_of_one_input_share_its_gram_matrix():
    merged = fx_graph_cse(graph_of(4))
    products = merged.find_nodes(op="call_function", target=torch.ops.aten.bmm.default)
    assert len(products) == 3 + 1


def test_the_forward_reads_no_size_off_a_gradient():
    """Height and width of what is enlarged are those of the output, whose gradient is an input of the graph."""

    class Enlarges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(1, 2, 3, stride=2, padding=1)
            self.up = nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1)
            self.norm = nn.InstanceNorm2d(2)
            self.last = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.up(self.down(x)))
            return h + self.last(h)

    model = Enlarges().double()
    module = dp_compile(model, "full", options=CompileOptions(backend="eager"))
    for size in (16, 10, 12):
        check_exact(model, torch.randn(3, 1, size, size + 2, dtype=torch.float64), module=module)
