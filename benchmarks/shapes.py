"""Random models and token rows of the sizes that scoring is measured at."""

import random
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from sb3_llm.scoring import Row

SIZES = {"6M": (256, 6, 4, 688), "26M": (512, 8, 8, 1376)}  # hidden size, layers, heads, width of the MLP
PHRASES = {
    7: ((1, 2), (1, 3), (4, 5), (6, 7), (8, 9), (10,), (11,)),  # as "turn left", "turn right", "pick up", ..., "drop"
    20: tuple((20 + place // 2, 40 + place) for place in range(14)) + tuple((60 + place,) for place in range(6)),
}


@dataclass(frozen=True)
class Setting:
    """What one table is measured on."""

    model: str  # key of SIZES
    vocabulary: int
    phrases: int  # key of PHRASES
    batch: int

    @property
    def prefix(self) -> int:
        """Tokens that all prompts start with."""
        return 90 if self.phrases == 7 else 120

    def __str__(self) -> str:
        return f"{self.model} model, vocabulary {self.vocabulary:,}, {self.phrases} phrases, batch of {self.batch}"


SETTINGS = (
    Setting("6M", 4096, 7, 32),
    Setting("26M", 4096, 7, 8),
    Setting("6M", 50257, 7, 8),
    Setting("26M", 50257, 7, 4),
    Setting("6M", 4096, 20, 16),
)


def random_lm(size: str, vocabulary: int) -> PreTrainedModel:
    """:return: a Llama with random weights, wide enough for outputs that are not uniform."""
    hidden, layers, heads, width = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=width,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config).eval()


def half_billion_lm() -> PreTrainedModel:
    """:return: a Qwen2 of 0.5 B parameters with random bfloat16 weights."""
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16).eval()


def random_rows(setting: Setting, seed: int = 0) -> list[Row]:
    """:return: prompts that share a start, the same for every seed, and go on for 30 to 60 tokens."""
    rng = random.Random(0)
    start = tuple(rng.randrange(100, setting.vocabulary) for _ in range(setting.prefix))
    rng = random.Random(seed)
    lengths = [rng.randrange(30, 61) for _ in range(setting.batch)]
    return [
        Row(start + tuple(rng.randrange(100, setting.vocabulary) for _ in range(length)), PHRASES[setting.phrases])
        for length in lengths
    ]
