"""The weights that training begins with: the first layer looks a few tokens back, the others look for their like."""

import math

import torch
from transformers import LlamaForCausalLM

FAST_TURNS = 4  # rotary frequencies that tell neighbours apart: the highest ones
LOGIT = 5.0  # of each of these frequencies, where a head looks at its own offset
ECHO = 0.05  # what is looked at, as it is added to the stream; about the size of an embedding
LIKENESS = 4.0  # of the layers above: queries and keys times this


def plant(model: LlamaForCausalLM) -> None:
    """
    Lay out the attention so that a reader of lists is near.

    Head h of the first layer looks h + 1 tokens back, by biases alone, and copies what it finds; all heads into the
    same directions, so that a word and those before it can be compared. In the layers above, queries and keys start
    equal, so that like looks for like: the mimetic initialisation of Trockman and Kolter (arXiv 2305.09828).
    Together they are nearly the induction circuit of Olsson et al. (arXiv 2209.11895): find the place where these words
    stood before, and say what came next. From ordinary weights a model of this size did not learn to look up which of
    the listed things the mission names; from these it does in 200 small steps (`python -m benchmarks lookup`).
    Everything is trained on as usual.

    :param model: with fresh weights and biases in its attention; changed in place
    """
    look_back(model)
    like_for_like(model)


@torch.no_grad()
def like_for_like(model: LlamaForCausalLM) -> None:
    """Let the queries of every layer but the first equal its keys."""
    for layer in model.model.layers[1:]:
        layer.self_attn.q_proj.weight.mul_(LIKENESS)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


@torch.no_grad()
def look_back(model: LlamaForCausalLM) -> None:
    """Let each head of the first layer look at its own offset and copy what stands there."""
    attention = model.model.layers[0].self_attn
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    size = width // heads
    key = torch.zeros(size)
    key[: min(FAST_TURNS, size // 2)] = math.sqrt(LOGIT * math.sqrt(size))
    turns = model.model.rotary_emb.inv_freq.float()
    copied = torch.linalg.qr(torch.randn(width, size))[0].T  # (size, width), orthonormal rows
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        attention.k_proj.bias[rows] = key
        attention.q_proj.bias[rows] = _turned(key, -(head + 1) * turns)
        attention.v_proj.weight[rows] = copied
        attention.o_proj.weight[:, rows] = ECHO * copied.T


def _turned(vector: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """:return: the vector after rotary position embedding by these angles, in the layout of transformers' Llama."""
    left, right = vector.chunk(2)
    return torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()])
