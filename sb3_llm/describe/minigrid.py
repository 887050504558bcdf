"""MiniGrid and BabyAI observations in words, from what the agent itself sees: ``image``, ``direction``, ``mission``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from numpy.typing import NDArray

PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "open", "done")
COMPASS = ("east", "south", "west", "north")

_OBJECT = {index: name for name, index in OBJECT_TO_IDX.items()}
_COLOR = {index: name for name, index in COLOR_TO_IDX.items()}
_DOOR_STATE = {index: name for name, index in STATE_TO_IDX.items()}
_UNSEEN, _EMPTY, _WALL, _FLOOR, _DOOR, _GOAL, _AGENT = (
    OBJECT_TO_IDX[name] for name in ("unseen", "empty", "wall", "floor", "door", "goal", "agent")
)
_OPEN = STATE_TO_IDX["open"]
_GROUND = (_UNSEEN, _EMPTY, _WALL, _FLOOR, _AGENT)  # told as floor, walls and free distance, not as things
_COLORLESS = ("goal", "lava")  # always of the same colour, so the colour says nothing

Cell = tuple[int, int]  # (steps ahead, steps right); left is negative


def describe_minigrid(obs: Mapping[str, Any]) -> str:
    """
    Say all that a MiniGrid observation shows: mission, compass, carried thing, free ways, things, the floor's shape.

    Positions are egocentric, in steps, as in BabyAI-Text (GLAM, arXiv 2302.02662); compass, free distances and the
    floor are added because walls are most of what there is to see in a maze, and BabyAI-Text leaves them out.

    :param obs: MiniGrid's own observation: ``image`` (V, V, 3) uint8, ``direction`` int, ``mission`` str
    :return: the observation text, a few sentences in one line
    """
    view = _view(np.asarray(obs["image"]))
    size = view.shape[0]
    carried = _carried(view)
    sentences = [
        f"Goal: {obs['mission']}",
        f"Facing {COMPASS[int(obs['direction'])]}, carrying {carried}",
        ", ".join(_free_way(view, name, step) for name, step in _WAYS),
        f"Seen: {', '.join(_things(view, size)) or 'nothing'}",
        f"Floor: {'; '.join(_floor(view, size))}",
    ]
    return ". ".join(sentences) + "."


_WAYS: tuple[tuple[str, Cell], ...] = (("Ahead", (1, 0)), ("left", (0, -1)), ("right", (0, 1)))


def _view(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reorder (V, V, 3) from MiniGrid's image[right, down] to view[ahead, right], the agent at [0, V // 2]."""
    return image.transpose(1, 0, 2)[::-1]


def _carried(view: NDArray[np.uint8]) -> str:
    thing = view[0, view.shape[0] // 2]  # MiniGrid draws what is carried into the agent's own cell
    return "nothing" if thing[0] in _GROUND else f"a {_name(thing)}"


def _free_way(view: NDArray[np.uint8], name: str, step: Cell) -> str:
    """How many steps are free in one direction, and what ends the way."""
    size, middle, distance = view.shape[0], view.shape[0] // 2, 0
    while True:
        ahead, right = (distance + 1) * step[0], middle + (distance + 1) * step[1]
        if not (ahead < size and 0 <= right < size):
            return f"{name} {distance} free"
        if not _walkable(view[ahead, right]):
            return f"{name} {distance} free then {_name(view[ahead, right])}"
        distance += 1


def _walkable(cell: NDArray[np.uint8]) -> bool:
    return cell[0] in (_EMPTY, _FLOOR, _GOAL) or (cell[0] == _DOOR and cell[2] == _OPEN)


def _name(cell: NDArray[np.uint8]) -> str:
    thing, color = _OBJECT[int(cell[0])], _COLOR[int(cell[1])]
    if cell[0] in _GROUND or thing in _COLORLESS:
        return thing
    if cell[0] == _DOOR:
        return f"{_DOOR_STATE[int(cell[2])]} {color} door"
    return f"{color} {thing}"


def _things(view: NDArray[np.uint8], size: int) -> list[str]:
    """Every visible thing with its place, the nearest first."""
    middle = size // 2
    is_thing = ~np.isin(view[..., 0], _GROUND)
    is_thing[0, middle] = False  # the agent's own cell: what it carries
    cells = [(int(a), int(r) - middle) for a, r in np.argwhere(is_thing)]
    cells.sort(key=lambda cell: (cell[0] + abs(cell[1]), cell))
    return [f"{_name(view[a, r + middle])} {_place((a, r))}" for a, r in cells]


def _place(cell: Cell) -> str:
    ahead, right = cell
    words = [f"{ahead} ahead"] if ahead else []
    words += [_side(right)] if right else []
    return " ".join(words)


def _side(right: int) -> str:
    return "middle" if right == 0 else f"{abs(right)} {'left' if right < 0 else 'right'}"


def _floor(view: NDArray[np.uint8], size: int) -> list[str]:
    """
    The visible cells that are no wall, as rectangles: rows ahead by columns from the left end to the right end.

    Things stand on this floor too, so a room stays one rectangle however full it is.
    """
    on_floor = ~np.isin(view[..., 0], (_UNSEEN, _WALL))
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
    return [_rectangle(first, last, left, right, size // 2) for first, left, right, last in sorted(rectangles)]


def _runs(row: NDArray[np.bool_]) -> list[Cell]:
    """First and last index of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _rectangle(first: int, last: int, left: int, right: int, middle: int) -> str:
    rows = f"{first}" if first == last else f"{first} to {last}"
    columns = _side(left - middle) if left == right else f"{_side(left - middle)} to {_side(right - middle)}"
    return f"{rows} ahead {columns}"
