"""Does the language model still read its language? Perplexity on text that it was not trained on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.errors import SetupError
from sb3_llm.language_model import context_length

#: For the embedded model, which reads nothing but the words of its small worlds: prompts and an expert's phrases in the
#: form of its corpus, told by ``sb3_llm.pretrain.stories`` from levels and test mazes that the corpus leaves out. An
#: agent trained on these very tasks meets such prompts, and gets better at the phrases in them.
STORIES = (
    "Facing south, carrying a blue key. Ahead 0 free then wall, left 2 free then locked blue door, right 1 free then "
    "wall. Seen: locked blue door way left 3 at 3 left. Untried: locked blue door way left 4 at 3 left, opening way "
    "left 7 at 3 behind 2 right. Here 1 time. Last actions: pick up, go forward. Goal: pick up the purple box.\n"
    "Action: turn left\n",
    "Facing north, carrying nothing. Ahead 0 free then wall, left 0 free then closed red door, right 0 free then "
    "closed purple door. Seen: closed red door way left 1 at 1 left, closed purple door way right 1 at 1 right. "
    "Before: locked blue door way left 5 at 2 behind 1 right. Untried: closed red door way left 2 at 1 left, closed "
    "purple door way right 2 at 1 right. Here 1 time. Last actions: go forward, go forward. Goal: pick up the ball.\n"
    "Action: turn left\n",
    "Facing south, carrying nothing. Ahead 1 free then wall, left 2 free then locked purple door, right 1 free then "
    "wall. Seen: locked purple door way left 3 at 3 left. Untried: opening way left 2 at 1 behind. Here 1 time. Last "
    "actions: none. Goal: pick up the green box.\nAction: turn left\n",
    "Facing east, carrying nothing. Ahead 2 free then wall, left 0 free then wall, right 3 free. Seen: nothing. "
    "Untried: opening way right 4 at 1 behind 2 right. Here 1 time. Last actions: go forward, go forward. Goal: reach "
    "the goal.\nAction: turn right\n",
    "At row 1 column 1. North wall. South wall. East open to south east. West wall. Untried: east 1 step, east 2 "
    "steps. Here 1 time. Last actions: none. Goal: reach the goal, 4 south 4 east.\nAction: east\n",
    "At row 2 column 4. North walked, open to west. South open to south. East open to north south. West open to south. "
    "Untried: south 1 step, east 1 step. Here 1 time. Last actions: east, south. Goal: reach the goal, 3 south 1 "
    "east.\nAction: south\n",
)

#: For every other model: plain sentences, written for this package. A hundred words tell that a model has forgotten how
#: to speak; they are no benchmark of how well it does.
ENGLISH = (
    "My grandmother kept a small garden behind the house, where she grew beans, onions and a few roses. Every morning "
    "before breakfast she went out to see what the night had done to them.",
    "When the last train had left, the station fell quiet. The man at the counter put away his cups, switched off the "
    "lights one after another and walked home along the river.",
    "Water boils at a lower temperature on a mountain than at the sea, because the air presses on it less. That is why "
    "rice takes longer to cook in a hut at three thousand metres.",
    "She read the letter twice, folded it and said nothing for a while. Then she asked whether there was still time to "
    "answer before the weekend.",
)


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, lm: PreTrainedModel) -> list[list[int]]:
    """
    :param texts: what to measure on; each is read on its own
    :param tokenizer: the model's; it adds what it adds before a text
    :param lm: whose context they are cut to: a longer text goes on in a part of its own
    :return: token ids, one list for each part
    :raises SetupError: if there is nothing in them to predict
    """
    proper = not isinstance(texts, str) and all(isinstance(text, str) for text in texts)
    ids: Any = [tokenizer(text)["input_ids"] for text in texts] if proper else []
    size = context_length(lm.config) or max(map(len, ids), default=1)
    parts = [row[start : start + size] for row in ids for start in range(0, len(row), size)]
    parts = [part for part in parts if len(part) > 1]  # a first token has nothing before it
    if not parts:
        raise SetupError(
            f"texts={texts!r}", "a list of texts of two tokens or more", "leave texts out, or pass some sentences"
        )
    return parts


@torch.no_grad()
def perplexity(lm: PreTrainedModel, parts: Sequence[Sequence[int]], given: Sequence[int] | None = None) -> float:
    """
    Perplexity per token: e to the mean cross-entropy over all tokens but the first of each part.

    :param lm: causal language model; draws random numbers if its dropout is on
    :param parts: what :func:`encode_texts` returned
    :param given: how many tokens at the start of each part are only read; one each by default
    :return: 1 for a model that is sure of each token and right, the number of tokens it knows for one that guesses
    """
    # One part at a time: padding would cost more than it saves in texts of all lengths, and (S, V) stays small.
    starts = [1] * len(parts) if given is None else given
    losses = torch.stack([_loss(lm, list(part), start) for part, start in zip(parts, starts, strict=True)])
    return (losses.sum() / sum(len(part) - start for part, start in zip(parts, starts, strict=True))).exp().item()


def _loss(lm: PreTrainedModel, part: list[int], start: int) -> Tensor:
    ids = torch.tensor([part], device=lm.device)
    logits = lm(input_ids=ids, use_cache=False).logits[0, start - 1 : -1]
    return cross_entropy(logits.double(), ids[0, start:], reduction="sum")
