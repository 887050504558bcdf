"""Keys and values computed before: of a prefix that all prompts share, or of the earlier turns of a history."""

from bisect import bisect, insort
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

#: Keys and values (1, heads, T, D) of each layer that has computed any.
Layers = tuple[tuple[Tensor, Tensor] | None, ...]


class Past(NamedTuple):
    """
    Token ids from a prompt's start, and the keys and values a model made of them.

    :param tokens: T token ids
    :param layers: (1, heads, T, D) keys and values of each layer
    """

    tokens: tuple[int, ...]
    layers: Layers

    @property
    def nbytes(self) -> int:
        """Memory of keys and values."""
        return sum(part.nbytes for pair in self.layers if pair for part in pair)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """:return: how many ids two rows share from their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def shared_length(rows: Sequence[tuple[int, ...]]) -> int:
    """:return: how many ids all rows share from their start, at least one fewer than the shortest has."""
    # What the least and the greatest share, all between them share.
    return min(common_length(min(rows), max(rows)), min(map(len, rows)) - 1)


def caches(pasts: Sequence[Past], lengths: Sequence[int]) -> DynamicCache:
    """
    Put keys and values of several rows side by side, ready for one forward pass.

    The cache has plain layers only: those of a model's own cache drop what lies outside a window, and a layout's masks
    say what is seen. It is made afresh for each pass, because a pass appends to it, even with ``use_cache=False``
    (transformers #37078).

    :param pasts: one for each of U rows
    :param lengths: (U,) how many tokens of each are used
    :return: a cache of L = max(lengths) columns, padded on the left; a view where all rows share one past
    """
    cache = DynamicCache()
    alone = len({id(past) for past in pasts}) == 1 and len(set(lengths)) == 1
    for index, pair in enumerate(pasts[0].layers):
        layer = DynamicLayer()
        if pair is not None and max(lengths):
            parts = [_rows(pasts, lengths, index, side) if not alone else _view(pair[side], lengths) for side in (0, 1)]
            layer.lazy_initialization(*parts)
            layer.keys, layer.values = parts
        cache.layers.append(layer)
    return cache


def _view(part: Tensor, lengths: Sequence[int]) -> Tensor:
    return part[:, :, : lengths[0]].expand(len(lengths), -1, -1, -1)


def _rows(pasts: Sequence[Past], lengths: Sequence[int], layer: int, side: int) -> Tensor:
    parts = [past.layers[layer][side] for past in pasts]  # type: ignore[index]
    width, (_, heads, _, size) = max(lengths), parts[0].shape
    rows = parts[0].new_zeros(len(parts), heads, width, size)
    for row, part, length in zip(rows, parts, lengths, strict=True):
        row[:, width - length :] = part[0, :, :length]
    return rows


def layers_of(cache: DynamicCache, row: int, *columns: slice) -> Layers:
    """
    Take one row's keys and values out of a cache.

    :param cache: after a forward pass
    :param row: index in the batch
    :param columns: which columns, in order
    :return: of each layer, (1, heads, T, D)
    """

    def cut(part: Tensor) -> Tensor:
        return torch.cat([part[row : row + 1, :, each] for each in columns], dim=2)

    layers: list[Any] = cache.layers  # its types allow for layers without keys, which a bare cache has none of
    return tuple((cut(layer.keys), cut(layer.values)) if layer.is_initialized else None for layer in layers)


class Turns:
    """
    Pasts of whole prompts lately scored, from which longer ones can go on: texts that grow turn by turn.

    Only for scoring without gradients, and only as long as the weights stay the same. Pasts are kept from the moment
    prompts are seen to grow, since to keep them costs time and memory where each prompt is new.

    :param max_bytes: of keys and values; beyond it the oldest are dropped
    :param least: tokens a row must save on average for a past to be worth its copying
    """

    def __init__(self, max_bytes: int = 256 * 2**20, least: int = 64) -> None:
        self._max_bytes, self._least = max_bytes, least
        self.wanted = False
        self.clear()

    def clear(self) -> None:
        """Forget everything but that prompts grow."""
        self._pasts: dict[tuple[int, ...], Past] = {}  # oldest first
        self._sorted: list[tuple[int, ...]] = []
        self._seen: list[tuple[int, ...]] = []
        self._bytes = 0

    def find(self, prompts: Sequence[tuple[int, ...]], already: int) -> list[tuple[Past, int]] | None:
        """
        Find for each prompt the past that it goes on from, and take note whether prompts grow.

        :param prompts: U prompts
        :param already: tokens that a shared prefix saves each of them
        :return: pasts and how many of their tokens are used (leaving one at least to compute), or ``None`` if they
            would save too little
        """
        if not self.wanted:
            saved = [_neighbour(self._seen, prompt)[1] - already for prompt in prompts]
            self.wanted = sum(saved) >= self._least * len(prompts)
            self._seen = sorted(prompts)
            return None
        found = [_neighbour(self._sorted, prompt) for prompt in prompts]
        if not self._sorted or sum(length - already for _, length in found) < self._least * len(prompts):
            return None
        return [(self._pasts[tokens], length) for tokens, length in found]

    def keep(self, past: Past) -> None:
        """:param past: of a whole prompt just scored."""
        if past.tokens in self._pasts:
            return
        self._pasts[past.tokens] = past
        insort(self._sorted, past.tokens)
        self._bytes += past.nbytes
        while self._bytes > self._max_bytes:
            oldest = self._pasts.pop(next(iter(self._pasts)))
            self._sorted.remove(oldest.tokens)
            self._bytes -= oldest.nbytes


def _neighbour(rows: list[tuple[int, ...]], prompt: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Find the row of a sorted list that shares most with a prompt: it stands right before or after its place."""
    place = bisect(rows, prompt)
    near = [(row, min(common_length(row, prompt), len(prompt) - 1)) for row in rows[max(place - 1, 0) : place + 1]]
    return max(near, key=lambda pair: pair[1], default=((), 0))
