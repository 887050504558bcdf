"""How the raw score of a phrase becomes the logit of an action."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sb3_llm.errors import SetupError

NORMALIZATIONS = ("sum", "token", "word")


def action_logits(
    scores: Tensor,
    token_counts: Tensor | Sequence[int],
    word_counts: Tensor | Sequence[int],
    normalization: str,
    temperature: float,
) -> Tensor:
    """
    Divide scores by the length of their phrases and by a temperature.

    The plain sum favours short phrases; TWOSOME (https://arxiv.org/abs/2401.14151) compares the three.

    :param scores: (B, A) sums of token log-probabilities, in nats
    :param token_counts: (A,) tokens of each continuation, end mark included
    :param word_counts: (A,) words of each phrase
    :param normalization: ``"sum"``, ``"token"`` or ``"word"``
    :param temperature: above 0; larger makes the policy more even
    :return: (B, A) logits of the actions
    :raises SetupError: if the normalization is unknown or the temperature not above 0
    """
    if normalization not in NORMALIZATIONS:
        names = ", ".join(map(repr, NORMALIZATIONS))
        raise SetupError(f"normalization={normalization!r}", f"one of {names}", 'pass "token" if in doubt')
    if not temperature > 0 or temperature == float("inf"):
        raise SetupError(
            f"temperature={temperature!r}", "a finite number above 0", "pass 1.0 to leave scores as they are"
        )
    if normalization == "sum":
        return scores / temperature
    counts = token_counts if normalization == "token" else word_counts
    lengths = torch.as_tensor(counts, dtype=scores.dtype, device=scores.device)  # (A,)
    return scores / lengths / temperature
