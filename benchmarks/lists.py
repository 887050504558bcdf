"""Does a model look things up: what it says to lists, orders and talks told anew, by language and wording."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from sb3_llm.folder import write_text
from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain.lists import listed
from sb3_llm.pretrain.orders import ordered
from sb3_llm.pretrain.sayings import talk
from sb3_llm.pretrain.stories import Line
from sb3_llm.words.wording import AXES, LANGUAGES, default_wording, draw_wording, held_out_wording

RESULTS = Path(__file__).parent / "results" / "lists.json"
SEED = 12_345  # no corpus is told with it
Tell = Callable[[np.random.Generator], Line]


def tellings(language: str) -> dict[str, Tell]:
    """:return: ways to tell a line, by the wording's name."""
    held = {
        f"held-out {axis}": lambda rng, axis=axis: listed(rng, held_out_wording(axis, rng, language)) for axis in AXES
    }
    return {
        "canonical": lambda rng: listed(rng, default_wording(language)),
        "drawn": lambda rng: listed(rng, draw_wording(rng, language)),
        **held,
        "orders": lambda rng: ordered(rng, draw_wording(rng, language)),
        "talks": partial(talk, language=language),
    }


def right_answers(model: Any, tokenizer: Any, lines: Sequence[Line]) -> float:
    """:return: the share of answers of which every token is the likeliest one, with the right answers before it."""
    right = []
    for line in lines:
        text = ""
        for prompt, completion in line.exchanges():
            text += prompt
            begin = len(tokenizer(text)["input_ids"])
            text += completion
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                likeliest = model(ids).logits[0].argmax(-1)
            right.append(bool((likeliest[begin - 1 : -1] == ids[0, begin:]).all()))
    return float(np.mean(right))


def lists(
    model: Annotated[str, typer.Option(help='"embedded", or a folder.')] = "embedded",
    lines: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 60,
    out: Annotated[Path, typer.Option(help="Where the shares go.")] = RESULTS,
) -> None:
    """Share of right answers for each language and wording: about two minutes."""
    lm, tokenizer = load_language_model(model)
    found: dict[str, dict[str, float]] = {}
    for language in LANGUAGES:
        for name, tell in tellings(language).items():
            rng = np.random.default_rng(SEED)
            share = right_answers(lm, tokenizer, [tell(rng) for _ in range(lines)])
            found.setdefault(language, {})[name] = share
            print(f"{language} {name}: {share:.2f}", flush=True)
    write_text(out, json.dumps({"model": model, "lines": lines, "right": found}, indent=1) + "\n")
