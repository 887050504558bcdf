"""The policy before any training: what the language model's prior makes of the phrases, and whether that is sound."""

import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sb3_llm.scoring import Continuations

log = logging.getLogger("sb3_llm")

NEARLY_DETERMINISTIC = 0.99  # mean probability of each prompt's likeliest action: hardly any other is ever tried
EXPLAINED = 0.9  # share of the variance between phrases that their length accounts for
NOT_EVEN = 0.5  # of the greatest entropy: below it, phrases differ enough for the share to mean something


def report_prior(phrases: Sequence[str], log_probs: Tensor, continuations: Continuations) -> None:
    """
    Log the initial action distribution, and warn where it can't explore or only counts tokens.

    An untrained model gives 0.9995 to the one-token phrases of a set of one and two tokens, and TWOSOME's users met
    returns of 0 with plain sums (its issue #9).

    :param phrases: A phrases
    :param log_probs: (B, A) log pi over probe prompts
    :param continuations: the phrases as they are scored
    """
    mean = log_probs.exp().mean(dim=0)  # (A,)
    told = ", ".join(f"{phrase} {share:.3f}" for phrase, share in zip(phrases, mean.tolist(), strict=True))
    log.info("initial action distribution over %d probe prompts: %s", len(log_probs), told)
    if len(phrases) < 2:
        return
    surest = log_probs.exp().max(dim=1).values.mean().item()
    if surest > NEARLY_DETERMINISTIC:
        warnings.warn(
            f"the policy starts out nearly deterministic: its likeliest action has probability {surest:.4f} "
            f"({told}). It will hardly explore; raise temperature, choose another normalization, or reword phrases.",
            stacklevel=4,
        )
    if explained_by_length(log_probs, continuations):
        warnings.warn(
            f"the policy starts out by the length of its phrases, in tokens: {told}. "
            'Choose normalization="token" or "word", or phrases of equal length.',
            stacklevel=4,
        )


def explained_by_length(log_probs: Tensor, continuations: Continuations) -> bool:
    """:return: whether how many tokens a phrase has says nearly all of how likely it is: (B, A) log pi of A phrases"""
    lengths = torch.tensor([float(len(ids)) for ids in continuations.ids], device=log_probs.device)
    mean = log_probs.double().mean(dim=0)  # (A,)
    share = torch.corrcoef(torch.stack([lengths.double(), mean]))[0, 1]  # NaN if all lengths are equal
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean().item()
    few = len(set(lengths.tolist())) < 2 or len(lengths) < 3  # two phrases always lie on a line
    uneven = entropy < NOT_EVEN * torch.tensor(float(len(lengths))).log().item()
    return not few and uneven and bool(share < 0) and share.item() ** 2 > EXPLAINED
