"""What an agent in a MiniGrid world remembers of an episode: a map drawn from its own views and its own moves."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_llm.describe.view import (
    DOOR,
    EMPTY,
    GOAL,
    KEY,
    LAVA,
    LOCKED,
    OPEN,
    UNSEEN,
    WALL,
    Code,
    cells_of,
    code_of,
    is_thing,
    is_walkable,
    thing_of,
)
from sb3_llm.words.facts import Thing
from sb3_llm.words.mission import parse, tasks_of, things_of

Place = tuple[int, int]  # (x east, y south) from where the episode began
Pose = tuple[
    int, int, int
]  # x, y, heading (0 east, 1 south, 2 west, 3 north); +4 n: what stands ahead is being opened or cleared
Route = tuple[str | None, int]  # first move ("ahead", "left", "right", "open", "clear"), and how many moves

Deed = tuple[str, Thing]  # ("reached" | "picked up" | "dropped" | "opened", what)

MAX_DEEDS = 4
CLEARED = 8  # moves that picking something up, putting it elsewhere and coming back may take
OFFSETS: tuple[Place, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
LEFT, RIGHT, FORWARD = 0, 1, 2  # MiniGrid's numbers of the moves


class Memory:
    """
    The known part of a world, by dead reckoning: a step forward onto a free cell moves the agent, nothing else does.

    Nothing here looks into the environment. Where a step may have failed unseen (an obstacle moved in its way), the
    walls that are in view decide.

    :param obs: the episode's first observation
    """

    def __init__(self, obs: Mapping[str, Any]) -> None:
        self.known: dict[Place, Code] = {}
        self.in_view: set[Place] = set()
        self.place: Place = (0, 0)
        self.visits: Counter[Pose] = Counter()
        self.carrying: Code | None = None
        self.deeds = Deeds(str(obs.get("mission", "")))
        self._look(obs)

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """
        Take in one step.

        :param action: MiniGrid's number of what was done
        :param obs: what was seen after it
        """
        if action == FORWARD and is_walkable(self.known.get(self.front, (UNSEEN, 0, 0))):
            stayed, moved = (self._clashes(obs, place) for place in (self.place, self.front))
            if moved <= stayed:
                self.place = self.front
        hands, front, door = self.carrying, self.front, self.known.get(self.front)
        self._look(obs)
        self.deeds.note_hands(hands, self.carrying)
        if door is not None and front == self.front:
            self.deeds.note_door(door, self.known[front])

    @property
    def front(self) -> Place:
        """:return: the place right ahead."""
        return ahead_of(self.place, self.heading)

    @property
    def pose(self) -> Pose:
        """:return: where the agent stands and looks."""
        return (*self.place, self.heading)

    def relative(self, place: Place) -> tuple[int, int]:
        """:return: a place as (steps ahead, steps right) of the agent."""
        x, y = place[0] - self.place[0], place[1] - self.place[1]
        (fx, fy), (rx, ry) = OFFSETS[self.heading], OFFSETS[(self.heading + 1) % 4]
        return x * fx + y * fy, x * rx + y * ry

    def _look(self, obs: Mapping[str, Any]) -> None:
        self.heading = int(obs["direction"])
        cells = cells_of(obs)
        self.in_view = set()
        for place, code in self._placed(cells, self.place):
            self.in_view.add(place)
            self.known[place] = code
        hands = code_of(cells[0, cells.shape[0] // 2])
        self.carrying = hands if is_thing(hands) else None
        self.known.setdefault(self.place, (EMPTY, 0, 0))
        self.visits[self.pose] += 1
        self.deeds.note_reached(self.known.get(self.front))

    def _placed(self, cells: NDArray[np.uint8], place: Place) -> list[tuple[Place, Code]]:
        """Every cell in view but the agent's own, at its place in the world."""
        middle = cells.shape[0] // 2
        (fx, fy), (rx, ry) = OFFSETS[self.heading], OFFSETS[(self.heading + 1) % 4]
        placed = []
        for ahead, right in np.argwhere(cells[..., 0] != UNSEEN).tolist():
            if (ahead, right) != (0, middle):
                side = right - middle
                at = (place[0] + ahead * fx + side * rx, place[1] + ahead * fy + side * ry)
                placed.append((at, code_of(cells[ahead, right])))
        return placed

    def _clashes(self, obs: Mapping[str, Any], place: Place) -> int:
        """How many walls in view contradict the map if the agent stands at a place."""
        before, self.heading = self.heading, int(obs["direction"])
        placed = self._placed(cells_of(obs), place)
        self.heading = before
        known = ((self.known[at][0], code[0]) for at, code in placed if at in self.known)
        return sum((was == WALL) != (now == WALL) for was, now in known)

    def routes(self, clearing: bool = False) -> dict[Pose, Route]:
        """
        The fewest moves to every pose that can be reached over known floor, breadth-first.

        Closed doors are opened on the way, and locked ones if the agent carries their key. The goal and lava are not
        walked over.

        :param clearing: balls, boxes and keys in the way may be picked up and put elsewhere, at a price in moves
        :return: for each pose the first move and the number of moves
        """
        found: dict[Pose, Route] = {self.pose: (None, 0)}
        queue = deque([self.pose])
        while queue:
            pose = queue.popleft()
            first, moves = found[pose]
            for name, after in self._moves(pose, clearing):
                if after not in found:
                    found[after] = (first or name, moves + 1)
                    queue.append(after)
        return found

    def _moves(self, pose: Pose, clearing: bool) -> list[tuple[str, Pose]]:
        x, y, (level, heading) = pose[0], pose[1], divmod(pose[2], 4)
        front = ahead_of((x, y), heading)
        if level:  # the way ahead is being opened or cleared
            return [("ahead", (*front, heading) if level == CLEARED else (x, y, pose[2] + 4))]
        turns = [("left", (x, y, (heading - 1) % 4)), ("right", (x, y, (heading + 1) % 4))]
        code = self.known.get(front, (UNSEEN, 0, 0))
        if is_walkable(code) and code[0] != GOAL:
            return [("ahead", (*front, heading)), *turns]
        if self.opens(code):
            return [("open", (x, y, heading + 4 * CLEARED)), *turns]
        if clearing and is_thing(code) and code[0] not in (DOOR, GOAL, LAVA):
            return [("clear", (x, y, heading + 4)), *turns]
        return turns

    def opens(self, code: Code) -> bool:
        """:return: whether the agent can open what stands there: a closed door, or a locked one whose key it has."""
        if code[0] != DOOR or code[2] == OPEN:
            return False
        return code[2] != LOCKED or (self.carrying is not None and self.carrying[:2] == (KEY, code[1]))

    def unknown_edges(self) -> dict[Pose, Place]:
        """:return: poses on known floor that look at a place not yet seen, with that place."""
        edges = {}
        for (x, y), code in self.known.items():
            if is_walkable(code):
                for heading in range(4):
                    front = ahead_of((x, y), heading)
                    if front not in self.known:
                        edges[x, y, heading] = front
        return edges


