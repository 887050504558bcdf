"""Verify a fast route on a model before trusting it: their failures raise no error."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sb3_llm.scoring.fallback import CachedScorer, PlainRowsScorer
from sb3_llm.scoring.frozen import FrozenLayers
from sb3_llm.scoring.layout import MaskForm, mask_forms
from sb3_llm.scoring.packed import PackedScorer
from sb3_llm.scoring.reference import ReferenceScorer
from sb3_llm.scoring.rows import Row, Scorer, Scores

log = logging.getLogger("sb3_llm")

# In nats, on scores: rounding of two exact routes stays well below (eager attention takes its softmax in float32, in a
# float64 model too), a wrong mask or position well above (0.05 and more).
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
GRADIENT_TOLERANCE = 0.05  # relative; a prefix computed without gradients, the error that happens, gives 0.6
MASKED_ATTENTION = ("eager", "sdpa")  # the implementations that take a 4D mask; flex aborts the process over one
COSTS = {
    "cache": "one short row for each phrase over the prompt's cache",
    "rows": "one whole row for each phrase",
    "reference": "one whole row for each phrase, each in a forward pass of its own",
}


def choose_scorer(lm: PreTrainedModel, probes: Sequence[Row], frozen_layers: int = 0) -> tuple[Scorer, float]:
    """
    Take the fastest route that equals the reference on this model, with a warning unless it is the packed one.

    4D masks are ignored or misread by some architectures without an error, and have broken between releases of
    transformers (its issues #29525 and #35290), so routes are compared here on the model at hand: scores, features, and
    for one parameter the gradient.

    :param lm: causal language model, compared in its own dtype
    :param probes: rows as the environment gives them; one must be as long as any that will come, since attention
        windows only show beyond their length
    :param frozen_layers: lower layers that never change, whose output is kept where the architecture can be cut
    :return: the scorer, and the largest difference of scores from the reference's in nats
    """
    rows = _of_mixed_lengths(probes)
    with torch.no_grad():
        right = ReferenceScorer(lm).score(rows)
    troubles: list[str] = []
    for name, make in _routes(lm, frozen_layers):
        trouble, difference, scorer = _try(lm, make, rows, right)
        if scorer is not None:
            _report(lm, name, scorer, difference, troubles)
            return scorer, difference
        troubles.append(f"{name} {trouble}")
    _report(lm, "reference", ReferenceScorer(lm), 0.0, troubles)
    return ReferenceScorer(lm), 0.0


def _routes(lm: PreTrainedModel, frozen_layers: int) -> Iterator[tuple[str, Callable[[], Scorer]]]:
    """List routes, cheapest first."""
    forms = mask_forms(lm.config) if lm.config._attn_implementation in MASKED_ATTENTION else []
    for form in forms if frozen_layers else []:
        yield f"packed above {frozen_layers} frozen layers", partial(_packed, lm, form, frozen_layers)
    for form in forms:
        yield "packed", partial(_packed, lm, form, 0)
    yield "cache", partial(CachedScorer, lm)
    yield "rows", partial(PlainRowsScorer, lm)


def _packed(lm: PreTrainedModel, form: MaskForm, frozen_layers: int) -> Scorer:
    frozen = FrozenLayers(lm, frozen_layers, form) if frozen_layers else None
    return PackedScorer(lm, form, frozen, beyond=CachedScorer(lm) if form.max_columns else None)


def _try(
    lm: PreTrainedModel, make: Callable[[], Scorer], rows: list[Row], right: Scores
) -> tuple[str, float, Scorer | None]:
    """Compare one route with the reference; say what is wrong, or return it."""
    try:
        scorer = make()
        with torch.no_grad():
            difference = max(_difference(scores, right) for scores in _each_way(scorer, rows))
        if difference > TOLERANCES.get(lm.dtype, 1e-3):
            return f"differs from the reference by {difference:.2g} nats", difference, None
        slope = _gradient_difference(lm, scorer, rows)
        if slope > GRADIENT_TOLERANCE:
            return f"has gradients that differ from the reference's by {slope:.0%}", difference, None
        scorer.forget()
        return "", difference, scorer
    except Exception as error:  # each architecture fails in its own way, and the reference serves them all
        return f"failed with {type(error).__name__}: {str(error)[:200]}", float("inf"), None


def _each_way(scorer: Scorer, rows: list[Row]) -> Iterator[Scores]:
    """Score with every shortcut taken, also those that would not pay on so few rows, and with all rows in one pass."""
    if not isinstance(scorer, PackedScorer):
        yield scorer.score(rows)
        return
    for scorer.pass_cost in (0, 10**9):
        yield scorer.score(rows)
    scorer.pass_cost = None


def _gradient_difference(lm: PreTrainedModel, scorer: Scorer, rows: list[Row]) -> float:
    """Compare the gradient of one parameter on two rows that share a start."""
    trained = [parameter for parameter in lm.parameters() if parameter.requires_grad]
    if not trained:
        return 0.0
    short = min(rows, key=lambda row: len(row.prompt))
    half = short.prompt[: (len(short.prompt) + 1) // 2]
    few = [short, Row(half + half, short.continuations)]
    with torch.enable_grad():
        right = _slope(ReferenceScorer(lm).score(few), trained[0])
        return max(_distance(_slope(scores, trained[0]), right) for scores in _each_way(scorer, few))


def _slope(scores: Scores, parameter: Tensor) -> Tensor:
    return torch.autograd.grad(_total(scores), parameter)[0]


def _distance(mine: Tensor, right: Tensor) -> float:
    return ((mine - right).norm() / right.norm().clamp(min=1e-12)).nan_to_num(nan=float("inf")).item()


def _total(scores: Scores) -> Tensor:
    weights = torch.linspace(-1, 1, scores.log_probs.numel(), device=scores.log_probs.device)
    return (scores.log_probs.flatten() * weights).sum() + scores.features.square().mean()


def _of_mixed_lengths(probes: Sequence[Row]) -> list[Row]:
    """
    Cut the longest prompt in two, so that rows differ in length, share a start, and padding is compared as well.

    One row gets continuations that branch and branch again, whatever the phrases at hand: MPT counts distances in
    columns, which differ from positions only there.
    """
    longest = max(probes, key=lambda row: len(row.prompt))
    few = tuple(dict.fromkeys((max(longest.continuations, key=len), longest.continuations[0])))  # long rows are dear
    half = len(longest.prompt) // 2
    parts = [longest.prompt, longest.prompt[:half], longest.prompt[half:]]
    others = [row for row in dict.fromkeys(probes) if row != longest]
    rows = [*others, *(Row(part, few if others else longest.continuations) for part in parts if part)]
    short = min(rows, key=lambda row: len(row.prompt))
    return [*rows, Row(short.prompt, _branching(longest))]


def _branching(row: Row) -> tuple[tuple[int, ...], ...]:
    ids = list(dict.fromkeys([*row.prompt, *(token for each in row.continuations for token in each)]))
    one, other = ids[-1], ids[-2] if len(ids) > 1 else int(ids[-1] == 0)
    return (one, other, one), (one, one, other), (other, one, one), (other, other, one)


def _difference(scores: Scores, right: Scores) -> float:
    """Return the largest difference of scores, or of features in units of their scale; infinite if it is NaN."""
    scale = right.features.abs().max().clamp(min=1.0)
    worst = torch.stack(
        [_largest(scores.log_probs - right.log_probs), _largest(scores.features - right.features) / scale]
    )
    return worst.max().nan_to_num(nan=float("inf")).item()


def _largest(values: Tensor) -> Tensor:
    return values.abs().max()


def _report(lm: PreTrainedModel, name: str, scorer: Scorer, difference: float, troubles: list[str]) -> None:
    kind = type(lm).__name__
    log.info("%s: scoring route %s, within %.1g nats of the reference", kind, name, difference)
    if scorer.name != "packed":
        warnings.warn(
            f"{kind} can't be scored by the fast route ({'; '.join(troubles)}), so {scorer.name!r} is used: right, but "
            f"at the cost of {COSTS[scorer.name]}.",
            stacklevel=3,
        )
    elif troubles:
        log.warning("%s: route %s, because %s", kind, name, "; ".join(troubles))
