"""The weights that training begins with: where the first layer looks, and what they are for."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from sb3_llm.pretrain.data import batches, collate, encode
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.stories import Exchange, Line
from sb3_llm.pretrain.tokenizer import train_tokenizer
from sb3_llm.pretrain.train import build_model, learning_rate, make_optimizers, token_losses

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


def card(rng: np.random.Generator, queries: int = 6) -> Line:
    """Two or three things and the way to each, and then which way to go for one of them, several times."""
    ways = {"ahead": "go forward", "left": "turn left", "right": "turn right"}
    names = [f"{color} {kind}" for color in ("red", "green", "blue", "grey") for kind in ("key", "ball", "box")]
    listed = [names[place] for place in rng.permutation(len(names))[: rng.integers(2, 4)]]
    way = {name: str(rng.choice(list(ways))) for name in listed}
    told = ", ".join(f"{name} way {way[name]} {rng.integers(1, 14)}" for name in listed)
    asked = [str(rng.choice(listed)) for _ in range(queries)]
    first, *more = (Exchange(f"Goal: go to the {name}.\nAction:", f" {ways[way[name]]}\n") for name in asked)
    return Line(f"Seen: {told}. {first.prompt}", first.completion, tuple(more))


def looked_up(laid_out: bool, steps: int) -> float:
    """:return: share of right answers of a model trained for so many steps, on cards it has not read."""
    rng = np.random.default_rng(0)
    cards = [card(rng) for _ in range(3000)]
    tokenizer = train_tokenizer([line.text() for line in cards], 400, 256)
    examples = encode(cards, tokenizer)
    config = PretrainConfig(steps=steps, batch_tokens=1200, warmup_steps=20, vocab_size=400, context=256)
    model = build_model(config, tokenizer)
    if not laid_out:
        model.apply(model._init_weights)
    optimizers = make_optimizers(model, config)
    for step, batch in zip(range(steps), batches(examples.lengths(), np.arange(200, 3000), 1200, 0), strict=False):
        ids, targets, weights = collate(examples, batch, config.prompt_weight)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, config)
        losses = token_losses(model, ids, targets)
        ((losses * weights).sum() / weights.sum()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    ids, targets, weights = collate(examples, np.arange(200), config.prompt_weight)
    with torch.no_grad():
        right = model(ids).logits.argmax(-1) == targets
    return float(right[weights == 1.0].float().mean())


@pytest.mark.slow
def test_it_learns_to_look_up_what_ordinary_weights_do_not() -> None:
    assert looked_up(laid_out=True, steps=150) > 0.97
    assert looked_up(laid_out=False, steps=150) < 0.9
