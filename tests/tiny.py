"""Tiny language models and tokenizers, built from configurations on the spot: no test needs a download."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# Tiny tensors gain nothing from threads, and threads that wait for each other lose minutes on a busy machine.
torch.set_num_threads(1)

PHRASES = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done"]
CORPUS = [
    "Goal: open the door. You see a red key 2 steps left and 1 step forward.",
    "You see a wall 3 steps forward. You carry a blue ball. Action:",
    *[f"You see a grey box. Action: {phrase}\n" for phrase in [*PHRASES, "go", "wait", "left"]],
] * 4
PROMPTS = [
    "You see a red key 2 steps left. Action:",
    "Goal: open the door. You see a wall 3 steps forward. You carry a blue ball. Action:",
    "A wall. Action:",
]


def byte_level_tokenizer(bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """GPT-2's kind: words split with their leading space, any byte can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, bos, eos, pre_tokenizers.ByteLevel.alphabet(), vocab_size=340)


def metaspace_tokenizer(bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """SentencePiece's kind: every word starts with a mark, also the first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _trained(tokenizer, bos, eos, sorted(set("".join(CORPUS))), vocab_size=160, unk_token="<unk>")


def unsplit_tokenizer(bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """BPE that merges over spaces and punctuation: tokens span the join of prompt and phrase."""
    return _trained(Tokenizer(models.BPE()), bos, eos, sorted(set("".join(CORPUS))), vocab_size=300)


def paragraph_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's kind, with a token for an empty line: it falls apart in front of a letter, not in front of a blank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _trained(
        tokenizer, False, False, pre_tokenizers.ByteLevel.alphabet(), 340, corpus=[*CORPUS, *["A wall.\n\n"] * 99]
    )


def stripping_tokenizer() -> PreTrainedTokenizerFast:
    """Drops white space at the end, as T5 does: a newline can be no end mark."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Strip(left=False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _trained(tokenizer, False, False, pre_tokenizers.ByteLevel.alphabet(), vocab_size=340)


def _trained(
    tokenizer: Tokenizer,
    bos: bool,
    eos: bool,
    alphabet: Sequence[str],
    vocab_size: int,
    corpus: Sequence[str] = CORPUS,
    **special: str,
) -> PreTrainedTokenizerFast:
    names = ["<s>", "</s>", *special.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=names, initial_alphabet=list(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **special)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": byte_level_tokenizer,
    "bytes+bos": lambda: byte_level_tokenizer(bos=True),
    "bytes+bos+eos": lambda: byte_level_tokenizer(bos=True, eos=True),
    "metaspace": metaspace_tokenizer,
    "metaspace+bos": lambda: metaspace_tokenizer(bos=True),
}


def tiny_config(kind: str, vocab_size: int, **options: Any) -> PreTrainedConfig:
    """Configuration of two small layers; ``options`` override it."""
    small = {"vocab_size": vocab_size, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    plain = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    context = {"max_position_embeddings": 256}
    llama = {**small, **context, "intermediate_size": 48, "num_key_value_heads": 2}
    gpt2 = {"vocab_size": vocab_size, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 256}
    kinds: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
        "llama": (LlamaConfig, llama),
        "gpt2": (GPT2Config, gpt2),
        "opt": (OPTConfig, {**small, **context, "ffn_dim": 48, "word_embed_proj_dim": 32}),
        "mistral": (MistralConfig, {**llama, "sliding_window": 8}),
        "bloom": (BloomConfig, {"vocab_size": vocab_size, "hidden_size": 32, "n_head": 4, "n_layer": 2}),
        "mpt": (MptConfig, {"vocab_size": vocab_size, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}),
        "gpt_neo": (
            GPTNeoConfig,
            {**small, **context, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        ),
    }
    config_class, defaults = kinds[kind]
    for key in ("num_attention_heads", "num_hidden_layers"):
        if kind == "gpt_neo":
            defaults.pop(key)
    return config_class(**{**plain, **defaults, **options})


def tiny_lm(
    kind: str, vocab_size: int, dtype: torch.dtype = torch.float64, std: float = 0.3, seed: int = 0, **options: Any
) -> PreTrainedModel:
    """
    Random language model whose outputs are far from uniform: a default initialisation hides errors.

    :param kind: architecture, a key of :func:`tiny_config`
    :param std: spread of every weight matrix
    """
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(tiny_config(kind, vocab_size, **options))
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if dtype == torch.float64:
        _widen_norms(lm)
    return lm.to(dtype).eval()


def _widen_norms(lm: PreTrainedModel) -> None:
    """Let Llama's norm compute in float64: its own rounds to float32 on the way back, 1e-7 in every gradient."""
    for name, module in list(lm.named_modules()):
        if type(module).__name__ in ("LlamaRMSNorm", "MistralRMSNorm"):
            norm = torch.nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon)
            norm.weight = module.weight
            lm.set_submodule(name, norm)


def save_language_model(folder: Path, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> str:
    """Save both as a person would, and return the folder's name; without a tokenizer, only the model."""
    lm.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)
