"""Which actions an environment allows now, as MaskablePPO hands it over."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sb3_llm.errors import SetupError


def read_masks(action_masks: Any, like: Tensor) -> Tensor:
    """
    :param action_masks: (B, A), true where an action is allowed; a flat one too
    :param like: (B, A)
    :return: (B, A) bool, on its device
    :raises SetupError: for another shape
    """
    given = action_masks if isinstance(action_masks, Tensor) else np.asarray(action_masks)
    masks = torch.as_tensor(given, device=like.device).bool()
    if masks.numel() != like.numel():
        what = f"action masks of shape {tuple(masks.shape)} for {like.shape[0]} observations"
        raise SetupError(what, f"shape {tuple(like.shape)}", "pass get_action_masks(env)")
    return masks.reshape(like.shape)


def within(action_masks: Any, present: Tensor) -> Tensor:
    """
    :param action_masks: (B, A), true where an action is allowed; a flat one too
    :param present: (B, A), where there is a phrase that no rule forbids
    :return: (B, A) bool, where both are true
    :raises SetupError: for another shape; for a row without a valid action, of which SB3-Contrib silently makes a
        uniform choice among invalid ones
    """
    valid = read_masks(action_masks, present) & present
    if not bool(valid.any(dim=-1).all()):
        mend = "mend action_masks(), or forbid less"
        raise SetupError("an action mask with no valid action", "at least one in every state", mend)
    return valid


def renormalised(log_probs: Tensor, allowed: Tensor) -> Tensor:
    """
    :param log_probs: (B, A) log pi
    :param allowed: (B, A) bool
    :return: log pi of what is allowed, minus infinity elsewhere; NaN where nothing is
    """
    return log_probs.masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)
