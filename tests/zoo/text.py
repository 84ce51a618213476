"""Text: encoders, decoders, and both together."""

from collections.abc import Iterator, Mapping

from tests.models.architecture import Architecture
from tests.zoo.entries import BOTH, LENGTH, TEXT, VOCABULARY, Settings, batch_of, entry, ids, mask

ENCODERS: Mapping[str, Settings] = {
    "Bert": {},
    "Roberta": {},
    "XLMRobertaXL": {},
    "Electra": {"embedding_size": 16},
    "RobertaPreLayerNorm": {},
    "MPNet": {},
    "ConvBert": {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1},
    "Ernie": {},
    "LayoutLM": {},
    "BigBird": {"attention_type": "original_full"},
    "RoFormer": {},
    "DebertaV2": {},
    "Deberta": {},
    "SqueezeBert": {"embedding_size": 16},
    "MobileBert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "Albert": {"embedding_size": 8, "num_hidden_layers": 2},
    "ModernBert": {
        "num_hidden_layers": 2,
        "embedding_dropout": 0.0,
        "attention_dropout": 0.0,
        "mlp_dropout": 0.0,
        "local_attention": 4,
        "cls_token_id": 0,
        "sep_token_id": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "Esm": {"mask_token_id": 4},
    "FNet": {},
    "Funnel": {
        "block_sizes": [1, 1],
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    },
    "XLNet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "dropout": 0.0, "summary_last_dropout": 0.0},
    "XLM": {
        "emb_dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "summary_first_dropout": 0.0,
        "pad_index": 1,
    },
}
# What these configurations refuse to be told.
WITHOUT = {"XLNet": ("max_position_embeddings",), "Funnel": ("num_hidden_layers",)}
CAUSAL: Settings = {
    **TEXT,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "use_cache": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
GPT: Settings = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
DECODERS: Mapping[str, Settings] = {
    "Llama": {},
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 4},
    "Gemma": {"head_dim": 4},
    "Gemma2": {"num_hidden_layers": 2, "head_dim": 4, "sliding_window": 4},
    "Phi": {"partial_rotary_factor": 0.5},
    "Phi3": {},
    "StableLm": {},
    "Starcoder2": {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    "Cohere": {},
    "Olmo2": {},
    "Glm": {"head_dim": 4},
    "GPTNeoX": {},
    "Persimmon": {},
    "Nemotron": {},
    "Bloom": {"n_layer": 1, "n_head": 2},
    "Falcon": {},
    "Mpt": {"d_model": 16, "n_heads": 2, "n_layers": 1, "max_seq_len": 32, "expansion_ratio": 2},
    "GPTBigCode": GPT,
    "CodeGen": {**GPT, "rotary_dim": 4},
    "GPTJ": {**GPT, "rotary_dim": 4},
    "GPTNeo": {
        "num_hidden_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "resid_dropout": 0.0,
        "embed_dropout": 0.0,
    },
    "OPT": {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0},
    "BioGpt": {"activation_dropout": 0.0, "layerdrop": 0.0},
    "Mamba": {"state_size": 4},
    "Rwkv": {"num_hidden_layers": 2, "attention_hidden_size": 16},
}
HEADS = {"OpenAIGPTLMHeadModel": GPT, "GPT2LMHeadModel": GPT}
T5: Settings = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "use_cache": False,
    "local_radius": 4,
}
LATENTS: Settings = {
    **TEXT,
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "max_position_embeddings": LENGTH,
}


def text() -> Iterator[Architecture]:
    """Classifiers of texts, language models, and translators."""
    masked, plain = batch_of(input_ids=ids, attention_mask=mask), batch_of(input_ids=ids)
    both = batch_of(input_ids=ids, attention_mask=mask, decoder_input_ids=lambda n: ids(n, 4))
    for name, settings in ENCODERS.items():
        shared = {k: v for k, v in TEXT.items() if k not in WITHOUT.get(name, ())}
        yield entry(f"{name}ForSequenceClassification", {**shared, **settings}, plain if name == "FNet" else masked)
    for name, settings in DECODERS.items():
        yield entry(f"{name}ForCausalLM", {**CAUSAL, **settings}, plain if name == "Rwkv" else masked)
    for name, settings in HEADS.items():
        yield entry(name, {**CAUSAL, **settings}, masked)
    for name in ("Bart", "MBart", "Pegasus", "BlenderbotSmall", "M2M100", "PLBart"):
        yield entry(f"{name}ForConditionalGeneration", BOTH, both)
    yield entry("MarianMTModel", BOTH, both)
    for name in ("T5", "MT5", "UMT5", "LongT5"):
        layers = 1 if name == "T5" else 2  # later layers share the first one's positions
        yield entry(f"{name}ForConditionalGeneration", {**T5, "num_layers": layers}, both)
    yield entry("PerceiverForSequenceClassification", LATENTS, batch_of(inputs=ids, attention_mask=mask))
