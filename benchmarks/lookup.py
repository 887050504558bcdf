"""What the layout of the first weights is worth: how soon a small model says again words that it never read."""

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
from sb3_llm.pretrain.orders import ordered
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.tokenizer import train_tokenizer
from sb3_llm.pretrain.train import build_model, make_optimizers, set_learning_rates, token_losses
from sb3_llm.words.wording import default_wording

RESULTS = Path(__file__).parent / "results" / "lookup.json"
LINES, TESTED, TOKENS, EVERY = 4000, 200, 1600, 50
LAYOUTS: dict[str, Callable[[LlamaForCausalLM], None]] = {
    "ordinary weights": lambda model: None,
    "like for like": like_for_like,
    "look back and copy": look_back,
    "both": plant,
}


def lookup(
    steps: Annotated[int, typer.Option(min=1)] = 200,
    heads: Annotated[int, typer.Option(help="Of attention; more are narrower.", min=1)] = PretrainConfig.heads,
    out: Annotated[Path, typer.Option(help="Where the accuracies go.")] = RESULTS,
) -> None:
    """Train a small model on orders, each a list of what invented phrases mean and one to say: about 10 minutes."""
    found = {name: dict(learning(layout, steps, heads)) for name, layout in LAYOUTS.items()}
    write_text(out, json.dumps(found, indent=1) + "\n")
    Console().print(table(found))


def table(found: dict[str, dict[int, float]]) -> Table:
    """:return: a line for each layout, a column for each time it was tested."""
    shown = Table("steps", *map(str, next(iter(found.values()))), title="Share of right answers to unread orders")
    for name, right in found.items():
        shown.add_row(name, *(f"{share:.3f}" for share in right.values()))
    return shown


def learning(
    layout: Callable[[LlamaForCausalLM], None], steps: int, heads: int = PretrainConfig.heads
) -> Iterator[tuple[int, float]]:
    """:return: steps done and share of right answers, every so many steps."""
    rng, wording = np.random.default_rng(0), default_wording()
    lines = [ordered(rng, wording) for _ in range(LINES)]
    config = PretrainConfig(
        steps=steps, heads=heads, batch_tokens=TOKENS, context=512, warmup_steps=20, embedding_warmup_steps=steps
    )
    tokenizer = train_tokenizer([line.text() for line in lines], config.vocab_size, config.context)
    examples = encode(lines, tokenizer)
    model = build_model(config, tokenizer, layout)
    stream = batches(examples.lengths(), np.arange(TESTED, LINES), config.batch_tokens, config.seed)
    optimizers = make_optimizers(model, config)
    for step, batch in zip(range(steps), stream, strict=False):
        ids, targets, weights = collate(examples, batch, config.prompt_weight)
        set_learning_rates(optimizers, step, config)
        losses = token_losses(model, ids, targets)
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            yield step + 1, right_answers(model, examples)


@torch.no_grad()
def right_answers(model: LlamaForCausalLM, examples: Examples) -> float:
    """:return: share of the tested lines' answers of which every token is the likeliest."""
    ids, targets, weights = collate(examples, np.arange(TESTED), prompt_weight=0.5)
    answers, right = weights == 1.0, model(input_ids=ids).logits.argmax(-1) == targets
    number = torch.cumsum(answers & ~answers.roll(1, dims=1), dim=1) + 1000 * torch.arange(len(ids))[:, None]
    whole = [right[answers & (number == each)].all() for each in number[answers].unique()]
    return float(torch.stack(whole).float().mean())
