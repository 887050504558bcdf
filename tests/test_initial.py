"""The weights that training begins with: where the first layer looks, and what they are for."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.lookup import QUERIES, card, learning
from sb3_llm.pretrain.initial import plant
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.stories import Line
from sb3_llm.pretrain.tokenizer import train_tokenizer
from sb3_llm.pretrain.train import build_model

torch.set_num_threads(1)

LINES = [Line("one two three", " four\n")] * 20
SMALL = PretrainConfig(hidden_size=64, intermediate_size=96, layers=3, heads=4, vocab_size=300, context=128)


def planted(config: PretrainConfig = SMALL) -> LlamaForCausalLM:
    tokenizer = train_tokenizer([line.text() for line in LINES], config.vocab_size, config.context)
    return build_model(config, tokenizer)


def test_each_head_of_the_first_layer_looks_at_its_own_offset() -> None:
    model = planted(PretrainConfig())
    model.config._attn_implementation = "eager"
    ids = torch.randint(0, 250, (3, 60), generator=torch.Generator().manual_seed(0))
    looks = model(ids, output_attentions=True).attentions[0]  # (B, H, S, S)
    for head in range(looks.shape[1]):
        offset = head + 1
        at_it = looks[:, head].diagonal(-offset, dim1=-2, dim2=-1)
        assert at_it.mean() > 0.7, offset
        assert (looks[:, head, offset:].argmax(-1) == torch.arange(60 - offset)).float().mean() > 0.9


def test_the_heads_copy_into_the_same_directions() -> None:
    attention = planted().model.layers[0].self_attn
    copies = [
        o @ v for o, v in zip(attention.o_proj.weight.split(16, dim=1), attention.v_proj.weight.split(16), strict=True)
    ]
    for other in copies[1:]:
        torch.testing.assert_close(other, copies[0])
    assert torch.linalg.matrix_rank(copies[0]) == 16


def test_above_it_like_looks_for_like() -> None:
    first, *others = (layer.self_attn for layer in planted().model.layers)
    assert not torch.equal(first.q_proj.weight, first.k_proj.weight)
    for attention in others:
        assert torch.equal(attention.q_proj.weight, attention.k_proj.weight)
        assert attention.q_proj.weight is not attention.k_proj.weight
        assert not attention.q_proj.bias.any()


@pytest.mark.parametrize(("width", "heads"), [(16, 8), (16, 2), (48, 3)])
def test_heads_of_any_width_are_laid_out(width: int, heads: int) -> None:
    model = planted(PretrainConfig(hidden_size=width, intermediate_size=16, layers=2, heads=heads, vocab_size=300))
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert model.model.layers[0].self_attn.k_proj.bias.any()


# --- what it is for


def test_a_card_is_answered_by_its_list() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        line = card(rng)
        assert len(line.exchanges()) == QUERIES
        for prompt, phrase in line.exchanges():
            name = prompt.partition("Goal: go to the ")[2].partition(".")[0]
            assert f"{name} way {phrase.split()[-1].replace('forward', 'ahead')}" in line.prompt


@pytest.mark.slow
def test_it_learns_to_look_up_what_ordinary_weights_do_not() -> None:
    assert dict(learning(plant, 200))[200] > 0.97
    assert dict(learning(lambda model: None, 200))[200] < 0.9
