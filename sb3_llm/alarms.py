"""When a training goes bad: the levels, and what to say of the likely cause and of the mend."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields

import torch

from sb3_llm.errors import SetupError

LOWER = "lower learning_rate (or lm_lr_scale, for the language model alone)"
TOO_FAST = "the learning rate is too high for the language model, or n_epochs are too many"
#: What can go bad: the likely cause, and the mend.
KINDS = {
    "entropy": (TOO_FAST, f"{LOWER}, raise ent_coef, or set prior_kl=True. A task that is solved needs no mending"),
    "top_action": (
        f"a reward that is the same whatever is done, a prior that knows one phrase alone, or {TOO_FAST}",
        f"check the reward, raise temperature if the prior is so; else {LOWER}, raise ent_coef, or set prior_kl=True",
    ),
    "kl": (
        f"the policy has left what the language model knew: {TOO_FAST}",
        f"{LOWER} or set prior_kl=True; if the return is good and the prior was poor, raise max_kl",
    ),
    "perplexity": (
        f"training on phrases has overwritten the language: {TOO_FAST}",
        f"{LOWER}, set prior_kl=True, or train less of the model (finetune='lora' or 'top:1')",
    ),
    "ratio": (
        "the update doesn't see the policy that acted: dropout or another random layer is on, weights were changed "
        "during the rollout, or a wrapper changed the observations on their way into the buffer, as VecNormalize does",
        "turn that off: with this error PPO clips and reweights by noise",
    ),
    "non_finite": (
        "a reward that is NaN or infinite, or weights that have diverged",
        f"check the reward first, then {LOWER}; go on from an earlier checkpoint",
    ),
}
#: Limits of the ratio's error. The embedded model's was at most 6e-6 in float32, and 0.055 in bfloat16.
RATIO_ERROR = 1e-3
RATIO_ERRORS = {torch.bfloat16: 0.2}


@dataclass(frozen=True)
class Limits:
    """
    The levels at which :class:`~sb3_llm.callbacks.PolicyWatch` warns; its constructor says what each means.

    :raises SetupError: if one is no positive number
    """

    min_entropy_share: float
    max_entropy_fall: float
    max_top_action: float
    max_kl: float
    max_perplexity: float
    max_ratio_error: float | None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            proper = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            if not proper and not (value is None and field.name == "max_ratio_error"):
                mend = f"leave {field.name} out; math.inf turns an upper limit off, 0 a lower one"
                raise SetupError(f"{field.name}={value!r}", "a number, 0 or more", mend)


def check_kinds(stop: bool | Collection[str]) -> frozenset[str]:
    """
    :param stop: True for all kinds, False for none, or some of :data:`KINDS`
    :return: the kinds
    :raises SetupError: for a kind that there is not
    """
    if isinstance(stop, bool):
        return frozenset(KINDS if stop else ())
    proper = isinstance(stop, Collection) and not isinstance(stop, str) and set(stop) <= set(KINDS)
    if not proper:
        raise SetupError(f"stop={stop!r}", f"True, False, or a list of {', '.join(KINDS)}", "pass stop=True for all")
    return frozenset(stop)


def complaints(
    values: dict[str, float],
    limits: Limits,
    dtype: torch.dtype,
    share_before: float | None = None,
    share_base: float | None = None,
) -> Iterator[tuple[str, str | None]]:
    """
    Judge what a look has found. A figure that is not there is not judged.

    :param values: figures by the names they are logged under
    :param limits: the levels
    :param dtype: of the language model's weights: ratios are less exact in low precision
    :param share_before: ``watch/entropy_share`` at the look before
    :param share_base: that of the base model, in the same states: what was there before training is no collapse
    :return: each kind that was judged, and what is bad about it; None if nothing is
    """
    ratio = RATIO_ERRORS.get(dtype, RATIO_ERROR) if limits.max_ratio_error is None else limits.max_ratio_error
    base = values.get("watch/perplexity_base", math.nan)
    checks = (
        ("top_action", "watch/top_action_share", 1.0, limits.max_top_action, "one action is {} of all choices"),
        ("kl", "train/kl_to_base", 1.0, limits.max_kl, "the policy is {} nats from the base model"),
        ("perplexity", "watch/perplexity", base, limits.max_perplexity, "perplexity is {} times the base model's"),
        ("ratio", "watch/first_epoch_ratio_error", 1.0, ratio, "ratios of new to old probabilities are {} off 1"),
    )
    if "watch/entropy_share" in values:
        yield "entropy", _entropy(values["watch/entropy_share"], limits, share_before, share_base)
    for kind, name, unit, limit, text in checks:
        if name in values and not math.isnan(unit):
            value = values[name] / unit
            told = f"{text.format(f'{value:.3g}')}, above the limit of {limit:g}"
            yield kind, None if value <= limit else told  # NaN is as bad as too much
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    yield "non_finite", f"{', '.join(broken)} came out as {values[broken[0]]}" if broken else None


def _entropy(share: float, limits: Limits, before: float | None, base: float | None) -> str | None:
    kept = base is not None and share >= base * (1 - limits.max_entropy_fall)
    if not share >= limits.min_entropy_share and not kept:
        beside = "" if base is None else f" (the base model's is {base:.3g})"
        return f"entropy is {share:.3g} of its maximum{beside}, below the limit of {limits.min_entropy_share:g}"
    if before is not None and before > 0 and 1 - share / before > limits.max_entropy_fall:
        return (
            f"entropy fell by {1 - share / before:.0%} between two looks, from {before:.3g} to {share:.3g} of its "
            f"maximum, above the limit of {limits.max_entropy_fall:.0%}"
        )
    return None
