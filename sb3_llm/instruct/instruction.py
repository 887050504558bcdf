"""What a model wrote together with what it was understood as."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sb3_llm.instruct.generating import Written
from sb3_llm.instruct.parsing import Parser


@dataclass(frozen=True)
class Instruction:
    """What the model wrote, and what it was understood as."""

    text: str
    action: int | None  # index of the phrase; None: not understood
    how: str  # as in :class:`~sb3_llm.instruct.Parsed`, or "constrained"
    confidence: float  # of the parse, 0 to 1
    log_prob: float  # of the text as it was written, under the model, in nats
    tokens: int  # that the text has
    plan: tuple[int, ...]  # the action, and those that were to follow it


def as_parsed(written: Written, phrases: Sequence[str]) -> Instruction:
    """
    :param written: freely
    :param phrases: of that prompt; in slots without a phrase there are fewer of them
    :return: what it was understood as
    """
    found = _parser(tuple(phrases)).parse(written.text)
    return Instruction(
        written.text, found.action, found.how, found.confidence, written.log_prob, len(written.ids), found.plan
    )


def as_chosen(written: Written, continuations: Sequence[Sequence[int]]) -> Instruction:
    """
    :param written: inside the phrases
    :param continuations: token ids of the phrases
    :return: the phrase it is; not understood where there was no room to end it
    """
    action = next((index for index, ids in enumerate(continuations) if tuple(ids) == written.ids), None)
    how, sure = ("constrained", 1.0) if action is not None else ("not understood", 0.0)
    plan = () if action is None else (action,)
    return Instruction(written.text, action, how, sure, written.log_prob, len(written.ids), plan)


@lru_cache(maxsize=1024)
def _parser(phrases: tuple[str, ...]) -> Parser:
    """Phrases that come with each observation come back all the time."""
    return Parser(phrases)
