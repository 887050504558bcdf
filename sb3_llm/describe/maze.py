"""Maze observations in words: where the goal lies, the four ways from here, and on request the whole map."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_llm.envs.layout import DIRECTIONS, OFFSETS
from sb3_llm.envs.maze import Code, view_grid


def describe_maze(obs: Mapping[str, Any]) -> str:
    """
    Say what a walker in the maze sees: its place, the goal's direction, each way from here and where it leads on.

    :param obs: the maze's observation: ``view`` (k * k,) uint8 with the agent in it, ``position`` (2,), ``goal`` (2,)
    :return: the observation text, a few sentences in one line
    """
    view = view_grid(np.asarray(obs["view"]))
    row, column = (int(x) for x in np.argwhere(view == Code.AGENT)[0])
    ways = [_way(view, row, column, direction) for direction in range(len(DIRECTIONS))]
    here = "At row {} column {}".format(*(int(x) + 1 for x in obs["position"]))
    return f"Goal: reach the goal, {_offset(obs)}. {here}. {'. '.join(ways)}."


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


def _offset(obs: Mapping[str, Any]) -> str:
    south, east = (int(g) - int(p) for g, p in zip(obs["goal"], obs["position"], strict=True))
    words = [f"{abs(south)} {'south' if south > 0 else 'north'}"] if south else []
    words += [f"{abs(east)} {'east' if east > 0 else 'west'}"] if east else []
    return " ".join(words) or "here"


def _way(view: NDArray[np.uint8], row: int, column: int, direction: int) -> str:
    """What stands one step away; where that is open, whether it was walked, and its exits without the way back."""
    name = DIRECTIONS[direction].capitalize()
    down, right = OFFSETS[direction]
    if view[row + down, column + right] == Code.WALL:
        return f"{name} wall"
    there = (row + 2 * down, column + 2 * right)
    if view[there] == Code.GOAL:
        return f"{name} open to the goal"
    exits = _exits(view, *there, without=(-down, -right))
    walked = "walked, " if view[there] == Code.TRAIL else ""
    return f"{name} {walked}open to {exits or 'a dead end'}"


def _cell(view: NDArray[np.uint8], row: int, column: int) -> str:
    return ("walked " if view[row, column] == Code.TRAIL else "") + _exits(view, row, column)


def _exits(view: NDArray[np.uint8], row: int, column: int, without: tuple[int, int] | None = None) -> str:
    """The open directions of one cell, but for the one that leads back."""
    ways = (
        name
        for name, (down, right) in zip(DIRECTIONS, OFFSETS, strict=True)
        if view[row + down, column + right] != Code.WALL and (down, right) != without
    )
    return " ".join(ways)
