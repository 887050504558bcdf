"""The weights that training begins with: the first layers look back and copy, the others look for their like."""

import math

import torch
from transformers import LlamaForCausalLM

EMBEDDING = 0.08  # standard deviation: near one over the root of the width, so that what is read is not soon drowned
FAST_TURNS = 4  # rotary frequencies that tell neighbours apart: the highest ones
LOGIT = 5.0  # of each of these frequencies, where a head looks at its own offset
COPIERS = 3  # heads of the first layer that look one token back, and as many of the second that copy
BEFORE = 0.4  # the token before, as a copier's partner adds it to the stream
ECHO = 0.2  # the tokens before that; about the size of an embedding
COPY = 4.0  # what stood next the last time, as a copier adds it to the stream
MATCH = 4.0  # a copier's queries and keys times this
LIKENESS = 4.0  # queries and keys of the layers above times this


def plant(model: LlamaForCausalLM) -> None:
    """
    Lay out the attention so that a reader of lists is near.

    The heads of the first layer look a few tokens back, by biases alone. The first :data:`COPIERS` of them look one
    token back, each at its own part of what stands there; the others one token, two, and so on, all copying into the
    same directions, so that a word and those before it can be compared. Of the second layer, as many heads look for the
    place whose token before is the present one, and say what stands there: with the first layer's, the induction
    circuit of Olsson et al. (arXiv 2209.11895), by which a word that was never read can be said again. In all other
    heads above, queries and keys start equal, so that like looks for like: the mimetic initialisation of Trockman and
    Kolter (arXiv 2305.09828). From ordinary weights a model of this size comes to copy much later (`python -m
    benchmarks lookup`). Everything is trained on as usual.

    :param model: with fresh weights and biases in its attention; changed in place
    """
    spread_out(model)
    like_for_like(model)
    look_back(model)


@torch.no_grad()
def spread_out(model: LlamaForCausalLM) -> None:
    """Let the embeddings be of about unit length."""
    embedding = model.model.embed_tokens.weight
    embedding.mul_(EMBEDDING / embedding.std())


@torch.no_grad()
def like_for_like(model: LlamaForCausalLM) -> None:
    """Let the queries of every layer but the first equal its keys."""
    for layer in model.model.layers[1:]:
        layer.self_attn.q_proj.weight.mul_(LIKENESS)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


@torch.no_grad()
def look_back(model: LlamaForCausalLM) -> None:
    """Let each head of the first layer look at its own offset, and the second layer's first heads copy."""
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    size = width // heads
    parts = torch.linalg.qr(torch.randn(width, width))[0].view(heads, size, width)  # orthonormal rows
    copiers = min(COPIERS, (heads - 1) // 2)  # each needs a part to read and another to write to
    before, shared = parts[copiers : 2 * copiers], parts[2 * copiers]
    for head in range(heads):
        if head < copiers:
            _look(model, head, 1, parts[head], BEFORE * before[head])
        else:
            _look(model, head, head - copiers + 1, shared, ECHO * shared)
    for head in range(copiers if len(model.model.layers) > 1 else 0):
        _copy(model, head, parts[head], before[head])


def _look(model: LlamaForCausalLM, head: int, offset: int, read: torch.Tensor, written: torch.Tensor) -> None:
    """A head of the first layer looks so many tokens back and copies what it reads there."""
    attention, rows = model.model.layers[0].self_attn, slice(head * len(read), (head + 1) * len(read))
    key = torch.zeros(len(read))
    key[: min(FAST_TURNS, len(read) // 2)] = math.sqrt(LOGIT * math.sqrt(len(read)))
    attention.k_proj.bias[rows] = key
    attention.q_proj.bias[rows] = _turned(key, -offset * model.model.rotary_emb.inv_freq.float())
    attention.v_proj.weight[rows] = read
    attention.o_proj.weight[:, rows] = written.T


def _copy(model: LlamaForCausalLM, head: int, read: torch.Tensor, before: torch.Tensor) -> None:
    """A head of the second layer looks where the token before is the present one, and says what stands there."""
    attention, rows = model.model.layers[1].self_attn, slice(head * len(read), (head + 1) * len(read))
    attention.q_proj.weight[rows] = MATCH * read
    attention.k_proj.weight[rows] = MATCH * before
    attention.v_proj.weight[rows] = read
    attention.o_proj.weight[:, rows] = COPY * read.T


def _turned(vector: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """:return: the vector after rotary position embedding by these angles, in the layout of transformers' Llama."""
    left, right = vector.chunk(2)
    return torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()])
