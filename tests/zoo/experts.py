"""Mixtures of experts, whose tokens choose the weights that they are multiplied with."""

from collections.abc import Iterator, Mapping

from tests.models.architecture import Architecture
from tests.zoo.entries import Refusal, Settings, batch_of, entry, ids, mask
from tests.zoo.text import CAUSAL, T5

BATCHED: Settings = {**CAUSAL, "experts_implementation": "batched_mm", "num_experts_per_tok": 2}
EXPERTS: Mapping[str, Settings] = {
    "Mixtral": {"num_local_experts": 3},
    "Qwen2Moe": {"num_experts": 3, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "Olmoe": {"num_experts": 3},
    "GptOss": {"num_local_experts": 3, "head_dim": 4, "sliding_window": 4},
}


def experts() -> Iterator[Architecture]:
    """Language models in which each token's products are computed apart."""
    for name, settings in EXPERTS.items():
        text = batch_of(input_ids=ids, attention_mask=mask)
        yield entry(f"{name}ForCausalLM", {**BATCHED, **settings}, text)


def grouped_experts() -> Iterator[Refusal]:
    """The same models, and their like, where tokens of all samples are brought together by their expert."""
    text = batch_of(input_ids=ids, attention_mask=mask)
    settings = {**BATCHED, **EXPERTS["Mixtral"]}
    eager = {**settings, "experts_implementation": "eager"}
    yield Refusal(
        entry("MixtralForCausalLM", eager, text, title="MixtralForCausalLM, experts one by one"),
        "one graph",
        "loops over the experts that occur in the batch, which is a branch on the data of all samples",
    )
    grouped = {**settings, "experts_implementation": "grouped_mm"}
    yield Refusal(
        entry("MixtralForCausalLM", grouped, text, title="MixtralForCausalLM, experts by groups"),
        "computes along the samples",
        "sorts the tokens of all samples by their expert",
    )
    both = batch_of(input_ids=ids, attention_mask=mask, decoder_input_ids=lambda n: ids(n, 4))
    yield Refusal(
        entry("SwitchTransformersForConditionalGeneration", {**T5, "num_experts": 3}, both),
        "one graph",
        "casts the parameters of its router in forward, which torch.compile does not take",
    )
