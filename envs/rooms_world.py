"""A random MiniGrid world while it is drawn: what lies where, what is asked for, and the proof that it can be done."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, WorldObj

from sb3_llm.envs.rooms_layout import OFFSETS, Cell, Plan, flood, neighbours, pick, shuffled

REACH, GREEN, TRAVERSE = "reach the goal", "get to the green goal square", "traverse the rooms to get to the goal"
USE_KEY = "use the key to open the door and then get to the goal"
OPENING, LAVA = "find the opening and get to the green goal square", "avoid the lava and get to the green goal square"

THINGS: dict[str, Callable[[str], WorldObj]] = {"key": Key, "ball": Ball, "box": Box}


class Crowded(Exception):
    """A drawn plan has no place for what the kind needs; another draw will."""


class Task(NamedTuple):
    """
    What counts as success.

    :param verb: "reach", "go to", "say done", "pick up", "fetch", "open", "open two", "put next to", "put near" or
        "carry to"
    :param target: the thing that is named first
    :param second: the thing that is named second
    """

    verb: str
    target: WorldObj
    second: WorldObj | None = None


@dataclass
class World:
    """
    A world while it is drawn.

    :param rng: every draw comes from here
    :param plan: where floor is
    :param things: what lies on it, doors included
    :param lock: the locked door that must be opened
    :param key: where its key lies, or the box that holds it
    :param blocker: where something lies right before that door
    """

    rng: np.random.Generator
    plan: Plan
    things: dict[Cell, WorldObj] = field(default_factory=dict)
    agent: Cell = (0, 0)
    heading: int = 0
    mission: str = ""
    task: Task = field(default_factory=lambda: Task("reach", Goal()))
    lock: Cell | None = None
    key: Cell | None = None
    blocker: Cell | None = None

    def __post_init__(self) -> None:
        self.floor = {cell for room in self.plan.rooms for cell in room.cells()}
        self.links = {link.cell for link in self.plan.links}
        self.fronts = {near for cell in self.links for near in neighbours(cell)}

    # --- putting things somewhere

    def put(self, thing: WorldObj, rooms: Iterable[int] | None = None) -> Cell:
        """:return: where the thing lies now: in one of the rooms, not before a door or gap where that is possible."""
        chosen = self.plan.rooms if rooms is None else [self.plan.rooms[number] for number in sorted(rooms)]
        taken = self.things.keys() | {self.agent}
        free = [cell for room in chosen for cell in room.cells() if cell not in taken]
        if not free:
            raise Crowded
        cell = pick(self.rng, [cell for cell in free if cell not in self.fronts] or free)
        self.things[cell] = thing
        return cell

    def ask(self, mission: str, verb: str, target: WorldObj, second: WorldObj | None = None) -> None:
        """Say what is to be done."""
        self.mission, self.task = mission, Task(verb, target, second)

    def put_goal(self, mission: str, rooms: Iterable[int] | None = None) -> None:
        """Put the goal somewhere and ask for it."""
        self.put(self.task.target, rooms)
        self.mission = mission

    def put_agent(self, rooms: Iterable[int] | None = None, among: Collection[Cell] | None = None) -> None:
        """Let the agent start on a free cell of some rooms, or on one among some cells."""
        chosen = self.plan.rooms if rooms is None else [self.plan.rooms[number] for number in rooms]
        cells = [cell for room in chosen for cell in room.cells()] if among is None else among
        free = [cell for cell in cells if cell not in self.things]
        if isinstance(self.things.get((self.plan.width - 2, self.plan.height - 2)), Goal):
            free = [cell for cell in free if cell != (1, 1)]  # both corners are the set-up of most MiniGrid ids
        if not free:
            raise Crowded
        self.agent, self.heading = pick(self.rng, free), int(self.rng.integers(4))

    def put_doors(self, share: float, colors: Collection[str] = COLOR_NAMES) -> None:
        """Close a share of the links by doors; colours repeat only when they run out."""
        deck: list[str] = []
        for link in shuffled(self.rng, self.plan.links):
            if link.cell not in self.things and self.rng.random() < share:
                deck = deck or shuffled(self.rng, colors)
                self.things[link.cell] = Door(deck.pop())

    def put_objects(self, count: int, but: Collection[str] = ()) -> None:
        """Scatter keys, balls and boxes that no name among some fits."""
        for _ in range(count):
            self.put(draw_thing(self.rng, but))

    # --- looking

    def where(self, thing: WorldObj) -> Cell:
        """:return: the cell of a thing."""
        return next(cell for cell, other in self.things.items() if other is thing)

    def front(self) -> Cell:
        """:return: the cell right before the agent."""
        return self.agent[0] + OFFSETS[self.heading][0], self.agent[1] + OFFSETS[self.heading][1]

    def doors(self) -> list[Door]:
        """:return: the doors whose colour no other door has."""
        found = [thing for thing in self.things.values() if isinstance(thing, Door)]
        colors = Counter(door.color for door in found)
        return [door for door in found if colors[door.color] == 1]

    def walkable(self) -> set[Cell]:
        """:return: cells that can be walked over though nothing is moved or unlocked; the goal ends a walk."""
        shut = {cell for cell, thing in self.things.items() if not isinstance(thing, Door) or thing.is_locked}
        return (self.floor | self.links) - shut


def draw_thing(rng: np.random.Generator, but: Collection[str] = (), kinds: Collection[str] = tuple(THINGS)) -> WorldObj:
    """:return: a key, ball or box whose name is none of some."""
    names = [(color, kind) for color in COLOR_NAMES for kind in kinds if f"{color} {kind}" not in but]
    color, kind = pick(rng, names)
    return THINGS[kind](color)


def ask_to_open(world: World, door: WorldObj) -> None:
    """Ask for a door to be opened, by colour unless it is the only one."""
    only = sum(isinstance(thing, Door) for thing in world.things.values()) == 1
    world.ask("open the door" if only else f"open the {door.color} door", "open", door)


def name_of(thing: WorldObj) -> str:
    """:return: colour and kind, as in "red ball"."""
    return f"{thing.color} {thing.type}"


# --- the proof


def is_solvable(world: World) -> bool:
    """
    Prove by floods that the task can be done with nothing moved but the key, what blocks its door, and the target.

    Where hands must be emptied on the way there must be cells to put things on. A flood names the nearest cells first,
    so the last ones can be given up and the others still hang together.

    :param world: drawn to its end
    :return: False also for some worlds that could be solved by clearing a way
    """
    free = world.walkable()
    area = flood(free, world.agent)
    drops = (world.blocker is not None) + (world.lock is not None and world.task.verb == "pick up")
    floor = [number for number, cell in enumerate(area) if number and cell in world.floor]
    if len(floor) < drops:
        return False
    kept = set(area[: floor[-drops]]) if drops else set(area)
    if world.lock is None:
        return _can_finish(world, kept)
    moved = {cell for cell in (world.key, world.blocker) if cell is not None}
    free = (free - set(area)) | kept | moved
    if not all(_touches(kept, cell) for cell in moved):
        return False
    return _can_finish(world, set(flood(free | {world.lock}, world.agent)))


def _touches(area: Collection[Cell], cell: Cell) -> bool:
    return any(near in area for near in neighbours(cell))


def _can_finish(world: World, area: set[Cell]) -> bool:
    verb, target, second = world.task
    if not _touches(area, world.where(target)):
        return False
    if second is None:
        return True
    beside = world.where(second)
    if verb == "open two":  # the first door must not lie behind the second
        first = world.where(target)
        return _touches(flood(world.walkable() - {first, beside}, world.agent), first) and _touches(area, beside)
    return any(near in area & world.floor and _touches(area, near) for near in neighbours(beside))
