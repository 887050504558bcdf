"""Continuations as prefix trees, in the shape the packed scorer feeds to a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sb3_llm.errors import SetupError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PhraseTrie:
    """
    The prefix tree of A token sequences, cut to its n internal nodes.

    A node is internal when it has children. Only these are fed to the model: the last token of a sequence is never
    looked back upon, its probability is read at its parent. State 0 is the last prompt token, state i the i-th internal
    node; a node stands right before all that is below it. Sequence a is read in at most K steps: its k-th token
    ``target[a, k]`` at state ``state[a, k]``.

    :param token: (n,) token of each internal node
    :param depth: (n,) tokens after the prompt, 1 for children of state 0
    :param last: (n,) index of the last node below each node, its own if there is none
    :param state: (A, K) state at which a token's probability is read, 0 beyond a sequence's end
    :param target: (A, K) token whose probability is read, -1 beyond a sequence's end
    """

    token: Ints
    depth: Ints
    last: Ints
    state: Ints
    target: Ints

    @property
    def n_nodes(self) -> int:
        """Internal nodes, which is the number of columns a prompt gains."""
        return len(self.token)


@lru_cache(maxsize=4096)
def build_trie(sequences: tuple[tuple[int, ...], ...]) -> PhraseTrie:
    """
    Build the tree of token sequences.

    :param sequences: A token sequences; one may be a prefix of another, none empty, no two equal
    :return: the tree
    :raises SetupError: if there is no sequence, one is empty, or two are equal
    """
    _require_distinct(sequences)
    # Sorted, whatever is below a node stands right behind it.
    nodes = sorted({row[:end] for row in sequences for end in range(1, len(row))})
    state = {(): 0} | {node: index for index, node in enumerate(nodes, start=1)}
    below = [sum(other[: len(node)] == node for other in nodes) for node in nodes]
    states = [[state[row[:end]] for end in range(len(row))] for row in sequences]
    return PhraseTrie(
        token=np.array([node[-1] for node in nodes], dtype=np.int64),
        depth=np.array([len(node) for node in nodes], dtype=np.int64),
        last=np.arange(len(nodes)) + np.array(below, dtype=np.int64) - 1,
        state=_table(states, 0),
        target=_table(sequences, -1),
    )


def reads(tries: Sequence[PhraseTrie]) -> tuple[Ints, Ints]:
    """
    Say where the probabilities of many rows' continuations are read, when their states stand one after another.

    :param tries: of U rows; row u has ``tries[u].n_nodes + 1`` states
    :return: states and targets (U, A, K), target -1 where there is nothing to read
    """
    first = np.cumsum([0] + [trie.n_nodes + 1 for trie in tries[:-1]])[:, None, None]  # (U, 1, 1)
    if len(set(map(id, tries))) == 1:
        return tries[0].state + first, np.tile(tries[0].target, (len(tries), 1, 1))
    shape = (len(tries), *(max(trie.target.shape[axis] for trie in tries) for axis in (0, 1)))
    state, target = np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    for row, trie in enumerate(tries):
        actions, steps = trie.target.shape
        state[row, :actions, :steps], target[row, :actions, :steps] = trie.state, trie.target
    return state + first, target


def _table(rows: Sequence[Sequence[int]], filler: int) -> Ints:
    """(A, K), filled behind the end of each row."""
    steps = max(map(len, rows))
    return np.array([[*row, *[filler] * (steps - len(row))] for row in rows], dtype=np.int64)


def _require_distinct(rows: Sequence[tuple[int, ...]]) -> None:
    if not rows or () in rows:
        given = f"sequence {rows.index(())} of {len(rows)} is empty" if rows else "no token sequences"
        raise SetupError(given, "at least one token for each action", "give every action a phrase with words in it")
    first: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows):
        if row in first:
            given = f"sequences {first[row]} and {index} are both {list(row)}"
            raise SetupError(given, "different tokens for each action", "give the two actions different phrases")
        first[row] = index
