"""What an observation and the agent's own past amount to, before any words: plain tuples that a wording tells."""

from typing import NamedTuple


class Thing(NamedTuple):
    """Something in a MiniGrid world, by MiniGrid's own names."""

    kind: str  # "wall", "door", "key", "ball", "box", "goal", "lava", ...; "opening": where unseen floor may begin
    color: str | None = None  # None: says nothing (walls, goals, lava)
    state: str | None = None  # of a door: "open", "closed" or "locked"


class Spot(NamedTuple):
    """A thing at its place relative to the agent, in steps, and the way there over floor the agent has seen."""

    thing: Thing
    ahead: int  # negative: behind
    right: int  # negative: left
    way: str | None = None  # the first move: "ahead", "left", "right", "open" (a door in between), or "here": in reach
    moves: int | None = None  # how many moves, turns counted; None with way: no way known


class Free(NamedTuple):
    """How many steps are free in a direction, and what ends them."""

    direction: str  # "ahead", "left" or "right"
    steps: int
    end: Thing | None  # None: the view's edge


class Rows(NamedTuple):
    """A rectangle of floor in the view: from row to row ahead, from the left end to the right end (left negative)."""

    first: int
    last: int
    left: int
    right: int


class View(NamedTuple):
    """All that one MiniGrid observation shows."""

    compass: str | None  # "east", "south", "west", "north"; None: not told
    carrying: Thing | None
    free: tuple[Free, ...]
    seen: tuple[Spot, ...]  # the nearest first
    floor: tuple[Rows, ...] | None  # None: not told


class Past(NamedTuple):
    """What the agent itself saw and did before, in this episode."""

    turns: tuple[str, ...]  # the last actions by their keys ("turn left", ...), newest last
    visits: int | None = None  # how often it was here, now included; None: no summary is told, turns alone
    untried: tuple[Spot, ...] = ()  # closed doors and openings it has not been through, the nearest first
    before: tuple[Spot, ...] = ()  # things seen earlier that the view does not show, where they are relative to now
    deeds: tuple[tuple[str, Thing], ...] = ()  # ("reached" | "picked up" | "dropped" | "opened", thing), oldest first


class Passage(NamedTuple):
    """One of the four ways from a maze's cell."""

    direction: str  # "north", "south", "east", "west"
    kind: str  # "wall", "goal" or "open"
    walked: bool = False
    exits: tuple[str, ...] = ()  # of the cell behind it, without the way back


class MazeView(NamedTuple):
    """All that a maze's observation tells."""

    south: int  # steps to the goal; negative: north
    east: int  # negative: west
    row: int  # from 1
    column: int
    passages: tuple[Passage, ...]


class Trail(NamedTuple):
    """The way to a cell of a maze that was seen and not walked."""

    direction: str  # of the first step
    steps: int


class MazePast(NamedTuple):
    """What the walker itself saw and did before, in this episode."""

    turns: tuple[str, ...]  # the last actions by their keys ("north", ...), newest last
    visits: int | None = None  # how often it was in this cell, now included; None: no summary is told, turns alone
    untried: tuple[Trail, ...] = ()  # the best first
