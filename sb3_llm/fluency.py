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
    "Goal: pick up the ball. Facing west, carrying nothing. Ahead 0 free then wall, left 0 free then wall, right 2 "
    "free then wall. Seen: closed red door 1 ahead 2 right. Floor: 0 ahead middle to 2 right; 1 ahead 2 right. "
    "Last action: none.\nAction: turn right\n",
    "Goal: pick up the red box. Facing north, carrying nothing. Ahead 2 free then wall, left 0 free then yellow key, "
    "right 1 free then locked yellow door. Seen: yellow key 1 left, locked yellow door 2 right. Floor: 0 ahead 2 left "
    "to 2 right; 1 to 2 ahead 2 left to 1 right. Last action: go forward.\nAction: turn left\n",
    "Goal: pick up the ball. Facing south, carrying nothing. Ahead 2 free then wall, left 2 free then wall, right 1 "
    "free then blue key. Seen: open purple door 1 left, open red door 1 right, blue key 2 right, closed grey door 1 "
    "ahead 2 right, locked blue door 2 ahead 1 left. Floor: 0 ahead 2 left to 2 right; 1 ahead middle; 1 ahead 2 "
    "right; 2 ahead 1 left to middle. Last action: turn right.\nAction: turn right\n",
    "Goal: reach the goal. Facing east, carrying nothing. Ahead 4 free then wall, left 0 free then wall, right 0 free "
    "then wall. Seen: nothing. Floor: 0 to 3 ahead middle; 4 ahead middle to 3 right. Last action: turn left.\n"
    "Action: go forward\n",
    "Goal: reach the goal, 4 south 4 east. At row 1 column 1. North wall. South open to south. East open to a dead "
    "end. West wall. Last action: none.\nAction: south\n",
    "Goal: reach the goal, 3 south 2 east. At row 2 column 3. North open to a dead end. South walked, open to east "
    "west. East open to north east. West wall. Last action: north.\nAction: east\n",
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
def perplexity(lm: PreTrainedModel, parts: Sequence[Sequence[int]]) -> float:
    """
    Perplexity per token: e to the mean cross-entropy over all tokens but the first of each part.

    :param lm: causal language model; draws random numbers if its dropout is on
    :param parts: what :func:`encode_texts` returned
    :return: 1 for a model that is sure of each token and right, the number of tokens it knows for one that guesses
    """
    # One part at a time: padding would cost more than it saves in texts of all lengths, and (S, V) stays small.
    losses = torch.stack([_loss(lm, torch.tensor([part], device=lm.device)) for part in parts])
    return (losses.sum() / sum(len(part) - 1 for part in parts)).exp().item()


def _loss(lm: PreTrainedModel, ids: Tensor) -> Tensor:
    logits = lm(input_ids=ids, use_cache=False).logits[0, :-1]  # (S - 1, V)
    return cross_entropy(logits.double(), ids[0, 1:], reduction="sum")
