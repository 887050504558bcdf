"""A player for the project's random MiniGrid worlds that knows everything, and what tests look at in them."""

import re
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import minigrid  # noqa: F401  # registers the ids
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES, DIR_TO_VEC
from minigrid.core.world_object import Box, Door, Key, WorldObj

from sb3_llm.envs.rooms import RoomsEnv

Place = tuple[int, int]
NAMED = re.compile(rf"({'|'.join(COLOR_NAMES)}) (key|ball|box|door)")


def beside(place: Place) -> list[Place]:
    return [(place[0] + int(x), place[1] + int(y)) for x, y in DIR_TO_VEC]


def things_of(env: RoomsEnv) -> dict[Place, WorldObj]:
    places = [(x, y) for x in range(env.width) for y in range(env.height)]
    return {place: thing for place in places if (thing := env.grid.get(*place)) is not None and thing.type != "wall"}


def find(env: RoomsEnv, fits: Callable[[WorldObj], bool]) -> list[Place]:
    return [place for place, thing in things_of(env).items() if fits(thing)]


def targets_of(env: RoomsEnv) -> list[list[Place]]:
    """For each thing that the mission names, where such things are; read from the words alone."""
    if "goal" in env.mission:
        return [find(env, lambda thing: thing.type == "goal")]
    if env.mission == "open the door":
        return [find(env, lambda thing: thing.type == "door")]
    then, _, first = env.mission.partition(" after you ")
    named = NAMED.findall(first) + NAMED.findall(then)
    things = things_of(env).items()
    return [[place for place, thing in things if (thing.color, thing.type) == name] for name in named]


class Player:
    """Plays a world to its end, knowing everything. It moves nothing but what the mission needs."""

    def __init__(self, env: RoomsEnv) -> None:
        self.env, self.reward, self.ended = env, 0.0, False

    def play(self) -> None:
        target, *second = [places[0] for places in targets_of(self.env)]
        wanted = self.env.grid.get(*target)
        if not self.can_face(target, second) or (isinstance(wanted, Door) and wanted.is_locked):
            self.unlock(target)
        if self.ended:  # to unlock it was the task
            return
        if self.env.carrying is not None and wanted.can_pickup():
            self.drop([target])
        self.face(target, second)
        self.finish(wanted, second)

    def finish(self, wanted: WorldObj, second: list[Place]) -> None:
        if wanted.type == "goal":
            self.do(Actions.forward)
        elif "say done" in self.env.mission:
            self.do(Actions.done)
        elif wanted.type == "door" and self.env.kind_drawn != "goto":
            self.do(Actions.toggle)
        elif self.env.kind_drawn != "goto":
            self.do(Actions.pickup)
        if second and wanted.type == "door":
            self.face(second[0])
            self.do(Actions.toggle)
        elif second and self.env.kind_drawn == "carryto":
            self.face(second[0])
        elif second:
            self.drop([], beside(second[0]))

    def locks(self, target: Place) -> list[Place]:
        """Where the locked doors are that the target is behind, or the target itself."""
        if is_locked(self.env.grid.get(*target)):
            return [target]
        return [lock for lock in find(self.env, is_locked) if self.can_face(target, opened=self.way_through(lock))]

    def way_through(self, lock: Place) -> list[Place]:
        """A locked door, and what will be gone once it is open."""
        return [lock, *self.keys(lock), *self.blockers(lock)]

    def blockers(self, lock: Place) -> list[Place]:
        """What lies before a door that can't be reached otherwise."""
        if self.can_face(lock, opened=self.keys(lock)):
            return []
        return [place for place in beside(lock) if place in things_of(self.env)]

    def keys(self, lock: Place) -> list[Place]:
        """Where a door's keys are, or the boxes that hold them."""
        return find(self.env, lambda thing: holds_key(thing, self.env.grid.get(*lock).color))

    def unlock(self, target: Place) -> None:
        lock = self.locks(target)[0]
        if blockers := self.blockers(lock):
            blocker = next(place for place in blockers if self.can_face(place))
            self.face(blocker)
            self.do(Actions.pickup)
            self.drop([lock, *self.keys(lock)])
        key = self.keys(lock)[0]
        self.face(key)
        if self.env.grid.get(*key).type == "box":
            self.do(Actions.toggle)
        self.do(Actions.pickup)
        self.face(lock)
        self.do(Actions.toggle)

    def drop(self, then: list[Place], among: Collection[Place] | None = None) -> None:
        """Put down what is carried, where the way to something stays free."""
        for place in self.area():
            for spot in beside(place):
                free = self.env.grid.get(*spot) is None and (among is None or spot in among)
                if free and all(self.can_face(goal, [spot], start=place) for goal in then):
                    self.face(spot, stand=place)
                    self.do(Actions.drop)
                    return
        raise AssertionError("no place to put it down")

    # --- moving

    def do(self, action: Actions) -> None:
        assert not self.ended
        _, self.reward, terminated, truncated, _ = self.env.step(action)
        self.ended = terminated or truncated

    def is_free(self, place: Place) -> bool:
        thing = self.env.grid.get(*place)
        return thing is None or (isinstance(thing, Door) and not thing.is_locked)

    def area(
        self, avoid: Collection[Place] = (), opened: Collection[Place] = (), start: Place | None = None
    ) -> dict[Place, Place]:
        """Every place that can be walked to, with the one before it."""
        start = start or (int(self.env.agent_pos[0]), int(self.env.agent_pos[1]))
        came, queue = {start: start}, deque([start])
        while queue:
            place = queue.popleft()
            for near in beside(place):
                if near not in came and near not in avoid and (near in opened or self.is_free(near)):
                    came[near] = place
                    queue.append(near)
        return came

    def can_face(self, place: Place, avoid: Collection[Place] = (), **options: Any) -> bool:
        return any(near in self.area([*avoid, place], **options) for near in beside(place))

    def face(self, place: Place, avoid: Collection[Place] = (), stand: Place | None = None) -> None:
        came = self.area([*avoid, place])
        path = [stand or next(near for near in came if near in beside(place))]
        while came[path[-1]] != path[-1]:
            path.append(came[path[-1]])
        for near in path[-2::-1]:
            self.turn(near)
            if self.env.grid.get(*near) is not None and not self.env.grid.get(*near).is_open:
                self.do(Actions.toggle)
            self.do(Actions.forward)
            assert tuple(self.env.agent_pos) == near
        self.turn(place)

    def turn(self, place: Place) -> None:
        heading = beside(tuple(self.env.agent_pos)).index(place)
        left = (self.env.agent_dir - heading) % 4
        for _ in range(1 if left == 3 else left):
            self.do(Actions.right if left == 3 else Actions.left)


def is_locked(thing: WorldObj) -> bool:
    return isinstance(thing, Door) and thing.is_locked


def holds_key(thing: WorldObj, color: str) -> bool:
    inside = thing.contains if isinstance(thing, Box) else thing
    return isinstance(inside, Key) and inside.color == color
