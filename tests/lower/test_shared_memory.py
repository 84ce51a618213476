"""The backward overwrites nothing of what the forward saved while it still needs it, under whatever name."""

from types import SimpleNamespace

import pytest
import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

from dpgraph.torch_compat.donations import keep_what_is_saved_twice


@pytest.fixture
def donated():
    """What AOTAutograd donates of a backward with these saved values; returns what is left."""

    def ask(saved, donated):
        graph = Graph()
        for i, x in enumerate(saved):
            graph.placeholder(f"saved_{i}").meta["val"] = x
        graph.output(())
        context = TracingContext(None)
        context.fw_metadata = SimpleNamespace(bw_donated_idxs=donated)
        with tracing(context):
            said = keep_what_is_saved_twice(GraphModule({}, graph))
        return context.fw_metadata.bw_donated_idxs, said

    return ask


def test_two_views_of_one_memory_are_not_overwritten(donated):
    with FakeTensorMode():
        x, y = torch.empty(4, 2), torch.empty(4, 2)
        saved = [3, x.view(8), y, x.t()]
        assert donated(saved, [1, 2, 3])[0] == [2]
        assert donated(saved[:3], [1, 2])[0] == [1, 2]


def test_what_may_be_overwritten_tells_one_backward_from_another(donated):
    with FakeTensorMode():
        x, y = torch.empty(8), torch.empty(8)
        assert donated([x, y], [0, 1])[1] != donated([x, x.view(4, 2)], [0, 1])[1]
        assert donated([x, y], None) == (None, "")
