"""Adapters of the peft library under mode="trainable", each against the loop over the samples."""

from collections.abc import Callable

import peft
import pytest
import torch
from torch import nn

from dpgraph import CaptureError, dp_compile
from tests.models.transformers_zoo import transformer
from tests.oracle import group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER

KIND = "SEQ_CLS"
ADAPTERS: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": lambda: peft.LoraConfig(task_type=KIND, r=2, target_modules=["query", "value", "word_embeddings"]),
    "IA3": lambda: peft.IA3Config(
        task_type=KIND, target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
    ),
    "orthogonal": lambda: peft.OFTConfig(task_type=KIND, target_modules=["query"], r=0, oft_block_size=4),
    "prompt": lambda: peft.PromptTuningConfig(task_type=KIND, num_virtual_tokens=3),
}


def adapted(make: Callable[[], peft.PeftConfig]) -> nn.Module:
    torch.manual_seed(1)
    model = peft.get_peft_model(transformer("bert").build(), make()).double()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_exact(name):
    model = adapted(ADAPTERS[name])
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    batch = transformer("bert").batch(3)
    module = dp_compile(model, "trainable", clipping="auto-v", options=EAGER)
    module(**batch.inputs).logits.square().sum().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert list(found) == trained
    assert all(g is not None for g in found.values())
    samples = per_sample_gradients(
        model, lambda twin, b: twin(**batch.sample(b).inputs).logits.square().sum(), batch.num_samples
    )
    expected = samples.clipped_sum(group_names(trained, "flat"), "auto-v", 1.0)
    assert max(relative_errors(found, expected).values()) < 1e-10


def test_an_adapter_that_branches_on_random_numbers_is_refused():
    model = adapted(lambda: peft.LoHaConfig(task_type=KIND, target_modules=["query"], r=2))
    with pytest.raises(CaptureError, match="Data-dependent branching"):
        dp_compile(model, "trainable", options=EAGER)(**transformer("bert").batch(3).inputs)


def test_an_adapter_can_be_saved_and_merged(tmp_path):
    model = adapted(ADAPTERS["LoRA"])
    module = dp_compile(model, "trainable", options=EAGER)
    module.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(transformer("bert").build(), tmp_path)
    batch = transformer("bert").batch(3)
    with torch.no_grad():
        expected = model.eval()(**batch.inputs).logits
        torch.testing.assert_close(again.eval()(**batch.inputs).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(module.merge_and_unload().eval()(**batch.inputs).logits, expected)
