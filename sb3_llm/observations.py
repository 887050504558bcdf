"""A batch of observations as SB3 hands it to a policy, back to observation texts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from sb3_llm.describe.generic import generic_describer
from sb3_llm.spaces import TextSpace

SAMPLE_TEXTS = (
    "Goal: open the red door. Facing east, carrying nothing.",
    "At row 1 column 2. North wall",
    "Observation: 0.02, -1.3, 14",
    "向前走!",
)


def text_reader(space: spaces.Space) -> Callable[[Any], list[str]]:
    """
    How to read observations of a space as texts.

    :param space: a :class:`TextSpace`, whose bytes are decoded, or numbers, which the generic describer tells
    :return: a function from a batch of observations (tensor, array, or dict of them) to one text each
    :raises SetupError: if the space is neither
    """
    if isinstance(space, TextSpace):
        return lambda obs: [space.decode(row) for row in _numpy(obs)]
    describe = generic_describer(space)
    if isinstance(space, spaces.Dict):
        return lambda obs: [describe(one) for one in split_batch({name: _numpy(part) for name, part in obs.items()})]
    return lambda obs: [describe(one) for one in _numpy(obs)]


def phrase_reader(space: spaces.Space) -> Callable[[Any], list[tuple[str, ...]]] | None:
    """
    How to read the phrases that come with observations of a space.

    :param space: any observation space
    :return: a function from a batch of observations (tensor or array) to the phrases of each, in slot order; None if
        the space is no :class:`TextSpace` with slots
    """
    if not isinstance(space, TextSpace) or not space.slots:
        return None
    return lambda obs: [tuple(space.decode_phrases(row)) for row in _numpy(obs)]


def sample_texts(space: spaces.Space) -> list[str]:
    """:return: texts such as the policy will read, on which tokenisation and scoring are verified at the start."""
    if isinstance(space, TextSpace):
        room = space.max_bytes - 2 * space.slots
        return [text for text in SAMPLE_TEXTS if len(text.encode()) <= room] or ["x"]
    describe = generic_describer(space)
    state = np.random.default_rng(0)  # the space's own generator belongs to the user
    return [describe(_any_value(space, state)) for _ in range(3)]


def longest_text(space: spaces.Space) -> str:
    """:return: a text as long as any that observations of a space can give."""
    if isinstance(space, TextSpace):
        (line, *_), room = sample_texts(space), space.max_bytes - 2 * space.slots
        return (f"{line} " * (room // len(line) + 1)).encode()[:room].decode(errors="ignore").strip()
    return max(sample_texts(space), key=len)


def _any_value(space: spaces.Space, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _any_value(part, rng) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_any_value(part, rng) for part in space.spaces)
    shape = space.shape or ()
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, 2, size=shape)


def _numpy(obs: Any) -> np.ndarray:
    return obs.detach().cpu().numpy() if isinstance(obs, torch.Tensor) else np.asarray(obs)


def split_batch(batch: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """:return: one dict for each observation of a batch"""
    size = len(next(iter(batch.values())))
    return [{name: part[index] for name, part in batch.items()} for index in range(size)]
