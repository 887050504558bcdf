"""How much each part of a prompt speaks for an action: integrated gradients, and leaving clauses out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sb3_llm.errors import SetupError
from sb3_llm.explain.parts import Span, clauses, without
from sb3_llm.scoring import Row
from sb3_llm.scoring.fallback import CachedScorer, PlainRowsScorer
from sb3_llm.scoring.rows import Scorer

STEPS = 8  # from the mean embedding to the prompt's
LEAST = -50.0  # nats: of a phrase that is forbidden where a clause is left out
TOGETHER = 64  # texts with a clause left out that are scored at once
#: From B prompts, each made of the text of that number, to (B, A) log pi.
LogPolicy = Callable[[list[str], list[int]], Tensor]
#: From scores (U, A) of the decisions of those numbers to (U, A) log pi.
LogPolicyOfScores = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Part:
    """A part of a text, and how much it speaks for the action."""

    text: str
    span: Span
    score: float  # above 0: for the action; below: against it


def by_deletion(
    texts: Sequence[str],
    actions: Sequence[int],
    full: Sequence[float],
    prompt_of: Callable[[str], str],
    log_policy: LogPolicy,
) -> list[list[Part]]:
    """
    Leave each clause out and score again: a clause is worth as many nats as the action's log-probability falls.

    :param texts: B observation texts
    :param actions: index of a phrase of each
    :param full: log pi of the action with the whole text
    :param prompt_of: from an observation text to its prompt
    :param log_policy: of the policy
    :return: the clauses of each text in order
    """
    asked = [(index, span) for index, text in enumerate(texts) for span in clauses(text)]
    # What stands before a clause was scored with the whole text, what follows is scored anew: those of like length go
    # together, since the shorter ones of a pass are padded.
    asked.sort(key=lambda each: len(texts[each[0]]) - each[1][1])
    found: list[dict[Span, Part]] = [{} for _ in texts]
    for start in range(0, len(asked), TOGETHER):
        some = asked[start : start + TOGETHER]
        left = log_policy(
            [prompt_of(without(texts[index], span)) for index, span in some], [index for index, _ in some]
        )
        for (index, span), less in zip(some, left, strict=True):
            score = full[index] - max(float(less[actions[index]]), LEAST)
            found[index][span] = Part(texts[index][slice(*span)], span, score)
    return [[parts[span] for span in sorted(parts)] for parts in found]


def by_gradient(
    lm: Any,
    route: str,
    rows: Sequence[Row],
    actions: Sequence[int],
    log_policy: LogPolicyOfScores,
) -> list[list[float]]:
    """
    Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of the action's log-odds: gradient times input,
    averaged on the way from the mean of all embeddings to those of the prompt. They add up, but for the few steps, to
    what the log-odds gain on that way. Gradient times input at its end alone says little of models that normalise what
    enters a layer: its length does not matter there, and attention is saturated (benchmarks/LOG.md).

    Frozen weights don't matter: the gradient is taken by what enters the lowest layer.

    :param lm: language model
    :param route: of the policy; a recurrent model has no cache of keys and values
    :param rows: U prompts with their continuations
    :param actions: of each
    :param log_policy: from scores (U, A) of continuations to log pi
    :return: a score for each token of each prompt
    :raises SetupError: where gradients can't be taken
    """
    if torch.is_inference_mode_enabled():
        raise SetupError(
            "an attribution by gradient inside torch.inference_mode()",
            "a place where gradients can be taken",
            "call it outside, or ask for attribution=('deletion',)",
        )
    asked = list(zip(rows, range(len(rows)), actions, strict=True))
    if route in ("packed", "cache"):
        return _gradient(lm, CachedScorer(lm), asked, log_policy)
    return [_gradient(lm, PlainRowsScorer(lm), [each], log_policy)[0] for each in asked]


def _gradient(
    lm: Any, scorer: Scorer, asked: Sequence[tuple[Row, int, int]], log_policy: LogPolicyOfScores
) -> list[list[float]]:
    rows, which, actions = ([row for row, _, _ in asked], [one for _, one, _ in asked], [a for _, _, a in asked])
    # A recurrent model's scorer has a row for each phrase, each of which begins with the one prompt it is asked about.
    end = len(rows[0].prompt) if scorer.name == "rows" else None
    worth = torch.zeros(())
    for step in range(STEPS):
        with torch.enable_grad(), _on_the_way(lm, (step + 0.5) / STEPS, end) as entered:
            odds = _log_odds(log_policy(scorer.score(rows).log_probs, which), actions)
            here, way = entered
            (slope,) = torch.autograd.grad(odds.sum(), here)
        worth = worth + (slope * way).sum(-1) / STEPS  # (U or A, S)
    if end is not None:
        return [worth[:, :end].sum(0).tolist()]
    return [each[len(each) - len(row.prompt) :].tolist() for each, row in zip(worth, rows, strict=True)]


@contextmanager
def _on_the_way(lm: Any, share: float, end: int | None) -> Iterator[list[Tensor]]:
    """
    Let the first pass read embeddings that are so far on the way from the mean embedding to the prompt's.

    They get a gradient even where all weights are frozen.

    :param lm: language model
    :param share: of the way
    :param end: up to which column; all columns if None
    :return: what entered, and the whole way
    """
    entered: list[Tensor] = []
    layer = lm.get_input_embeddings()

    def watch(_: Any, __: Any, output: Tensor) -> Tensor:
        if entered:
            return output
        way = output.detach() - _mean_embedding(layer)
        if end is not None:
            way[:, end:] = 0.0
        here = (output.detach() - (1 - share) * way).requires_grad_(True)
        entered.extend((here, way))
        return here

    handle = layer.register_forward_hook(watch)
    try:
        yield entered
    finally:
        handle.remove()


@torch.no_grad()
def _mean_embedding(layer: Any) -> Tensor:
    """Some families scale what their embeddings give (Gemma)."""
    mean: Tensor = layer.weight.mean(0) * getattr(layer, "embed_scale", 1.0)
    return mean


def _log_odds(log_policy: Tensor, actions: Sequence[int]) -> Tensor:
    """
    Of each action against all others: the gradient of a log-probability near 0 is near 0 too, whatever it hangs on.

    Where nothing else is offered they are 0, and hang on nothing.
    """
    chosen = torch.zeros_like(log_policy, dtype=torch.bool)
    chosen[range(len(actions)), list(actions)] = True
    others = log_policy.masked_fill(chosen, -torch.inf)
    alone = ~others.isfinite().any(1)
    against = others.masked_fill(alone[:, None], 0.0).logsumexp(1)
    return (log_policy[chosen] - against).masked_fill(alone, 0.0)


def over_words(
    prompt: str, spans: Sequence[Span], scores: Sequence[float], tokenizer: PreTrainedTokenizerBase, special: bool
) -> list[Part]:
    """
    :param prompt: of which every token has a score
    :param spans: of its words
    :param scores: of its tokens
    :param tokenizer: that made them
    :param special: whether it adds its special tokens to a prompt
    :return: each word with the sum of its tokens' scores; a token that reaches over two words counts for the first
    :raises SetupError: if the tokenizer can't say where its tokens stand
    """
    if not tokenizer.is_fast:
        raise SetupError(
            f"{type(tokenizer).__name__}, which does not say where its tokens stand",
            "a fast tokenizer",
            "ask for attribution=('deletion',)",
        )
    asked: Any = tokenizer(prompt, add_special_tokens=special, return_offsets_mapping=True)
    places = [int(place) for place, _ in _without_blanks(prompt, asked["offset_mapping"][: len(scores)])]
    ends = [*(start for start, _ in spans[1:]), len(prompt)]
    found = []
    for (start, end), next_start in zip(spans, ends, strict=True):
        mine = (score for place, score in zip(places, scores, strict=True) if start <= place < next_start)
        found.append(Part(prompt[start:end], (start, end), float(sum(mine))))
    return found


def _without_blanks(prompt: str, offsets: Sequence[Span]) -> Iterator[Span]:
    """A token's place without the blanks that it begins with; special tokens stand nowhere."""
    for start, end in offsets:
        if end == start:
            yield (-1, -1)
            continue
        while start < end - 1 and prompt[start].isspace():
            start += 1
        yield (start, end)
