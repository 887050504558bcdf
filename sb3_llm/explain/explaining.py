"""One decision explained, or what another text would have changed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sb3_llm.errors import SetupError
from sb3_llm.explain.attribution import LogPolicy, LogPolicyOfScores, Part, by_deletion, by_gradient, over_words
from sb3_llm.explain.parts import words
from sb3_llm.explain.window import Offered, Window
from sb3_llm.masks import read_masks, renormalised
from sb3_llm.scoring import Row

METHODS = ("gradient", "deletion")


@dataclass(frozen=True)
class Phrase:
    """What the model says of one action."""

    text: str
    probability: float  # under the policy
    base_probability: float  # under the base model, before any training
    tokens: tuple[tuple[str, float], ...]  # each token with its log-probability, in nats; they add up to the score


@dataclass(frozen=True)
class Explanation:
    """One decision."""

    text: str  # observation text
    prompt: str
    start: int  # character of the prompt at which the text begins
    action: int  # that is explained
    phrases: tuple[Phrase, ...]  # in action order
    value: float  # what the policy expects to gain from here on
    words: tuple[Part, ...]  # of the prompt, by gradient; empty if not asked for
    clauses: tuple[Part, ...]  # of the observation text, by deletion; empty if not asked for


def explain(
    policy: Any,
    texts: Sequence[str],
    offered: Sequence[Sequence[str]],
    actions: Sequence[int] | None = None,
    attribution: Sequence[str] = METHODS,
    action_masks: Any = None,
) -> list[Explanation]:
    """
    Explain decisions.

    :param policy: an :class:`~sb3_llm.LLMPolicy`
    :param texts: B observation texts
    :param offered: the phrases of each
    :param actions: which action of each is explained; the likeliest by default
    :param attribution: how the parts of the text are weighed: "gradient", "deletion", both or neither
    :param action_masks: (B, A), true where the environment allows an action
    :return: an explanation of each
    :raises SetupError: for an unknown method or action, a mask that leaves nothing, or a text that does not fit the
        model's context
    """
    unknown = [name for name in attribution if name not in METHODS]
    if unknown:
        raise SetupError(f"attribution={unknown[0]!r}", f"some of {METHODS}", "write attribution=('deletion',)")
    window = Window(policy)
    prompts, varying = [window.prompt(text) for text in texts], window.varying(offered)
    allowed = window.allowed(prompts, varying, action_masks)
    masks = None if action_masks is None else read_masks(action_masks, allowed)
    with torch.no_grad():
        asked = (ask(prompts, varying) for ask in (policy.action_log_probs, policy.base_log_probs))
        log_policy, base = (renormalised(each, allowed) for each in asked)
    chosen = log_policy.argmax(1).tolist() if actions is None else list(actions)
    _require_actions(chosen, offered, log_policy)
    continuations = window.continuations(prompts, varying)
    rows, values = window.rows(prompts, continuations), window.values(prompts, varying)
    tokens = _by_token(window, rows)
    worth: Sequence[Sequence[Part]] = [()] * len(prompts)
    if "gradient" in attribution:
        worth = _words(window, prompts, rows, chosen, window.log_policy(continuations, allowed))
    left_out: Sequence[Sequence[Part]] = [()] * len(prompts)
    if "deletion" in attribution:
        full = log_policy[range(len(chosen)), chosen].tolist()
        left_out = by_deletion(texts, chosen, full, window.prompt, _asker(window, varying, masks))
    found = []
    for index, (text, prompt, own) in enumerate(zip(texts, prompts, offered, strict=True)):
        mine, theirs = (each[index].exp().tolist() for each in (log_policy, base))
        phrases = tuple(Phrase(*each) for each in zip(own, mine, theirs, tokens[index], strict=False))
        parts = tuple(worth[index]), tuple(left_out[index])
        found.append(Explanation(text, prompt, window.start, chosen[index], phrases, values[index], *parts))
    return found


def _asker(window: Window, varying: Offered, masks: Tensor | None) -> LogPolicy:
    """Log pi of other prompts, each with the phrases and the mask of the decision it is about."""

    @torch.no_grad()
    def ask(prompts: list[str], owners: list[int]) -> Tensor:
        phrases = None if varying is None else [varying[owner] for owner in owners]
        with window.keeping_no_keys():
            asked: Tensor = window.policy.action_log_probs(prompts, phrases)
        if masks is None:
            return asked
        return renormalised(asked, masks[owners]).nan_to_num(nan=-torch.inf, neginf=-torch.inf)

    return ask


def _words(
    window: Window, prompts: list[str], rows: list[Row], actions: list[int], log_policy: LogPolicyOfScores
) -> list[list[Part]]:
    by_token = by_gradient(window.lm, window.route, rows, actions, log_policy)
    return [
        over_words(prompt, words(prompt), scores, window.tokenizer, window.special_tokens)
        for prompt, scores in zip(prompts, by_token, strict=True)
    ]


def _by_token(window: Window, rows: Sequence[Row]) -> list[list[tuple[tuple[str, float], ...]]]:
    """A phrase's tokens one by one: the differences between what its beginnings score, which a trie computes once."""
    begun = [tuple(dict.fromkeys(itertools.chain.from_iterable(map(_beginnings, row.continuations)))) for row in rows]
    scores = window.scores([Row(row.prompt, each) for row, each in zip(rows, begun, strict=True)])
    known = [{(): 0.0} | dict(zip(each, scored, strict=False)) for each, scored in zip(begun, scores, strict=True)]
    return [[_steps(window, ids, scored) for ids in row.continuations] for row, scored in zip(rows, known, strict=True)]


def _beginnings(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [ids[:end] for end in range(1, len(ids) + 1)]


def _steps(window: Window, ids: tuple[int, ...], scored: dict[tuple[int, ...], float]) -> tuple[tuple[str, float], ...]:
    steps = zip(ids, itertools.pairwise([(), *_beginnings(ids)]), strict=True)
    return tuple((window.tokenizer.decode([token]), scored[after] - scored[before]) for token, (before, after) in steps)


def _require_actions(actions: Sequence[int], offered: Sequence[Sequence[str]], log_policy: Tensor) -> None:
    for action, own, row in zip(actions, offered, log_policy, strict=True):
        if not 0 <= action < len(own):
            raise SetupError(f"action {action}", f"0 to {len(own) - 1}, of the phrases {list(own)}", "pass one of them")
        if not row[action].isfinite():
            mend = "explain another; policy.wanting tells what was wanted of it"
            given = f"action {action}, {own[action]!r}, which forbid= or the action mask forbids here"
            raise SetupError(given, "one that may be said", mend)
