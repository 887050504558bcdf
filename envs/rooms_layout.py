"""
Floor plans of random MiniGrid worlds as pure functions: rectangles of floor, and the wall cells that join two of them.

A cell is (x, y), x to the east and y to the south. Every cell that is in no room and no link is wall.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

Cell = tuple[int, int]
T = TypeVar("T")

OFFSETS: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))  # MiniGrid's headings: east, south, west, north
MIN_SIDE, MAX_SIDE = 2, 7  # of a room, in cells inside; rooms beside a hall may have less
NOWHERE = -1  # the room behind a link that leads into the wall

#: Outer sizes (width, height) of registered MiniGrid and BabyAI ids, but for the square ones, which are never drawn.
TAKEN_SIZES = frozenset(
    [(7, 3), (7, 4), (7, 5), (9, 5), (9, 7), (11, 6), (12, 6), (13, 7), (13, 9), (15, 8), (16, 6), (16, 8)]
)


class Room(NamedTuple):
    """A rectangle of floor, borders included."""

    left: int
    top: int
    right: int
    bottom: int

    def cells(self) -> list[Cell]:
        """:return: its cells, row by row."""
        return [(x, y) for y in range(self.top, self.bottom + 1) for x in range(self.left, self.right + 1)]


class Link(NamedTuple):
    """A wall cell that joins two rooms, given by their numbers."""

    cell: Cell
    first: int
    second: int


@dataclass(frozen=True)
class Plan:
    """
    Rooms and how they are joined.

    :param width: outer width in cells, walls included
    :param height: outer height in cells
    :param rooms: rectangles that don't touch
    :param links: wall cells between two rooms; ``second`` is :data:`NOWHERE` for one with a wall behind it
    """

    width: int
    height: int
    rooms: tuple[Room, ...]
    links: tuple[Link, ...]

    def replace_links(self, links: Iterable[Link]) -> "Plan":
        """:return: the same rooms, joined otherwise."""
        return Plan(self.width, self.height, self.rooms, tuple(links))


def neighbours(cell: Cell) -> list[Cell]:
    """:return: the four cells beside a cell."""
    return [(cell[0] + x, cell[1] + y) for x, y in OFFSETS]


def flood(free: Collection[Cell], start: Cell) -> list[Cell]:
    """:return: the cells that can be walked to over free ones, nearest first, with the start itself."""
    found, seen = [start], {start}
    for cell in found:  # grows as it is walked
        for near in neighbours(cell):
            if near in free and near not in seen:
                seen.add(near)
                found.append(near)
    return found


def pick(rng: np.random.Generator, options: Collection[T]) -> T:
    """:return: one of the options, each as likely."""
    options = list(options)
    return options[int(rng.integers(len(options)))]


def shuffled(rng: np.random.Generator, options: Iterable[T]) -> list[T]:
    """:return: the options in random order."""
    options = list(options)
    return [options[index] for index in rng.permutation(len(options)).tolist()]


@lru_cache(maxsize=1000)
def free_sizes(widths: range, heights: range) -> list[Cell]:
    """:return: outer sizes that no MiniGrid id has."""
    sizes = [(width, height) for width in widths for height in heights if width != height]
    return [size for size in sizes if size not in TAKEN_SIZES]


def draw_size(rng: np.random.Generator, low: int, high: int) -> Cell:
    """:return: an outer width and height from low (or two below high) to high that no MiniGrid id has."""
    low = min(low, high - 2)
    return pick(rng, free_sizes(range(low, high + 1), range(low, high + 1)))


# --- how rooms are joined


def shared_wall(first: Room, second: Room) -> list[Cell]:
    """:return: the cells of the wall that two rooms share, where a door would lead from one into the other."""
    rows = range(max(first.top, second.top), min(first.bottom, second.bottom) + 1)
    columns = range(max(first.left, second.left), min(first.right, second.right) + 1)
    for left, right in ((first, second), (second, first)):
        if left.right + 2 == right.left:
            return [(left.right + 1, y) for y in rows]
        if left.bottom + 2 == right.top:
            return [(x, left.bottom + 1) for x in columns]
    return []


def join_rooms(rng: np.random.Generator, rooms: list[Room], extra: float) -> tuple[Link, ...]:
    """
    Join all rooms by a random spanning tree (Kruskal), and some more.

    :param extra: the share of walls that get a link though their rooms are joined already
    :return: one link a wall
    """
    pairs = [(a, b) for b in range(len(rooms)) for a in range(b)]
    walls = [(a, b, cells) for a, b in pairs if (cells := shared_wall(rooms[a], rooms[b]))]
    group = list(range(len(rooms)))
    links = []
    for a, b, cells in shuffled(rng, walls):
        if group[a] != group[b]:
            group = [group[a] if number == group[b] else number for number in group]
        elif rng.random() >= extra:
            continue
        links.append(Link(pick(rng, cells), a, b))
    return tuple(links)


def side_of(links: Iterable[Link], room: int, without: Link | None = None) -> set[int]:
    """:return: the rooms that are joined to a room, over any link but one."""
    links = [link for link in links if link != without and link.second != NOWHERE]
    found = [room]
    for number in found:  # grows as it is walked
        for link in links:
            if number in (link.first, link.second):
                other = link.first + link.second - number
                if other not in found:
                    found.append(other)
    return set(found)


def longest_walk(rng: np.random.Generator, links: Iterable[Link], count: int) -> list[Link]:
    """:return: the links of a walk through at most that many rooms that enters no room twice; the best of a few."""
    links = list(links)
    best: list[Link] = []
    for _ in range(6):
        room = pick(rng, links).first
        walk: list[Link] = []
        seen = {room}
        while len(seen) < count:
            ways = [link for link in links if (link.first in seen) != (link.second in seen)]
            ways = [link for link in ways if room in (link.first, link.second)]
            if not ways:
                break
            link = pick(rng, ways)
            room = link.first + link.second - room
            seen.add(room)
            walk.append(Link(link.cell, link.first + link.second - room, room))
        best = max(best, walk, key=len)
    return best


# --- plans


def divide(rng: np.random.Generator, size: Cell, count: int, extra: float = 0.0) -> Plan:
    """
    Divide a rectangle again and again.

    :param size: outer width and height
    :param count: how many rooms are wanted; more if some would be longer than :data:`MAX_SIDE`
    :param extra: see :func:`join_rooms`
    :return: the rooms, all joined
    """
    width, height = size
    rooms = [Room(1, 1, width - 2, height - 2)]
    while True:
        long = [room for room in rooms if max(_sides(room)) > MAX_SIDE]
        wide = [room for room in rooms if max(_sides(room)) > 2 * MIN_SIDE] if len(rooms) < count else []
        if not long and not wide:
            return Plan(width, height, tuple(rooms), join_rooms(rng, rooms, extra))
        room = pick(rng, long or wide)
        rooms.remove(room)
        rooms += _halves(rng, room)


def _sides(room: Room) -> Cell:
    return room.right - room.left + 1, room.bottom - room.top + 1


def _halves(rng: np.random.Generator, room: Room) -> list[Room]:
    sides = _sides(room)
    least = MAX_SIDE + 1 if max(sides) > MAX_SIDE else 2 * MIN_SIDE + 1
    if pick(rng, [axis for axis in (0, 1) if sides[axis] >= least]) == 0:
        x = int(rng.integers(room.left + MIN_SIDE, room.right - MIN_SIDE + 1))
        return [room._replace(right=x - 1), room._replace(left=x + 1)]
    y = int(rng.integers(room.top + MIN_SIDE, room.bottom - MIN_SIDE + 1))
    return [room._replace(bottom=y - 1), room._replace(top=y + 1)]


def divided(rng: np.random.Generator, max_size: int, low: int, high: int, extra: float = 0.0) -> Plan:
    """
    Draw a floor and divide it.

    :param max_size: the largest outer width and height
    :param low: how many rooms at least, if the floor holds them
    :param high: how many rooms at most, if none would be too long
    :param extra: see :func:`join_rooms`
    :return: the rooms, all joined
    """
    count = int(rng.integers(low, high + 1))
    size = draw_size(rng, 4, MAX_SIDE + 2) if count == 1 else draw_size(rng, 7 if count < 4 else 9, max_size)
    return divide(rng, size, count, extra)


def one_room(size: Cell) -> Plan:
    """:return: one room that fills an outer width and height."""
    return Plan(*size, (Room(1, 1, size[0] - 2, size[1] - 2),), ())


def rivers(rng: np.random.Generator, size: Cell, count: int, extra: float = 0.0) -> Plan:
    """
    Cross a rectangle with rivers of both orientations, no two side by side.

    :param size: outer width and height
    :param count: how many rivers, fewer if they have no room
    :param extra: see :func:`join_rooms`
    :return: the banks as rooms, all joined by gaps
    """
    chosen: tuple[list[int], list[int]] = ([], [])
    for axis in rng.integers(2, size=count).tolist():
        places = [at for at in range(2, size[axis] - 2) if all(abs(at - river) > 1 for river in chosen[axis])]
        if places:
            chosen[axis].append(pick(rng, places))
    columns, rows = (_banks(chosen[axis], size[axis]) for axis in (0, 1))
    rooms = [Room(left, top, right, bottom) for left, right in columns for top, bottom in rows]
    return Plan(*size, tuple(rooms), join_rooms(rng, rooms, extra))


def _banks(chosen: list[int], length: int) -> list[Cell]:
    edges = [0, *sorted(chosen), length - 1]
    return [(low + 1, high - 1) for low, high in pairwise(edges)]


def chain(rng: np.random.Generator, size: Cell, count: int) -> Plan:
    """
    Keep of a divided rectangle only the rooms of one winding walk.

    :param size: outer width and height
    :param count: how many rooms at most
    :return: the rooms in the order of the walk
    """
    whole = divide(rng, size, 3 * count, extra=1.0)
    walk = longest_walk(rng, whole.links, count)
    order = [walk[0].first, *(link.second for link in walk)]
    links = tuple(Link(link.cell, number, number + 1) for number, link in enumerate(walk))
    return Plan(*size, tuple(whole.rooms[number] for number in order), links)


def hall(rng: np.random.Generator, max_size: int, least: int = MIN_SIDE) -> Plan:
    """
    Lay rooms on both sides of a corridor.

    :param max_size: the largest outer width and height, 9 or more
    :param least: cells that the rooms' sides have at least
    :return: the corridor as room 0, and the others, each joined to it by one link
    """
    across, along = range(2 * least + 5, min(max_size, 2 * MAX_SIDE + 5) + 1), range(2 * least + 2, max_size + 1)
    upright = bool(rng.integers(2))
    width, height = pick(rng, free_sizes(across, along) if upright else free_sizes(along, across))
    width, height = (width, height) if upright else (height, width)
    broad = int(rng.integers(1, min(3, width - 4 - 2 * least) + 1))
    both = width - 4 - broad  # the rooms' depths together
    deep = int(rng.integers(max(least, both - MAX_SIDE), min(MAX_SIDE, both - least) + 1))
    sides = ((1, deep), (deep + broad + 3, width - 2))
    rooms = [Room(deep + 2, 1, deep + broad + 1, height - 2)]
    rooms += [Room(left, top, right, bottom) for left, right in sides for top, bottom in _segments(rng, height, least)]
    if not upright:
        rooms = [Room(top, left, bottom, right) for left, top, right, bottom in rooms]
        width, height = height, width
    doors = [Link(pick(rng, shared_wall(rooms[0], room)), 0, number) for number, room in enumerate(rooms) if number]
    return Plan(width, height, tuple(rooms), tuple(doors))


def _segments(rng: np.random.Generator, length: int, least: int) -> list[Cell]:
    """Cut the inside of a length into rooms."""
    found, low, high = [], 1, length - 2
    while (left := high - low + 1) > MAX_SIDE or (left > 2 * least and rng.integers(3)):
        size = int(rng.integers(least, min(left - least - 1, MAX_SIDE) + 1))
        found.append((low, low + size - 1))
        low += size + 1
    return [*found, (low, high)]


def closets(rng: np.random.Generator, max_size: int, count: int) -> Plan:
    """
    Set doors into the walls of one room, with nothing but wall behind them.

    :param max_size: the largest outer width and height, 8 or more
    :param count: how many doors
    :return: one room with links to nowhere
    """
    width, height = draw_size(rng, 7, min(max_size, MAX_SIDE + 4))
    room = Room(2, 2, width - 3, height - 3)
    edge = [(x, y) for x in range(2, width - 2) for y in (1, height - 2)]
    edge += [(x, y) for x in (1, width - 2) for y in range(2, height - 2)]
    return Plan(width, height, (room,), tuple(Link(cell, 0, NOWHERE) for cell in shuffled(rng, edge)[:count]))
