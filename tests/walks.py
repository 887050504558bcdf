"""Walks that several tests share."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

#: MiniGrid's and BabyAI's actions: often forward, never "done", which ends some episodes at once.
ODDS = np.array([3, 3, 8, 2, 2, 2, 0])


def random_actions(n_actions: int, steps: int, seed: int = 0) -> list[int]:
    """Actions of a random-ish walk that gets somewhere."""
    odds = ODDS[:n_actions] / ODDS[:n_actions].sum()
    return np.random.default_rng(seed).choice(n_actions, size=steps, p=odds).tolist()


def wander(env: gymnasium.Env[Any, Any], steps: int, seed: int = 0) -> Iterator[Any]:
    """Observations of a random-ish walk, a fresh episode at each end and after every 50 steps."""
    observation, _ = env.reset(seed=seed)
    for number, action in enumerate(random_actions(int(env.action_space.n), steps, seed), start=1):
        yield observation
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated or number % 50 == 0:
            yield observation
            observation, _ = env.reset()


def flood(walls: NDArray[np.uint8], row: int, column: int) -> NDArray[np.int64]:
    """Squares walked from one square of the wall grid to every other: no cells, no directions, no queue."""
    steps = np.full(walls.shape, -1)
    steps[row, column] = 0
    for step in range(1, walls.size):
        near = np.zeros(walls.shape, dtype=bool)
        near[1:] |= steps[:-1] >= 0
        near[:-1] |= steps[1:] >= 0
        near[:, 1:] |= steps[:, :-1] >= 0
        near[:, :-1] |= steps[:, 1:] >= 0
        fresh = near & (walls == 0) & (steps < 0)
        if not fresh.any():
            break
        steps[fresh] = step
    return steps