class Deeds:
    """
    What was done with the things that a mission of several parts names: nothing in view tells which part is done.

    :param mission: MiniGrid's own words
    """

    def __init__(self, mission: str) -> None:
        parts = tasks_of(parse(mission))
        self._named = [desc for task in parts for desc in things_of(task)] if len(parts) > 1 else []
        self._done: dict[Deed, None] = {}  # in order, the newest last

    def note_hands(self, before: Code | None, now: Code | None) -> None:
        """Take in what was carried before a step and after it."""
        if before is None and now is not None:
            self._add("picked up", now)
        if before is not None and now is None:
            self._add("dropped", before)

    def note_door(self, before: Code, now: Code) -> None:
        """Take in what stood ahead before a step and after it."""
        if now[0] == DOOR and now[2] == OPEN and before[0] == DOOR and before[2] != OPEN:
            self._add("opened", now)

    def note_reached(self, front: Code | None) -> None:
        """Take in what stands ahead."""
        if front is not None and is_thing(front) and front[0] != LAVA:
            self._add("reached", front)

    def told(self) -> tuple[Deed, ...]:
        """:return: the last few deeds, oldest first."""
        return tuple(self._done)[-MAX_DEEDS:]

    def _add(self, deed: str, code: Code) -> None:
        thing = thing_of(code)._replace(state=None)
        if any(desc.fits(thing) for desc in self._named):
            self._done.pop((deed, thing), None)
            self._done[deed, thing] = None


def ahead_of(place: Place, heading: int) -> Place:
    """:return: the next place in a heading."""
    x, y = OFFSETS[heading]
    return place[0] + x, place[1] + y
