"""Keys and values computed before: of a start that all prompts share, or of all prompts since the weights changed."""

from bisect import bisect, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from sb3_llm.scoring.rows import common_length
from sb3_llm.scoring.trie import Ints

#: Keys and values (heads, T, D) of each layer, None of one that has computed none (a frozen one, say).
Layers = list[tuple[Tensor, Tensor] | None]
Ids = tuple[int, ...]


def layers_of(cache: DynamicCache) -> Layers:
    """
    :param cache: after a forward pass over one row
    :return: its keys and values
    """
    return [(layer.keys[0], layer.values[0]) if layer.is_initialized else None for layer in _layers(cache)]


def _layers(cache: DynamicCache) -> list[Any]:
    return cache.layers  # its types allow for layers without keys, which a bare cache has none of


def cache_of(layers: Layers, starts: Sequence[Ints], device: torch.device) -> DynamicCache:
    """
    Put keys and values in front of one forward pass.

    The cache has plain layers only: those of a model's own cache drop what lies outside a window, and a layout's masks
    say what is seen. It is made afresh for each pass, because a pass appends to it, even with ``use_cache=False``
    (transformers #37078).

    :param layers: keys and values of T tokens
    :param starts: which of the tokens each of G rows starts with
    :param device: of the model
    :return: a cache of L columns, padded at the start; a view where all rows start with the same array of tokens
    """
    cache, width = DynamicCache(), max(map(len, starts))
    distinct = starts[:1] if len(set(map(id, starts))) == 1 else starts
    columns = np.stack([np.pad(start, (width - len(start), 0)) for start in distinct])
    places = torch.from_numpy(columns).to(device)
    for pair in layers if width else []:
        layer = DynamicLayer()
        if pair is not None:
            parts = [_columns(part, places).expand(len(starts), -1, -1, -1) for part in pair]
            layer.lazy_initialization(*parts)
            layer.keys, layer.values = parts
        cache.layers.append(layer)
    return cache


def _columns(part: Tensor, places: Tensor) -> Tensor:
    """(G, heads, L, D) from (heads, T, D)."""
    return part.index_select(1, places.flatten()).unflatten(1, places.shape).transpose(0, 1)


class Store:
    """
    Keys and values of every prompt scored since the weights changed, each shared start held once.

    A prompt goes on from the one it shares most tokens with: its own earlier turns, or the same view under another last
    action. As in SGLang's radix attention (arXiv 2312.07104), with pages of one token; for scoring without gradients.

    :param max_bytes: of keys and values; when it is reached, all are dropped before the next prompts
    """

    def __init__(self, max_bytes: int = 512 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.layers: Layers = []  # of as many tokens as there is room for
        self.size = 0  # tokens held
        self._full = False
        self._places: dict[Ids, Ints] = {}  # prompt -> (T,) where its tokens are held
        self._sorted: list[Ids] = []

    def trim(self) -> None:
        """Start anew if there was no room for the last prompts."""
        if self._full:
            self.clear()

    @property
    def nbytes(self) -> int:
        """Memory of keys and values, room for more included."""
        return sum(part.nbytes for pair in self.layers if pair for part in pair)

    def find(self, prompt: Ids) -> Ints:
        """
        :param prompt: token ids
        :return: where its first tokens are held, as many as are; one at least is left to compute
        """
        # The one it shares most with stands right before or after its place.
        place = bisect(self._sorted, prompt)
        near = self._sorted[max(place - 1, 0) : place + 1]
        length, best = max(((common_length(each, prompt), each) for each in near), default=(0, ()))
        return self._places[best][: min(length, len(prompt) - 1)] if length else np.zeros(0, dtype=np.int64)

    def keep(
        self, prompts: Sequence[Ids], before: Sequence[Ints], columns: Sequence[Ints], cache: DynamicCache, width: int
    ) -> None:
        """
        Take over what a forward pass has computed, if there is room.

        :param prompts: just scored
        :param before: of each, where the tokens are held that it started with
        :param columns: of each, the columns of its other tokens, counted through all rows of the pass
        :param cache: after the pass
        :param width: S, columns of the pass
        """
        fresh = np.unique(np.concatenate(columns))
        if not self._make_room(len(fresh), cache):
            return
        held = self.size + np.arange(len(fresh))
        self._copy(cache, fresh, width, held)
        self.size += len(fresh)
        for prompt, start, mine in zip(prompts, before, columns, strict=True):
            if prompt not in self._places:
                self._places[prompt] = np.concatenate([start, held[np.searchsorted(fresh, mine)]])
                insort(self._sorted, prompt)

    def _make_room(self, tokens: int, cache: DynamicCache) -> bool:
        """Grow twofold up to the bound; beyond it, have all dropped before the next prompts."""
        room, needed = max((pair[0].shape[1] for pair in self.layers if pair), default=0), self.size + tokens
        if needed <= room:
            return True
        shown = [(layer.keys[0], layer.values[0]) if layer.is_initialized else None for layer in _layers(cache)]
        most = self.max_bytes // sum(part[:, :1].nbytes for pair in shown if pair for part in pair)
        self._full = needed > most
        if self._full:
            return False
        room = min(max(needed, 2 * room), most)
        with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
            self.layers = [
                pair and (_longer(pair[0], mine and mine[0], room), _longer(pair[1], mine and mine[1], room))
                for pair, mine in zip(shown, self.layers or [None] * len(shown), strict=True)
            ]
        return True

    def _copy(self, cache: DynamicCache, fresh: Ints, width: int, held: Ints) -> None:
        for layer, mine in zip(_layers(cache), self.layers, strict=True):
            if mine is None:
                continue
            device = layer.keys.device
            rows, columns = torch.from_numpy(fresh // width).to(device), torch.from_numpy(fresh % width).to(device)
            place = torch.from_numpy(held).to(device)
            before = layer.keys.shape[2] - width
            for part, store in zip((layer.keys, layer.values), mine, strict=True):
                store[:, place] = part[rows, :, before + columns].transpose(0, 1)  # (heads, n, D)


def _longer(like: Tensor, part: Tensor | None, room: int) -> Tensor:
    """(heads, room, D), starting with what is held already."""
    longer = like.new_empty(like.shape[0], room, like.shape[2])
    if part is not None:
        longer[:, : part.shape[1]] = part
    return longer
