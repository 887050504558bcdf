"""Rows of like length in one pass: padding is computed like any other column."""

from collections.abc import Sequence

import torch

# What one more forward pass costs, in columns of a small model on a CPU; on a GPU small passes cost all the same.
PASS_COST = {"cpu": 48, "cuda": 16384}


def pass_cost(device: torch.device) -> int:
    """
    :param device: of the model
    :return: columns that one more forward pass is worth there
    """
    return PASS_COST.get(device.type, PASS_COST["cuda"])


def buckets(lengths: Sequence[int], pass_cost: int, most: int = 4) -> list[list[int]]:
    """
    Split rows into groups so that passes and padded columns together cost least.

    :param lengths: (U,) columns of each row
    :param pass_cost: columns that one more pass is worth
    :param most: groups
    :return: indices of the rows of each group
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [order]
    while len(groups) < most:
        gain, place, cut = _best_cut(groups, lengths)
        if gain <= pass_cost:
            break
        groups[place : place + 1] = [groups[place][:cut], groups[place][cut:]]
    return groups


def _best_cut(groups: list[list[int]], lengths: Sequence[int]) -> tuple[int, int, int]:
    """Return the columns saved by the best cut, and its group and place there."""
    return max(
        ((lengths[group[-1]] - lengths[group[cut - 1]]) * cut, place, cut)
        for place, group in enumerate(groups)
        for cut in range(1, len(group) + 1)  # the last saves nothing, and is always there
    )
