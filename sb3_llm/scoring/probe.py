"""Verify the fast route on a model before trusting it: its failures raise no error."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.language_model import context_length
from sb3_llm.scoring.packed import PackedScorer
from sb3_llm.scoring.reference import ReferenceScorer, Scorer, Scores
from sb3_llm.scoring.tokens import PromptTokenizer

# In nats, on scores: rounding of two exact routes stays well below, a wrong mask or position well above (0.1 and more).
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}


def choose_scorer(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    continuations: Sequence[str],
    probe_prompts: Sequence[str],
) -> tuple[Scorer, float]:
    """
    Take the packed scorer if it equals the reference on this model, else the reference, with a warning.

    4D masks are ignored or misread by some architectures without an error, and have broken between releases of
    transformers (its issues #29525 and #35290), so the routes are compared here on the model at hand.

    :param lm: causal language model, compared in its own dtype
    :param tokenizer: its tokenizer
    :param continuations: exact strings scored after a prompt
    :param probe_prompts: prompts as the environment gives them; include one of the longest, since attention windows
        only show beyond their length
    :return: the scorer, and the largest difference of the two routes in nats (infinite if the packed one failed)
    :raises SetupError: as :class:`~sb3_llm.scoring.tokens.PromptTokenizer`
    """
    tokens = PromptTokenizer(tokenizer, continuations, probe_prompts, context_length(lm.config))
    reference, prompts = ReferenceScorer(lm, tokens), _of_mixed_lengths(probe_prompts)
    with torch.no_grad():
        right = reference.score(prompts)
        try:
            packed = PackedScorer(lm, tokens)
            difference = _difference(packed.score(prompts), right)
            trouble = f"differs from the reference by {difference:.2g} nats"
        except Exception as error:  # each architecture fails in its own way, and the reference serves them all
            difference, trouble = float("inf"), f"failed with {type(error).__name__}: {error}"
    if difference <= TOLERANCES.get(lm.dtype, 1e-3):
        return packed, difference
    warnings.warn(
        f"the packed scoring route {trouble} on {type(lm).__name__}, so the reference route is used: right, but "
        f"{len(continuations)} rows per prompt instead of 1, one forward pass each.",
        stacklevel=2,
    )
    return reference, difference


def _of_mixed_lengths(prompts: Sequence[str]) -> list[str]:
    """Add the second half of the longest prompt, so that rows differ in length and padding is compared as well."""
    longest = max(prompts, key=len)
    return [*dict.fromkeys(prompts), longest[len(longest) // 2 :]]


def _difference(scores: Scores, right: Scores) -> float:
    """Return the largest difference of scores, or of features in units of their scale; infinite if it is NaN."""
    scale = right.features.abs().max().clamp(min=1.0)
    worst = torch.stack(
        [_largest(scores.log_probs - right.log_probs), _largest(scores.features - right.features) / scale]
    )
    return worst.max().nan_to_num(nan=float("inf")).item()


def _largest(values: Tensor) -> Tensor:
    return values.abs().max()
