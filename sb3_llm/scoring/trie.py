"""Token sequences as a prefix tree, in the shape the packed scorer feeds to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sb3_llm.errors import SetupError


@dataclass(frozen=True)
class PhraseTrie:
    """
    The prefix tree of A token sequences, cut to its n internal nodes.

    A node is internal when it has children. Only these are fed to the model: the last token of a sequence is never
    looked back upon, its probability is read at its parent. State 0 is the last prompt token, state i the i-th internal
    node, parents before children. The E edges are the distinct prefixes; edge e is token ``edge_token[e]`` read at
    state ``edge_state[e]``.

    :param token: (n,) token of each internal node
    :param parent: (n,) state above each internal node
    :param depth: (n,) tokens after the prompt, 1 for children of state 0
    :param ancestors: (n, n) bool, ``[i, j]`` when node i comes after node j or is it
    :param edge_state: (E,) state at which an edge's probability is read
    :param edge_token: (E,) token whose probability is read
    :param action_edges: (A, E) 1 where a sequence passes over an edge, else 0
    :param token_counts: (A,) length of each sequence
    """

    token: Tensor
    parent: Tensor
    depth: Tensor
    ancestors: Tensor
    edge_state: Tensor
    edge_token: Tensor
    action_edges: Tensor
    token_counts: Tensor

    @property
    def n_nodes(self) -> int:
        """Internal nodes, which is the number of columns a row gains."""
        return self.token.shape[0]

    def to(self, device: torch.device) -> "PhraseTrie":
        """
        Copy the tree to a device.

        :param device: where the model runs
        :return: the same tree there
        """
        return PhraseTrie(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def build_trie(sequences: Sequence[Sequence[int]]) -> PhraseTrie:
    """
    Build the tree of token sequences.

    :param sequences: A token sequences; one may be a prefix of another, none empty, no two equal
    :return: the tree, on the CPU
    :raises SetupError: if there is no sequence, one is empty, or two are equal
    """
    rows = [tuple(sequence) for sequence in sequences]
    _require_distinct(rows)
    edges = list(dict.fromkeys(row[:end] for row in rows for end in range(1, len(row) + 1)))
    nodes = list(dict.fromkeys(row[:end] for row in rows for end in range(1, len(row))))
    state = {(): 0} | {node: index for index, node in enumerate(nodes, start=1)}
    ancestors = [[node[: len(other)] == other for other in nodes] for node in nodes]
    passes = [[float(row[: len(edge)] == edge) for edge in edges] for row in rows]
    return PhraseTrie(
        token=_long([node[-1] for node in nodes]),
        parent=_long([state[node[:-1]] for node in nodes]),
        depth=_long([len(node) for node in nodes]),
        ancestors=torch.tensor(ancestors, dtype=torch.bool).reshape(len(nodes), len(nodes)),
        edge_state=_long([state[edge[:-1]] for edge in edges]),
        edge_token=_long([edge[-1] for edge in edges]),
        action_edges=torch.tensor(passes),
        token_counts=_long([len(row) for row in rows]),
    )


def _require_distinct(rows: list[tuple[int, ...]]) -> None:
    if not rows or () in rows:
        given = f"sequence {rows.index(())} of {len(rows)} is empty" if rows else "no token sequences"
        raise SetupError(given, "at least one token for each action", "give every action a phrase with words in it")
    first: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows):
        if row in first:
            given = f"sequences {first[row]} and {index} are both {list(row)}"
            raise SetupError(given, "different tokens for each action", "give the two actions different phrases")
        first[row] = index


def _long(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
