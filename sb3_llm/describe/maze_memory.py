"""What a walker in a maze remembers of an episode: the cells it was in, and the exits it has seen."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_llm.envs.layout import DIRECTIONS, Cell, neighbour
from sb3_llm.envs.maze import Code, view_grid
from sb3_llm.words.facts import MazePast, Trail

MAX_UNTRIED = 2  # the best of them; the others come up as these are tried


class MazeMemory:
    """
    The known part of a maze. Nothing here looks into the environment: the observation tells the walker's own cell.

    :param obs: the episode's first observation
    """

    def __init__(self, obs: Mapping[str, Any]) -> None:
        self.exits: dict[Cell, list[int]] = {}  # the open directions of every cell seen
        self.visits: Counter[Cell] = Counter()
        self.note(obs)

    def note(self, obs: Mapping[str, Any]) -> None:
        """Take in one more observation."""
        row, column = (int(x) for x in obs["position"])
        goal_row, goal_column = (int(x) for x in obs["goal"])
        self.cell, self.goal = (row, column), (goal_row, goal_column)
        self.visits[self.cell] += 1
        view = view_grid(np.asarray(obs["view"]))
        down, right = (int(x) for x in np.argwhere(view == Code.AGENT)[0])
        for r in range(down % 2, view.shape[0] - 1, 2):
            for c in range(right % 2, view.shape[1] - 1, 2):
                cell = (row + (r - down) // 2, column + (c - right) // 2)
                if r > 0 and c > 0 and self._is_seen(view, (r, c), (down, right)):
                    self.exits[cell] = [a for a in range(4) if view[_next((r, c), a)] != Code.WALL]

    def _is_seen(self, view: NDArray[np.uint8], square: Cell, here: Cell) -> bool:
        """The walker's own cell and, as in the text, the cells one open step away; with the whole map, all."""
        if view.shape[0] > 7 or view[square] == Code.OUTSIDE:
            return view[square] != Code.OUTSIDE
        apart = (square[0] - here[0], square[1] - here[1])
        if apart == (0, 0):
            return True
        if abs(apart[0]) + abs(apart[1]) != 2:
            return False
        return bool(view[here[0] + apart[0] // 2, here[1] + apart[1] // 2] != Code.WALL)

    def past(self, turns: tuple[str, ...]) -> MazePast:
        """:return: the last actions, how often the walker was here, and the best cells to try."""
        return MazePast(turns, self.visits[self.cell], tuple(self.untried()[:MAX_UNTRIED]))

    def untried(self) -> list[Trail]:
        """:return: ways to the cells that were seen and not walked, those most likely on the way to the goal first."""
        ranked: list[tuple[int, int, Trail]] = []
        found: dict[Cell, tuple[int | None, int]] = {self.cell: (None, 0)}
        queue = deque([self.cell])
        while queue:
            cell = queue.popleft()
            first, steps = found[cell]
            if first is not None and self.visits[cell] == 0 and self._may_lead_on(cell):
                apart = abs(cell[0] - self.goal[0]) + abs(cell[1] - self.goal[1])
                ranked.append((steps + apart, steps, Trail(DIRECTIONS[first], steps)))
            for action in self.exits.get(cell, ()):
                target = neighbour(cell, action)
                if target not in found:
                    found[target] = (action if first is None else first, steps + 1)
                    queue.append(target)
        return [trail for _, _, trail in sorted(ranked, key=lambda entry: entry[:2])]

    def _may_lead_on(self, cell: Cell) -> bool:
        """Whether a cell is the goal, or not yet known to be a dead end."""
        return cell == self.goal or len(self.exits.get(cell, (0, 0))) > 1


def _next(square: Cell, action: int) -> Cell:
    """The square of the wall grid that lies in a direction."""
    down, right = neighbour((0, 0), action)
    return square[0] + down, square[1] + right
