"""Where an agent stands in one of the project's mazes, and which actions start a shortest way from there."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sb3_llm.describe.actions import KEYS
from sb3_llm.envs.layout import DIRECTIONS, Cell, distances_to, neighbour, optimal_actions
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.envs.minigrid_maze import MiniGridMazeEnv

LEFT, RIGHT, FORWARD = (KEYS.index(key) for key in ("turn left", "turn right", "go forward"))
#: MiniGrid's heading for each of the maze's directions: north, south, east, west.
HEADINGS = (3, 1, 0, 2)
#: What to do when the wanted heading is so many quarter turns to the right.
TURNS = ((FORWARD,), (RIGHT,), (LEFT, RIGHT), (LEFT,))


@dataclass(frozen=True)
class Spot:
    """
    A place in a maze.

    :param walls: uint8 of shape (2n+1, 2n+1), 1 = wall
    :param square: (row, column) in ``walls``; both are odd in a cell, one is even in the passage between two
    :param heading: as in MiniGrid, or None in a world without
    :param goal: a cell
    """

    walls: NDArray[Any]
    square: Cell
    heading: int | None
    goal: Cell

    @property
    def cell(self) -> Cell | None:
        """:return: the cell it is in; None between two"""
        row, column = self.square
        return (row // 2, column // 2) if row % 2 and column % 2 else None

    @property
    def size(self) -> int:
        """:return: cells per side"""
        return len(self.walls) // 2

    @property
    def moves(self) -> set[int]:
        """:return: the actions, by the world's numbers, that one walks by"""
        return set(range(len(DIRECTIONS))) if self.heading is None else {LEFT, RIGHT, FORWARD}

    def towards(self, target: Cell) -> tuple[int, ...]:
        """
        :param target: a cell
        :return: every action, by the world's number, that starts a shortest way there; none if it is there
        """
        directions = self._directions(target)
        if self.heading is None:
            return tuple(directions)
        turns = {(HEADINGS[direction] - self.heading) % 4 for direction in directions}
        # In a maze without loops there is one way, so a turn away from it is never as short.
        return tuple(sorted({action for turn in turns for action in TURNS[turn]}))

    def _directions(self, target: Cell) -> list[int]:
        if self.cell is not None:
            return optimal_actions(self.walls, self.cell, target)
        steps = distances_to(self.walls, target)
        both = (2, 3) if self.square[0] % 2 else (0, 1)
        left = {each: steps[_cell_of(neighbour(self.square, each))] for each in both}
        return [each for each in both if left[each] == min(left.values())]


def _cell_of(square: Cell) -> Cell:
    return square[0] // 2, square[1] // 2


def spot_of(env: Any) -> Spot | None:
    """
    :param env: any environment, after a reset
    :return: where its agent stands; None if it is no maze of this project
    """
    inner = env.unwrapped
    if isinstance(inner, MazeEnv):
        row, column = inner.position
        return Spot(inner.walls, (2 * row + 1, 2 * column + 1), None, inner.goal)
    if isinstance(inner, MiniGridMazeEnv):
        column, row = (int(each) for each in inner.agent_pos)
        return Spot(inner.walls, (row, column), int(inner.agent_dir), (inner.cells - 1, inner.cells - 1))
    return None
