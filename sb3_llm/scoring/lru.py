"""A memo of bounded size that learns what it lacks in one batch."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruMemo(Generic[K, V]):
    """
    Remembers values by key; those not asked for longest go first.

    ``functools.lru_cache`` asks for one value at a time, and a tokenizer is several times faster on a batch.

    :param size: values kept
    """

    def __init__(self, size: int) -> None:
        self.known: OrderedDict[K, V] = OrderedDict()
        self._size = size

    def recall(self, keys: Sequence[K], learn: Callable[[list[K]], Sequence[V]]) -> list[V]:
        """
        :param keys: what is asked for, repetitions included
        :param learn: from the keys not known to their values; called once at most, and what it raises is not remembered
        :return: one value for each key
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self.known]
        fresh = dict(zip(missing, learn(missing), strict=True)) if missing else {}
        found = {key: self.known[key] for key in keys if key not in fresh} | fresh
        for key, value in found.items():
            self.known[key] = value
            self.known.move_to_end(key)
        while len(self.known) > self._size:
            self.known.popitem(last=False)
        return [found[key] for key in keys]
