"""What the layout of the first weights is worth: how soon a small model looks up what is asked for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM

from sb3_llm.folder import write_text
from sb3_llm.pretrain.data import Examples, batches, collate, encode
from sb3_llm.pretrain.initial import like_for_like, look_back, plant
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.stories import Exchange, Line
from sb3_llm.pretrain.tokenizer import train_tokenizer
from sb3_llm.pretrain.train import build_model, learning_rate, make_optimizers, token_losses

RESULTS = Path(__file__).parent / "results" / "lookup.json"
CARDS, TESTED, TOKENS, EVERY = 4000, 200, 1200, 50
HEADS, QUERIES = 5, 6
NAMES = [f"{color} {kind}" for color in ("red", "green", "blue", "grey") for kind in ("key", "ball", "box")]
WAYS = {"ahead": "go forward", "left": "turn left", "right": "turn right"}
LAYOUTS: dict[str, Callable[[LlamaForCausalLM], None]] = {
    "ordinary weights": lambda model: None,
    "like for like": like_for_like,
    "look back": look_back,
    "both": plant,
}


def lookup(
    steps: Annotated[int, typer.Option(min=1)] = 200,
    heads: Annotated[int, typer.Option(help="Of attention; more are narrower.", min=1)] = HEADS,
    out: Annotated[Path, typer.Option(help="Where the accuracies go.")] = RESULTS,
) -> None:
    """Train a small model on lists of two or three things and questions about them: about 5 minutes."""
    found = {name: dict(learning(layout, steps, heads)) for name, layout in LAYOUTS.items()}
    write_text(out, json.dumps(found, indent=1) + "\n")
    Console().print(table(found))


def table(found: dict[str, dict[int, float]]) -> Table:
    """:return: a line for each layout, a column for each time it was tested."""
    shown = Table("steps", *map(str, next(iter(found.values()))), title="Share of right answers on unread cards")
    for name, right in found.items():
        shown.add_row(name, *(f"{share:.3f}" for share in right.values()))
    return shown


def learning(layout: Callable[[LlamaForCausalLM], None], steps: int, heads: int = HEADS) -> Iterator[tuple[int, float]]:
    """:return: steps done and share of right answers, every so many steps."""
    rng = np.random.default_rng(0)
    cards = [card(rng) for _ in range(CARDS)]
    config = PretrainConfig(steps=steps, heads=heads, batch_tokens=TOKENS, vocab_size=400, context=256, warmup_steps=20)
    tokenizer = train_tokenizer([line.text() for line in cards], config.vocab_size, config.context)
    examples = encode(cards, tokenizer)
    model = build_model(config, tokenizer, layout)
    stream = batches(examples.lengths(), np.arange(TESTED, CARDS), config.batch_tokens, config.seed)
    optimizers = make_optimizers(model, config)
    for step, batch in zip(range(steps), stream, strict=False):
        ids, targets, weights = collate(examples, batch, config.prompt_weight)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, config)
        losses = token_losses(model, ids, targets)
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            yield step + 1, right_answers(model, examples)


def card(rng: np.random.Generator) -> Line:
    """:return: two or three things and the way to each, and then which way to go for one of them, several times."""
    listed = [NAMES[place] for place in rng.permutation(len(NAMES))[: rng.integers(2, 4)]]
    way = {name: str(rng.choice(list(WAYS))) for name in listed}
    told = ", ".join(f"{name} way {way[name]} {rng.integers(1, 14)}" for name in listed)
    asked = [str(rng.choice(listed)) for _ in range(QUERIES)]
    first, *more = (Exchange(f"Goal: go to the {name}.\nAction:", f" {WAYS[way[name]]}\n") for name in asked)
    return Line(f"Seen: {told}. {first.prompt}", first.completion, tuple(more))


@torch.no_grad()
def right_answers(model: LlamaForCausalLM, examples: Examples) -> float:
    """:return: share of the tested cards' answers of which every token is the likeliest."""
    ids, targets, weights = collate(examples, np.arange(TESTED), prompt_weight=0.5)
    answers, right = weights == 1.0, model(input_ids=ids).logits.argmax(-1) == targets
    number = torch.cumsum(answers & ~answers.roll(1, dims=1), dim=1) + 1000 * torch.arange(len(ids))[:, None]
    whole = [right[answers & (number == each)].all() for each in number[answers].unique()]
    return float(torch.stack(whole).float().mean())
