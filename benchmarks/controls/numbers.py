"""One layout of numbers for all worlds of a kind, so that one network plays them all."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.describe.actions import KEYS
from sb3_llm.describe.describer import SUMMARY
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.envs.render import Code
from sb3_llm.errors import SetupError
from sb3_llm.family import family_of
from sb3_llm.numeric import NumericObservation
from sb3_llm.numeric_past import FAR

GRID, MAZE = "grid", "maze"
KINDS = (GRID, MAZE)
ACTIONS = {GRID: KEYS, MAZE: DIRECTIONS}
CELLS = 7 * 7
#: The one-hot parts of the view, each of all cells: object, colour and state in MiniGrid, codes in mazes.
PLANES = {GRID: (11, 6, 3), MAZE: (len(Code),)}
LARGEST = 10  # cells per side of the largest maze there is a layout for


class CommonNumbers(gym.ObservationWrapper[Any, Any, Any]):
    """
    :class:`sb3_llm.numeric.NumericObservation` with the actions of all worlds of a kind, and mazes of all sizes alike.

    A one-hot place or distance says nothing of sizes that were never met, so how far the goal is also stands there as
    two plain numbers.

    :param env: a MiniGrid or BabyAI world, or a maze with a partial view
    :raises SetupError: for another environment, or a maze that is too large
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.kind = kind_of(env)
        numbers = {name: number for number, name in enumerate(ACTIONS[self.kind])}
        self.numeric = NumericObservation(env, SUMMARY, sparse=family_of(env).sparse, phrases=numbers)
        super().__init__(self.numeric)
        size = self.observation(self.numeric.observe()).shape
        self.observation_space = spaces.Box(-np.inf, np.inf, size, np.float32)

    def observation(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """:return: the numbers in the layout of the kind."""
        return observation if self.kind == GRID else spread(observation, self.unwrapped.size)  # type: ignore[attr-defined]

    @property
    def offered(self) -> Sequence[int]:
        """:return: the actions that the text's world offers; the others can't do anything here."""
        actions = family_of(self.unwrapped).actions
        assert actions is not None
        return tuple(actions.values())


def kind_of(env: gym.Env[Any, Any]) -> str:
    """
    :param env: a MiniGrid or BabyAI world, or a maze with a partial view
    :return: its kind: worlds of one kind have the same actions and the same numbers
    :raises SetupError: for another environment, or a maze that is too large
    """
    inner = env.unwrapped
    if isinstance(inner, MazeEnv):
        if inner.view == "partial" and inner.size <= LARGEST:
            return MAZE
    elif family_of(env).worded is not None and getattr(env.action_space, "n", 0) == len(KEYS):
        return GRID
    raise SetupError(
        f"{inner}",
        f"a MiniGrid or BabyAI world with its {len(KEYS)} actions, or a maze of at most {LARGEST} cells per side "
        "that is seen in part",
        "leave it out",
    )


def spread(vector: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """
    :param vector: of a maze of ``size`` cells per side, as :class:`sb3_llm.numeric.NumericObservation` makes it
    :param size: cells per side
    :return: the same in the layout of the largest maze, with the way to the goal as two numbers as well
    """
    n_view, n_place, n_offset = CELLS * len(Code), 2 * size, 2 * (2 * size - 1)
    view, place, offset, rest = np.split(vector, np.cumsum((n_view, n_place, n_offset)))
    places = np.zeros((2, LARGEST), np.float32)
    places[:, :size] = place.reshape(2, -1)
    offsets = np.zeros((2, 2 * LARGEST - 1), np.float32)
    offsets[:, LARGEST - size : LARGEST + size - 1] = offset.reshape(2, -1)
    way = (offsets.argmax(1) - (LARGEST - 1)) / FAR
    return np.concatenate((view, places.ravel(), offsets.ravel(), way, rest)).astype(np.float32)
