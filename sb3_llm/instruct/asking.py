"""Instructions from prompts: written, understood, and kept from what is forbidden."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.instruct.generating import MAX_TOKENS, write
from sb3_llm.instruct.instruction import Instruction, as_chosen, as_parsed
from sb3_llm.scoring import Row


@dataclass(frozen=True)
class Limits:
    """
    How instructions are written.

    :param greedy: always the likeliest token
    :param constrained: token by token inside the phrases
    :param max_tokens: how many tokens may be written at most
    :param temperature: of sampling
    """

    greedy: bool = False
    constrained: bool = False
    max_tokens: int = MAX_TOKENS
    temperature: float = 1.0


def instruct(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    offered: Sequence[Sequence[str]],
    allowed: Sequence[Sequence[bool]],
    limits: Limits,
) -> list[Instruction]:
    """
    :param lm: in evaluation mode
    :param tokenizer: its tokenizer
    :param rows: B prompts with their phrases, as token ids
    :param offered: the phrases in words
    :param allowed: whether each may be said
    :param limits: how it is written
    :return: B instructions; none leads to a phrase that is not allowed
    """
    inside = None
    if limits.constrained:
        inside = [_kept(row.continuations, rights) for row, rights in zip(rows, allowed, strict=True)]
    asked = [row.prompt for row in rows]
    written = write(lm, tokenizer, asked, limits.max_tokens, limits.greedy, limits.temperature, inside)
    if limits.constrained:
        return [as_chosen(each, row.continuations) for each, row in zip(written, rows, strict=True)]
    found = [as_parsed(each, list(own)) for each, own in zip(written, offered, strict=True)]
    return [_within(each, rights) for each, rights in zip(found, allowed, strict=True)]


def _kept(phrases: Sequence[tuple[int, ...]], rights: Sequence[bool]) -> list[tuple[int, ...]]:
    return [ids for ids, right in zip(phrases, rights, strict=True) if right]


def _within(found: Instruction, rights: Sequence[bool]) -> Instruction:
    """A plan ends before its first forbidden step; one that begins with it leads to no action."""
    first = next((place for place, action in enumerate(found.plan) if not rights[action]), len(found.plan))
    plan = found.plan[:first]
    if found.action is not None and not rights[found.action]:
        return replace(found, action=None, how="forbidden", plan=())
    return replace(found, plan=plan)
