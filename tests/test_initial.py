"""The weights that training begins with: where the first layer looks, and what they are for."""

import pytest
import torch
from transformers import LlamaForCausalLM

from sb3_llm.benchmarks.lookup import learning
from sb3_llm.pretrain.initial import COPIERS, plant
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
        offset = max(1, head - COPIERS + 1)
        at_it = looks[:, head].diagonal(-offset, dim1=-2, dim2=-1)
        assert at_it.mean() > 0.6, offset
        assert (looks[:, head, offset:].argmax(-1) == torch.arange(60 - offset)).float().mean() > 0.9


def test_all_but_the_copiers_partners_copy_into_the_same_directions() -> None:
    attention = planted().model.layers[0].self_attn
    partner, *copies = [
        o @ v for o, v in zip(attention.o_proj.weight.split(16, dim=1), attention.v_proj.weight.split(16), strict=True)
    ]
    for other in copies[1:]:
        torch.testing.assert_close(other, copies[0])
    assert torch.linalg.matrix_rank(copies[0]) == 16
    torch.testing.assert_close(copies[0] @ partner, torch.zeros(64, 64), atol=1e-6, rtol=0)


def test_copiers_find_what_stood_next_the_last_time() -> None:
    """In random words told twice, nothing but the first telling says what comes next in the second."""
    model = planted(PretrainConfig())
    model.config._attn_implementation = "eager"
    once = torch.stack([torch.randperm(250, generator=torch.Generator().manual_seed(seed))[:60] for seed in range(8)])
    ids = torch.cat([once, once], dim=1)
    with torch.no_grad():
        out = model(ids, output_attentions=True)
    looks = out.attentions[1][:, :, 60:].diagonal(1, dim1=-2, dim2=-1)  # at what followed the same word before
    looks = looks.mean((0, 2))
    assert (looks[:COPIERS] > 0.1).all()
    assert (looks[COPIERS:] < 0.02).all(), "the others look there no more than anywhere"
    losses = torch.nn.functional.cross_entropy(out.logits[:, :-1].mT, ids[:, 1:], reduction="none")
    assert losses[:, 60:].mean() < losses[:, :59].mean() - 1


def test_above_it_like_looks_for_like() -> None:
    first, second, *others = (layer.self_attn for layer in planted().model.layers)
    assert not torch.equal(first.q_proj.weight, first.k_proj.weight)
    assert torch.equal(second.q_proj.weight[16:], second.k_proj.weight[16:]), "but for its copier"
    assert not torch.equal(second.q_proj.weight[:16], second.k_proj.weight[:16])
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


@pytest.mark.slow
def test_it_learns_to_copy_sooner_than_ordinary_weights() -> None:
    assert dict(learning(plant, 200))[200] > 0.6
    assert dict(learning(lambda model: None, 200))[200] < 0.4
