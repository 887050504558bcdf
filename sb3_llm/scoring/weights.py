"""Noticing that weights have changed, whoever wrote them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightsWatch:
    """
    Says whether parameters are the same as at the last look.

    Version counters see every in-place operation, but not ``Adam(fused=True)``, writes to ``parameter.data``, or SB3's
    ``polyak_update``; so one number out of the middle of each parameter and its place in memory are compared as well.

    :param parameters: to watch
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._last: object = None

    def changed(self) -> bool:
        """:return: whether anything differs from the last call; true at the first."""
        now = self._look()
        changed, self._last = now != self._last, now
        return changed

    def _look(self) -> object:
        middles = [_middle(parameter) for parameter in self._parameters]
        numbers = torch.stack([each.float() for each in middles]).tolist() if middles else []
        return numbers, [(parameter._version, parameter.data_ptr()) for parameter in self._parameters]


def _middle(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[len(flat) // 2]
