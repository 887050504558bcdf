"""What one MiniGrid observation shows, as facts: ``image`` and ``direction`` alone, no look into the environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from numpy.typing import NDArray

from sb3_llm.words.facts import Free, Rows, Spot, Thing, View

COMPASS = ("east", "south", "west", "north")
UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, BOX, GOAL, LAVA, AGENT = (
    OBJECT_TO_IDX[name] for name in ("unseen", "empty", "wall", "floor", "door", "key", "box", "goal", "lava", "agent")
)
OPEN, LOCKED = STATE_TO_IDX["open"], STATE_TO_IDX["locked"]

_OBJECT = {index: name for name, index in OBJECT_TO_IDX.items()}
_COLOR = {index: name for name, index in COLOR_TO_IDX.items()}
_DOOR_STATE = {index: name for name, index in STATE_TO_IDX.items()}
_GROUND = (UNSEEN, EMPTY, WALL, FLOOR, AGENT)  # told as floor, walls and free distance, not as things
_COLORLESS = ("goal", "lava")  # always of the same colour, so the colour says nothing
_DIRECTIONS = (("ahead", (1, 0)), ("left", (0, -1)), ("right", (0, 1)))

Cell = tuple[int, int]  # (steps ahead, steps right); left is negative
Code = tuple[int, int, int]  # (object, color, state) by MiniGrid's numbers


def read_view(obs: Mapping[str, Any], compass: bool = True) -> View:
    """
    :param obs: MiniGrid's own observation: ``image`` (V, V, 3) uint8, ``direction`` int
    :param compass: whether the heading is told
    :return: the facts
    """
    cells = cells_of(obs)
    return View(
        compass=COMPASS[int(obs["direction"])] if compass else None,
        carrying=carried(cells),
        free=tuple(_free_way(cells, name, step) for name, step in _DIRECTIONS),
        seen=tuple(Spot(thing_of(code), *cell) for cell, code in things(cells)),
        floor=tuple(_floor(cells)),
    )


def cells_of(obs: Mapping[str, Any]) -> NDArray[np.uint8]:
    """:return: MiniGrid's image[right, down] as [ahead, right, (object, color, state)], the agent at [0, V // 2]."""
    return np.asarray(obs["image"]).transpose(1, 0, 2)[::-1]


def carried(cells: NDArray[np.uint8]) -> Thing | None:
    """:return: what the agent carries: MiniGrid draws it into the agent's own cell."""
    code = cells[0, cells.shape[0] // 2]
    return None if code[0] in _GROUND else thing_of(code)


def is_walkable(code: Any) -> bool:
    """:return: whether a step onto a cell is possible and does no harm."""
    return code[0] in (EMPTY, FLOOR, GOAL) or (code[0] == DOOR and code[2] == OPEN)


def is_thing(code: Any) -> bool:
    """:return: whether a cell holds something that is told by its name and place."""
    return code[0] not in _GROUND


def thing_of(code: Any) -> Thing:
    """:return: a cell's thing by its names."""
    kind = _OBJECT[int(code[0])]
    if code[0] in _GROUND or kind in _COLORLESS:
        return Thing(kind)
    return Thing(kind, _COLOR[int(code[1])], _DOOR_STATE[int(code[2])] if code[0] == DOOR else None)


def things(cells: NDArray[np.uint8]) -> list[tuple[Cell, Code]]:
    """:return: every visible thing, the nearest first."""
    middle = cells.shape[0] // 2
    shown = ~np.isin(cells[..., 0], _GROUND)
    shown[0, middle] = False  # the agent's own cell: what it carries
    places = [(int(a), int(r) - middle) for a, r in np.argwhere(shown)]
    places.sort(key=lambda cell: (cell[0] + abs(cell[1]), cell))
    return [((a, r), code_of(cells[a, r + middle])) for a, r in places]


def code_of(cell: NDArray[np.uint8]) -> Code:
    """:return: (object, color, state) as plain numbers."""
    return int(cell[0]), int(cell[1]), int(cell[2])


def _free_way(cells: NDArray[np.uint8], name: str, step: Cell) -> Free:
    size, middle, distance = cells.shape[0], cells.shape[0] // 2, 0
    while True:
        ahead, right = (distance + 1) * step[0], middle + (distance + 1) * step[1]
        if not (ahead < size and 0 <= right < size):
            return Free(name, distance, None)
        if not is_walkable(cells[ahead, right]):
            return Free(name, distance, thing_of(cells[ahead, right]))
        distance += 1


def _floor(cells: NDArray[np.uint8]) -> list[Rows]:
    """
    The visible cells that are no wall, as rectangles: rows ahead by columns from the left end to the right end.

    Things stand on this floor too, so a room stays one rectangle however full it is.
    """
    size = cells.shape[0]
    on_floor = ~np.isin(cells[..., 0], (UNSEEN, WALL))
    rectangles: list[tuple[int, int, int, int]] = []  # (first row, left, right, last row)
    growing: dict[Cell, int] = {}
    for row in range(size + 1):
        runs = _runs(on_floor[row]) if row < size else []
        for (left, right), first in list(growing.items()):
            if (left, right) not in runs:
                rectangles.append((first, left, right, row - 1))
                del growing[left, right]
        for run in runs:
            growing.setdefault(run, row)
    middle = size // 2
    return [Rows(first, last, left - middle, right - middle) for first, left, right, last in sorted(rectangles)]


def _runs(row: NDArray[np.bool_]) -> list[Cell]:
    """First and last index of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]
