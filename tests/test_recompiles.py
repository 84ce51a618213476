"""Poisson sampling draws a batch of another size at every step: that must not compile anew."""

import pytest
import torch
from torch import nn

from dpgraph import dp_compile
from tests.models.plain import CNN, MLP
from tests.models.transformers_zoo import transformer
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER, check_exact

MOST_COMPILATIONS = 3


def compilations() -> int:
    """How many frames Dynamo has compiled since the test began."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture(autouse=True)
def _count_from_zero():
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize(
    "architecture", [MLP, CNN, transformer("gpt2"), transformer("opt"), transformer("t5", masked=False)], ids=str
)
def test_two_hundred_poisson_batches(architecture):
    model = architecture.build(torch.float32)
    module = dp_compile(model, "full", options=EAGER)
    generator = torch.Generator().manual_seed(4)
    sizes = [0, 1, 17, *torch.poisson(torch.full((197,), 3.0), generator=generator).long().tolist()]
    shuffled = [sizes[i] for i in torch.randperm(200, generator=generator).tolist()]
    assert {0, 1, 2, 3, 5, 7, 17} <= set(sizes)
    for size in shuffled:
        batch = architecture.batch(size)
        architecture.losses(module, batch).sum().backward()
        assert module.grad_norms.shape == (size,)
    assert len(module._calls.compiler.rewritings) <= MOST_COMPILATIONS
    assert compilations() <= MOST_COMPILATIONS
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("first", [0, 1, 2, 6])
def test_whatever_size_comes_first(first):
    model = MLP.build()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    for size in (first, 5, 1, 0, 2, 9):
        check_exact(model, torch.randn(size, 5, dtype=torch.float64), clipping="auto-v", module=module)
    assert compilations() == 1


def test_empty_batch_first_and_integers():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)).double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    for size in (0, 1, 3):
        check_exact(model, torch.randint(7, (size, 5)), clipping="auto-v", module=module)
    assert compilations() == 1


def test_many_models_in_one_process():
    """Dynamo gives up on code that it has compiled too often; the code of our own module must not count."""
    for _ in range(12):
        check_exact(nn.Linear(3, 2).double(), torch.randn(4, 3, dtype=torch.float64), clipping="auto-v")


class Scaled(nn.Module):
    """A layer, times a number, over positions."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 2), scale

    def forward(self, x):
        return self.layer(x).mean(1) * self.scale


def test_what_differs_between_models_is_not_taken_to_vary_in_one():
    """Dynamo remembers by function what changed from call to call, even if another module was called."""
    lengths = []
    for scale, length in ((0.5, 4), (0.25, 7)):
        module = dp_compile(Scaled(scale), "full", options=EAGER)
        module(torch.randn(4, length, 3)).sum().backward()
        inputs = [node.meta["val"] for node in module.graphs["captured"].find_nodes(op="placeholder")]
        lengths += [x.shape[1] for x in inputs if isinstance(x, torch.Tensor) and x.shape[2:] == (3,)]
    assert all(type(length) is int for length in lengths)
    assert lengths == [4, 7]
    assert [m.restart_reasons for m in torch._dynamo.utils.get_compilation_metrics()[-2:]] == [set(), set()]


def test_switching_between_train_and_eval():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(3):
        module.train()
        module(x).sum().backward()
        module.eval()
        check_exact(model, x, clipping="auto-v", module=module)
    assert compilations() <= 2


def test_lengths_of_sentences_may_change_too():
    architecture = transformer("bert", masked=False)
    model = architecture.build()
    module = dp_compile(model, "full", options=EAGER)
    gradients = {}
    for length in (5, 9, 5, 12, 3, 7):
        model.zero_grad()
        torch.manual_seed(length)
        ids, labels = torch.randint(3, 60, (4, length)), torch.randint(3, (4,))
        architecture.loss(module(input_ids=ids), labels).sum().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters()}
        if length in gradients:
            assert max(relative_errors(found, gradients[length]).values()) < 1e-12
        gradients[length] = found
    assert compilations() <= MOST_COMPILATIONS
