"""Continuations as prefix trees, in the shape the packed scorer feeds to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from sb3_llm.errors import SetupError


@dataclass(frozen=True)
class PhraseTrie:
    """
    The prefix tree of A token sequences, cut to its n internal nodes.

    A node is internal when it has children. Only these are fed to the model: the last token of a sequence is never
    looked back upon, its probability is read at its parent. State 0 is the last prompt token, state i the i-th internal
    node, parents before children. Sequence a is read in at most K steps: its k-th token ``target[a, k]`` at state
    ``state[a, k]``.

    :param token: (n,) token of each internal node
    :param depth: (n,) tokens after the prompt, 1 for children of state 0
    :param ancestors: (n, n) bool, ``[i, j]`` when node i comes after node j or is it
    :param state: (A, K) state at which a token's probability is read, 0 beyond a sequence's end
    :param target: (A, K) token whose probability is read, -1 beyond a sequence's end
    """

    token: Tensor
    depth: Tensor
    ancestors: Tensor
    state: Tensor
    target: Tensor

    @property
    def n_nodes(self) -> int:
        """Internal nodes, which is the number of columns a row gains."""
        return self.token.shape[0]


@dataclass(frozen=True)
class Forest:
    """
    The trees of U rows, padded to the largest: n nodes, A sequences, K steps. Padding nodes are seen by no other.

    :param token: (U, n)
    :param depth: (U, n)
    :param ancestors: (U, n, n)
    :param state: (U, A, K)
    :param target: (U, A, K) -1 where there is nothing to read
    """

    token: Tensor
    depth: Tensor
    ancestors: Tensor
    state: Tensor
    target: Tensor

    @property
    def n_nodes(self) -> int:
        """Columns that every row gains."""
        return self.token.shape[1]


@lru_cache(maxsize=4096)
def build_trie(sequences: tuple[tuple[int, ...], ...]) -> PhraseTrie:
    """
    Build the tree of token sequences.

    :param sequences: A token sequences; one may be a prefix of another, none empty, no two equal
    :return: the tree, on the CPU
    :raises SetupError: if there is no sequence, one is empty, or two are equal
    """
    _require_distinct(sequences)
    nodes = list(dict.fromkeys(row[:end] for row in sequences for end in range(1, len(row))))
    state = {(): 0} | {node: index for index, node in enumerate(nodes, start=1)}
    steps = max(map(len, sequences))
    states = [[state[row[:end]] for end in range(len(row))] + [0] * (steps - len(row)) for row in sequences]
    ancestors = [[node[: len(other)] == other for other in nodes] for node in nodes]
    return PhraseTrie(
        token=_long([node[-1] for node in nodes]),
        depth=_long([len(node) for node in nodes]),
        ancestors=torch.tensor(ancestors, dtype=torch.bool).reshape(len(nodes), len(nodes)),
        state=_long(states),
        target=_long([list(row) + [-1] * (steps - len(row)) for row in sequences]),
    )


def plant(continuations: Sequence[tuple[tuple[int, ...], ...]], device: torch.device) -> Forest:
    """
    Set the trees of many rows side by side.

    :param continuations: of U rows: token sequences as :func:`build_trie` takes them
    :param device: of the model
    :return: the trees; views of one tree where all rows have the same continuations
    :raises SetupError: as :func:`build_trie`
    """
    if len(set(continuations)) == 1:
        trie = build_trie(continuations[0])
        parts = {
            field.name: getattr(trie, field.name)
            .to(device)
            .expand(len(continuations), *getattr(trie, field.name).shape)
            for field in fields(trie)
        }
        return Forest(**parts)
    tries = [build_trie(each) for each in continuations]
    nodes = max(trie.n_nodes for trie in tries)
    actions, steps = (max(trie.target.shape[axis] for trie in tries) for axis in (0, 1))
    return Forest(
        token=_stack([trie.token for trie in tries], (nodes,), 0, device),
        depth=_stack([trie.depth for trie in tries], (nodes,), 1, device),
        ancestors=_stack([trie.ancestors for trie in tries], (nodes, nodes), False, device),
        state=_stack([trie.state for trie in tries], (actions, steps), 0, device),
        target=_stack([trie.target for trie in tries], (actions, steps), -1, device),
    )


def _stack(parts: list[Tensor], shape: tuple[int, ...], filler: float, device: torch.device) -> Tensor:
    """Pad each part at the ends to a shape and stack them."""
    stacked = torch.full((len(parts), *shape), filler, dtype=parts[0].dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[tuple(slice(size) for size in part.shape)] = part
    return stacked.to(device)


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


def _long(values: list[int] | list[list[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
