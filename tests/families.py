"""A tiny language model of every family that scoring is checked on, and float64 all the way through them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY, CONTEXT, WINDOW = 60, 64, 8

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GATED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48}
BOTH = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
OLD = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}

#: Family -> configuration class and its options.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**OLD, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": CONTEXT}),
    "gpt_neox": ("GPTNeoXConfig", {**SMALL, "intermediate_size": 48}),
    "opt": ("OPTConfig", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("LlamaConfig", GATED),
    "qwen2": ("Qwen2Config", GATED),
    "qwen3": ("Qwen3Config", {**GATED, "head_dim": 8}),
    "phi": ("PhiConfig", {**SMALL, "intermediate_size": 48}),
    "smollm3": ("SmolLM3Config", GATED),
    "gemma2": ("Gemma2Config", {**GATED, **BOTH, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {**GATED, **BOTH, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "mistral": ("MistralConfig", {**GATED, "sliding_window": WINDOW}),
    "gpt_oss": ("GptOssConfig", {**GATED, **BOTH, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 2}),
    "cohere2": ("Cohere2Config", {**GATED, **BOTH}),
    "olmo2": ("Olmo2Config", GATED),
    "bloom": ("BloomConfig", {**OLD, "hidden_size": 32, "n_head": 4, "n_layer": 2}),
    "falcon": ("FalconConfig", {**SMALL, "alibi": True, "new_decoder_architecture": False, "multi_query": False}),
    "mpt": ("MptConfig", {**OLD, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            **OLD,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": CONTEXT,
        },
    ),
    "lfm2": ("Lfm2Config", {**GATED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "mamba": ("MambaConfig", {**OLD, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
}
#: Without SDPA in this release of transformers.
EAGER_ONLY = {"gemma2", "gpt_oss", "bloom", "mpt", "gpt_neo", "mamba"}


def family_lm(family: str, attention: str | None = None, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Random model whose outputs are far from uniform: a default initialisation hides errors."""
    name, options = FAMILIES[family]
    config = getattr(transformers, name)(**options)
    config._experts_implementation = "eager"  # the grouped matrix product has no float64
    torch.manual_seed(0)
    named = {"attn_implementation": attention} if attention else {}
    lm = AutoModelForCausalLM.from_config(config, **named)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return lm.to(dtype).eval()


class _Widen(TorchFunctionMode):
    """Every cast to float32 becomes one to float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = [torch.float64 if each is torch.float32 else each for each in args]
        kwargs = {key: torch.float64 if each is torch.float32 else each for key, each in (kwargs or {}).items()}
        return func(*args, **kwargs)


@contextmanager
def exact() -> Iterator[None]:
    """Let float64 models compute in float64 throughout: norms and eager softmax cast to float32, 1e-7 of noise."""
    with _Widen():
        yield
