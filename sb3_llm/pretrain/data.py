"""A corpus as token ids on disk, and batches of it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.pretrain.stories import Line

NO_LOSS = -100  # what functional.cross_entropy passes over
CHUNK = 20_000  # lines that are encoded at a time
PARTS = ("ids", "completes", "starts")  # of examples on disk


@dataclass(frozen=True)
class Examples:
    """Lines as token ids, one after the other."""

    ids: NDArray[np.uint16]
    completes: NDArray[np.bool_]  # (tokens,): whether a token is part of a completion
    starts: NDArray[np.int64]  # (lines + 1,)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> NDArray[np.int64]:
        """:return: how many tokens each line has."""
        return np.diff(self.starts)

    def line(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """:return: the ids of one line, and which of them complete."""
        part = slice(self.starts[index], self.starts[index + 1])
        return self.ids[part].astype(np.int64), self.completes[part]


def encode(lines: Iterable[Line], tokenizer: PreTrainedTokenizerFast) -> Examples:
    """
    :param lines: prompts and completions
    :param tokenizer: the model's
    :return: their ids, jointly encoded as the policy will score them
    :raises SetupError: if a line is longer than the model's context
    """
    ids: list[NDArray[np.uint16]] = []
    completes: list[NDArray[np.bool_]] = []
    lengths = [0]
    stream = iter(lines)
    while chunk := list(islice(stream, CHUNK)):
        wholes = tokenizer([line.text() for line in chunk], return_offsets_mapping=True)
        for line, whole, offsets in zip(chunk, wholes["input_ids"], wholes["offset_mapping"], strict=True):
            ids.append(np.array(whole, np.uint16))
            lengths.append(len(whole))
            completes.append(_in_completions(line, np.array(offsets, np.int64).reshape(-1, 2)[:, 0]))
    if max(lengths) > tokenizer.model_max_length:
        raise SetupError(
            f"a line of {max(lengths)} tokens",
            f"at most {tokenizer.model_max_length}, the model's context",
            "raise context in PretrainConfig",
        )
    return Examples(np.concatenate(ids), np.concatenate(completes), np.cumsum(lengths))


def _in_completions(line: Line, begins: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the characters at which tokens begin belong to a completion."""
    ends = np.cumsum([len(part) for exchange in line.exchanges() for part in exchange])
    return np.searchsorted(ends, begins, side="right") % 2 == 1


def join(some: Examples, others: Examples) -> Examples:
    """:return: all lines of both, the others' behind."""
    ids, completes = (np.concatenate([getattr(each, name) for each in (some, others)]) for name in PARTS[:2])
    return Examples(ids, completes, np.concatenate([some.starts, some.starts[-1] + others.starts[1:]]))


def save_examples(examples: Examples, folder: Path, made_from: str) -> None:
    """Keep examples on disk, with a word on what they were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        np.save(folder / f"{name}.npy", getattr(examples, name))
    (folder / "examples.json").write_text(json.dumps(made_from))


def load_examples(folder: Path, made_from: str) -> Examples | None:
    """:return: the examples kept in a folder if they were made from the same, mapped from disk."""
    path = folder / "examples.json"
    if not path.exists() or json.loads(path.read_text()) != made_from:
        return None
    return Examples(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS))


def batches(lengths: NDArray[np.int64], order: NDArray[np.int64], size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """
    Batches for ever, the same for the same seed: shuffled, with lines of like length side by side.

    :param lengths: of all lines, in tokens
    :param order: which of them to use
    :param size: tokens of a batch, padding included
    :param seed: of the shuffling
    :return: the lines of each batch
    """
    rng = np.random.default_rng(seed)
    while True:
        shuffled = rng.permutation(order)
        for start in range(0, len(shuffled), 4096):
            block = shuffled[start : start + 4096]
            block = block[np.argsort(lengths[block], kind="stable")]
            cut = cuts(lengths[block], size)
            for piece in rng.permutation(len(cut) - 1):
                yield block[cut[piece] : cut[piece + 1]]


def cuts(lengths: NDArray[np.int64], size: int) -> list[int]:
    """:return: where to cut lines sorted by length so that each piece has about so many tokens, padding included."""
    found, first = [0], 0
    for index in range(len(lengths)):
        if (index + 1 - first) * lengths[index] > size and index > first:
            found.append(index)
            first = index
    return [*found, len(lengths)]


def collate(
    examples: Examples, batch: Sequence[int] | NDArray[np.int64], prompt_weight: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:return: ids, targets and loss weights, each (B, S); right-padded, which causal attention never looks at."""
    rows = [examples.line(int(index)) for index in batch]
    width = max(len(row) for row, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), NO_LOSS)
    weights = torch.zeros(len(rows), width)
    for place, (row, completes) in enumerate(rows):
        n = len(row)
        ids[place, :n] = torch.from_numpy(row)
        targets[place, : n - 1] = ids[place, 1:n]
        weights[place, : n - 1] = torch.from_numpy(np.where(completes[1:], 1.0, prompt_weight))
    return ids, targets, weights
