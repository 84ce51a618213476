"""Who reads a buffer that is written reads a copy of what stood there before."""

import torch
from torch import nn

from dpgraph import CompileOptions, dp_compile

COPY = torch.ops.dpgraph.in_own_memory.default


class Scaled(nn.Module):
    def __init__(self, *, writes):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("ema", torch.ones(3))
        self.register_buffer("other", torch.ones(3))
        self.writes = writes

    def forward(self, x):
        y = x * self.w * self.ema.exp() * self.other
        if self.writes:
            self.ema.add_(1)
        return y


def copies(model):
    module = dp_compile(model, "full", options=CompileOptions(backend="eager"))
    module(torch.ones(4, 3))
    return [node for node in module.graphs["copy_written_inputs"].nodes if node.target == COPY]


def test_what_is_written_is_copied_once_and_read_there():
    (copy,) = copies(Scaled(writes=True))
    (before,) = copy.all_input_nodes
    assert list(before.users) == [copy]
    assert len(copy.users) >= 2
    assert before.op == "placeholder"


def test_what_is_read_alone_is_not_copied():
    assert not copies(Scaled(writes=False))
