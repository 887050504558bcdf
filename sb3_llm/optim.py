"""The optimizer: a learning rate for each group, value warm-up, and no step on gradients that are not finite."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

LANGUAGE_MODEL, VALUE_HEAD = "language model", "value head"


def parameter_groups(lm: nn.Module, value_net: nn.Module, lm_lr_scale: float) -> list[dict[str, Any]]:
    """
    :param lm: its trainable parameters make the first group
    :param value_net: the second
    :param lm_lr_scale: the first group's learning rate, in SB3's
    :return: groups for any torch optimizer. What they hold beside parameters travels with the optimizer's state, so it
        is saved, loaded and passed on by SB3
    """
    trained = [parameter for parameter in lm.parameters() if parameter.requires_grad]
    return [
        {"params": trained, "name": LANGUAGE_MODEL, "lr_scale": lm_lr_scale, "updates": 0},
        {"params": list(value_net.parameters()), "name": VALUE_HEAD, "lr_scale": 1.0, "updates": 0},
    ]


class StepHooks:
    """
    What happens around an optimizer step, which stock SB3 has no place for.

    SB3 writes one learning rate into every group before each update (its issues #338, #1740, #1941 say: fork). Here it
    is multiplied by the group's ``lr_scale`` for the length of the step. Updates are counted for the warm-up, and a
    step on a NaN is refused while the weights are still good.
    """

    def __init__(self) -> None:
        self._fresh = False
        self._rates: list[Any] = []

    def attach(self, optimizer: Optimizer) -> None:
        """:param optimizer: whose steps to surround; hooks do not survive a deepcopy or pickle of it"""
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def begin_update(self) -> None:
        """SB3 is about to train on a rollout."""
        self._fresh = True

    def update_number(self, optimizer: Optimizer) -> int:
        """:return: the number of the update that is going on, from 1: how many rollouts were trained on"""
        return optimizer.param_groups[-1]["updates"] + self._fresh

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        number = self.update_number(optimizer)
        _require_finite_gradients(optimizer, number)
        self._fresh = False
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["updates"] = number
            group["lr"] = group["lr"] * group["lr_scale"]

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate


def _gradients(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from (each.grad for each in group["params"] if each.grad is not None)


def _require_finite_gradients(optimizer: Optimizer, number: int) -> None:
    gradients = list(_gradients(optimizer))
    if gradients and not bool(torch.isfinite(get_total_norm(gradients))):
        raise FloatingPointError(
            f"update {number}: the gradient is NaN or infinite, so the step was not taken and the weights are as they "
            "were before it. Most likely the learning rate of the language model is too high (lower lm_lr_scale or "
            "learning_rate), or rewards are not finite. Go on from the last checkpoint."
        )


def count_parameters(lm: nn.Module, value_net: nn.Module) -> dict[str, tuple[int, int]]:
    """:return: group name to how many of its parameters are trained, and how many it has in all"""
    return {
        name: (
            sum(each.numel() for each in module.parameters() if each.requires_grad),
            sum(each.numel() for each in module.parameters()),
        )
        for name, module in ((LANGUAGE_MODEL, lm), (VALUE_HEAD, value_net))
    }
