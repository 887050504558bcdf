"""Maze observations in words: where the goal lies, the four ways from here, and on request the whole map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.maze_memory import MazeMemory
from sb3_llm.describe.worded import CANONICAL, Worded
from sb3_llm.envs.layout import DIRECTIONS, OFFSETS
from sb3_llm.envs.maze import Code, view_grid
from sb3_llm.words.facts import MazePast, MazeView, Passage
from sb3_llm.words.wording import default_wording


def describe_maze(obs: Mapping[str, Any]) -> str:
    """
    Say what a walker in the maze sees: its place, the goal's direction, each way from here and where it leads on.

    :param obs: the maze's observation: ``view`` (k * k,) uint8 with the agent in it, ``position`` (2,), ``goal`` (2,)
    :return: the observation text, a few sentences in one line
    """
    return default_wording().maze(read_maze(obs), None)


def describe_maze_map(obs: Mapping[str, Any]) -> str:
    """
    The same, and then every cell's exits, row by row, for the full view.

    :param obs: the maze's observation with ``view`` of the whole grid
    :return: the observation text, in one line
    """
    view = view_grid(np.asarray(obs["view"]))
    rows = [
        f"Row {r // 2 + 1}: {', '.join(_cell(view, r, c) for c in range(1, view.shape[1], 2))}"
        for r in range(1, view.shape[0], 2)
    ]
    return f"{describe_maze(obs)} Exits. {'. '.join(rows)}."


class MazeDescriber(Worded):
    """
    The partial view with the walker's own past: its last actions, or a summary of all it saw and did in the episode.

    :param history: as in :class:`sb3_llm.describe.worded.Worded`, as are language, wording and phrases
    """

    def __init__(
        self,
        history: History = SUMMARY,
        language: str = "en",
        wording: str = CANONICAL,
        phrases: Sequence[str] | None = None,
    ) -> None:
        actions = {direction: number for number, direction in enumerate(DIRECTIONS)}
        super().__init__(actions, history, language, wording, phrases)
        self.memory: MazeMemory | None = None

    def remember(self, obs: Mapping[str, Any]) -> None:
        """Begin a new map."""
        self.memory = MazeMemory(obs) if self.history == SUMMARY else None

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step."""
        if self.memory is not None:
            self.memory.note(obs)

    def observation(self, obs: Mapping[str, Any], turns: tuple[str, ...]) -> str:
        """:return: the observation text."""
        past = None if self.history == 0 else MazePast(turns)
        return self.words.maze(read_maze(obs), past if self.memory is None else self.memory.past(turns))


def read_maze(obs: Mapping[str, Any]) -> MazeView:
    """
    :param obs: the maze's observation
    :return: the facts
    """
    view = view_grid(np.asarray(obs["view"]))
    row, column = (int(x) for x in np.argwhere(view == Code.AGENT)[0])
    south, east = (int(g) - int(p) for g, p in zip(obs["goal"], obs["position"], strict=True))
    here_row, here_column = (int(x) + 1 for x in obs["position"])
    passages = tuple(_passage(view, row, column, direction) for direction in range(len(DIRECTIONS)))
    return MazeView(south, east, here_row, here_column, passages)


def _passage(view: NDArray[np.uint8], row: int, column: int, direction: int) -> Passage:
    """What stands one step away; where that is open, whether it was walked, and its exits without the way back."""
    name, (down, right) = DIRECTIONS[direction], OFFSETS[direction]
    if view[row + down, column + right] == Code.WALL:
        return Passage(name, "wall")
    there = (row + 2 * down, column + 2 * right)
    if view[there] == Code.GOAL:
        return Passage(name, "goal")
    exits = _exits(view, *there, without=(-down, -right))
    return Passage(name, "open", bool(view[there] == Code.TRAIL), exits)


def _cell(view: NDArray[np.uint8], row: int, column: int) -> str:
    return ("walked " if view[row, column] == Code.TRAIL else "") + " ".join(_exits(view, row, column))


def _exits(view: NDArray[np.uint8], row: int, column: int, without: tuple[int, int] | None = None) -> tuple[str, ...]:
    """The open directions of one cell, but for the one that leads back."""
    return tuple(
        name
        for name, (down, right) in zip(DIRECTIONS, OFFSETS, strict=True)
        if view[row + down, column + right] != Code.WALL and (down, right) != without
    )
