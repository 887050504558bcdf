"""What every scoring route is asked and what it answers, as token ids."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from sb3_llm.scoring.trie import build_trie


class Row(NamedTuple):
    """
    One decision: a prompt, and what may follow it.

    :param prompt: token ids, one or more, special tokens included
    :param continuations: token ids that each phrase adds to the prompt; rows may have different ones, and different
        numbers of them
    """

    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def n_columns(self) -> int:
        """Tokens that a model reads to score it in one row."""
        return len(self.prompt) + build_trie(self.continuations).n_nodes


class Scores(NamedTuple):
    """
    What a scorer says of U rows with up to A continuations, in float32, or float64 from a float64 model.

    :param log_probs: (U, A) sums of token log-probabilities of each continuation given its prompt, in nats; 0 where a
        row has fewer than A continuations
    :param features: (U, H) hidden state that enters the output head at the last prompt token
    """

    log_probs: Tensor
    features: Tensor


class Scorer(Protocol):
    """
    A route from rows to scores; all routes agree with the reference.

    :param name: ``"reference"``, ``"packed"``, ``"cache"`` or ``"rows"``
    """

    name: str

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        ...

    def forget(self) -> None:
        """Drop whatever depends on the weights: they have changed."""
        ...


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """:return: how many ids two rows share from their start."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def shared_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """:return: how many ids all prompts share from their start, at least one fewer than the shortest has."""
    # What the least and the greatest share, all between them share.
    return min(common_length(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
