"""An expert for every MiniGrid world that knows no more than the agent: a mission, a memory, and rules of thumb."""

from sb3_llm.describe.memory import Memory, Place, Pose, Route, ahead_of
from sb3_llm.describe.summary import OPENING, Ways, best_route, is_closed, is_locked, poses_before
from sb3_llm.describe.view import BOX, DOOR, EMPTY, OPEN, Code, is_thing, is_walkable, thing_of
from sb3_llm.words.facts import Thing
from sb3_llm.words.mission import Desc, GoTo, Mission, Open, PickUp, PutNext, tasks_of

MOVES = {"ahead": "go forward", "left": "turn left", "right": "turn right", "open": "open", "clear": "pick up"}
MAX_DROPS = 24  # places that are looked at to put something down
WAIT = ("turn left", "look around")  # at its wits' end
GOAL_DESC = Desc("goal", None, None)


class Planner:
    """
    Says what to do next. It explores what it has not seen, so that a pupil who reads the same summary can follow it.

    :param mission: what is asked for
    :param says_done: the world ends by the action "done", not by arriving
    """

    def __init__(self, mission: Mission, says_done: bool = False) -> None:
        self.tasks = tasks_of(mission)
        self.says_done = says_done

    def action(self, memory: Memory, ways: Ways | None = None) -> tuple[str, str]:
        """
        :param memory: what the agent knows now
        :param ways: the memory's, if they were found already
        :return: the key of the action to take, and what it is for, in words
        """
        self.memory, self.ways = memory, ways or Ways(memory)
        while len(self.tasks) > 1 and self._is_done(self.tasks[0]):
            self.tasks.pop(0)
        task = self.tasks[0]
        if isinstance(task, GoTo):
            return self._go_to(task.desc)
        if isinstance(task, PickUp):
            return self._pick_up(task.desc)
        if isinstance(task, Open):
            return self._open(task.desc)
        if isinstance(task, PutNext):
            return self._put_next(task.first, task.second)
        return self._reach()

    # --- tasks

    def _is_done(self, task: Mission) -> bool:
        memory = self.memory
        if isinstance(task, GoTo):
            code = memory.known.get(memory.front)
            return code is not None and is_thing(code) and matches(task.desc, code)
        if isinstance(task, PickUp):
            return memory.carrying is not None and matches(task.desc, memory.carrying)
        if isinstance(task, Open):
            return any(matches(task.desc, code) and code[2] == OPEN for code in memory.known.values())
        if isinstance(task, PutNext):
            return memory.carrying is None and any(
                matches(task.first, memory.known[a]) and self._touches(a, task.second) for a in self._find(task.first)
            )
        return False

    def _reach(self) -> tuple[str, str]:
        for place in self._find(GOAL_DESC):
            route = best_route(self.ways.routes, poses_before(place))
            if route is not None:
                return MOVES[route[0] or "ahead"], "go to the goal"
        return self._explore()

    def _go_to(self, desc: Desc) -> tuple[str, str]:
        return self._approach(desc, "done" if self.says_done else "open", "go to")

    def _pick_up(self, desc: Desc) -> tuple[str, str]:
        known = [place for place in self._find(desc) if self._route(place) is not None]
        if known and self.memory.carrying is not None and not matches(desc, self.memory.carrying):
            dropping = self._drop(known)  # not possible if what is carried is the key to the way there
            if dropping is not None:
                return dropping
        return self._approach(desc, "pick up", "pick up")

    def _open(self, desc: Desc) -> tuple[str, str]:
        shut = [place for place in self._find(desc) if is_closed(self.memory.known[place])]
        for place in shut:
            if self.memory.opens(self.memory.known[place]) and not self._is_blocked(place):
                route = self._route(place)
                if route is not None:
                    return MOVES[route[0] or "open"], f"open the {name(self.memory.known[place])}"
        return self._unlock(shut) or self._explore()

    def _put_next(self, desc: Desc, beside: Desc) -> tuple[str, str]:
        if self.memory.carrying is None or not matches(desc, self.memory.carrying):
            return self._pick_up(desc)
        spots = [pose for pose in self.ways.routes if pose[2] < 4 and self._free_beside(pose, beside)]
        route = best_route(self.ways.routes, spots)
        if route is None:
            return self._explore()
        return MOVES.get(route[0] or "", "drop"), f"put the {name(self.memory.carrying)} next to the {say(beside)}"

    # --- parts of tasks

    def _approach(self, desc: Desc, at_last: str, verb: str) -> tuple[str, str]:
        routed = [(route[1], route, place) for place in self._find(desc) if (route := self._route(place)) is not None]
        if not routed:
            return self._unlock(self._locked_doors()) or self._explore()
        _, route, place = min(routed)
        if route[0] == "clear" and self.memory.carrying is not None:
            return self._drop([place]) or self._drop([]) or WAIT
        return (MOVES[route[0]] if route[0] else at_last), f"{verb} the {name(self.memory.known[place])}"

    def _unlock(self, doors: list[Place]) -> tuple[str, str] | None:
        """Go for a locked door's key if it is known where it lies, and for the door if the key is in hand."""
        for place in doors:
            code = self.memory.known[place]
            route = self._route(place)
            if not is_locked(code) or route is None:
                continue
            key = Desc("key", thing_of(code).color, None)
            has_key = self.memory.opens(code)
            if not has_key and not any(self._route(spot) is not None for spot in self._find(key)):
                continue
            if self._is_blocked(place):  # hands free first: the key would have to be put down again
                clear = (MOVES[route[0] or ""], "clear the way")
                return clear if self.memory.carrying is None else self._drop([place]) or self._drop([]) or WAIT
            if has_key:
                return MOVES[route[0] or "open"], f"open the {name(code)}"
            return self._pick_up(key)
        return None

    def _explore(self) -> tuple[str, str]:
        unlocking = self._unlock(self._locked_doors())
        if unlocking is not None:
            return unlocking
        untried = self.ways.untried()
        if untried:
            spot = untried[0]
            way = MOVES[spot.way or "ahead"]
            return way, "look for a way" if spot.thing == OPENING else f"go through the {name_of(spot.thing)}"
        return self._clear_away()

    def _clear_away(self) -> tuple[str, str]:
        """Nothing is left to see unless something is moved, or a box is opened."""
        routes = self.memory.routes(clearing=True)
        beyond = [pose for pose in self.memory.unknown_edges() if pose in routes]
        shut = [place for place, code in self.memory.known.items() if is_closed(code)]
        blocked = [place for place in shut if self._is_blocked(place)]
        beyond += [pose for place in blocked for pose in poses_before(place) if pose in routes]
        route = best_route(routes, beyond)
        if route is not None and route[0] is not None:
            if self.memory.carrying is None:
                return MOVES[route[0]], "clear the way"
            return self._drop(blocked) or self._drop([]) or WAIT
        boxes = [place for place, code in self.memory.known.items() if code[0] == BOX and self._route(place)]
        if boxes:
            route = min((self._route(place) for place in boxes), key=lambda found: found[1] if found else 0)
            first = (route and route[0]) or "open"
            if first == "clear" and self.memory.carrying is not None:
                return self._drop(boxes) or self._drop([]) or WAIT
            return MOVES[first], "look into the box"
        return WAIT

    def _drop(self, targets: list[Place]) -> tuple[str, str] | None:
        """Put down what is carried where it blocks nothing, least of all the way to the targets."""
        what = f"drop the {name(self.memory.carrying or (0, 0, 0))}"
        routes = {pose: route for pose, route in self.ways.routes.items() if pose[2] < 4}
        empty = [pose for pose in routes if self._is_empty(ahead_of(pose[:2], pose[2]))]
        # The nearest place, which the text tells; among places as near one that can be walked around.
        free = sorted(empty, key=lambda pose: (routes[pose][1], not self._is_roomy(ahead_of(pose[:2], pose[2]))))
        for pose in free[:MAX_DROPS]:
            if self._leaves_open(pose, targets):
                return MOVES.get(routes[pose][0] or "", "drop"), what
        return None

    def _leaves_open(self, pose: Pose, targets: list[Place]) -> bool:
        """Whether, with something put down ahead of a pose, one of the targets can still be reached from there."""
        memory, front = self.memory, ahead_of(pose[:2], pose[2])
        here, heading, hands, code = memory.place, memory.heading, memory.carrying, memory.known[front]
        memory.place, memory.heading, memory.carrying, memory.known[front] = pose[:2], pose[2], None, (BOX, 0, 0)
        routes = memory.routes()
        memory.place, memory.heading, memory.carrying, memory.known[front] = here, heading, hands, code
        doors = [place for place in self._locked_doors() if not self._is_blocked(place)]
        still = [best_route(routes, poses_before(place)) is not None for place in targets]
        return (any(still) or not targets) and all(best_route(routes, poses_before(place)) for place in doors)

    # --- the map

    def _find(self, desc: Desc) -> list[Place]:
        return [place for place, code in self.memory.known.items() if is_thing(code) and matches(desc, code)]

    def _route(self, place: Place) -> Route | None:
        return self.ways.route_to(place)

    def _is_blocked(self, place: Place) -> bool:
        """Whether nothing but moving something gives a way there."""
        return best_route(self.ways.routes, poses_before(place)) is None

    def _locked_doors(self) -> list[Place]:
        return [place for place, code in self.memory.known.items() if is_locked(code)]

    def _is_empty(self, place: Place) -> bool:
        return self.memory.known.get(place, (0, 0, 0))[0] == EMPTY

    def _is_roomy(self, place: Place) -> bool:
        """A free place with free places around: whatever is put there can be walked around."""
        if not self._is_empty(place):
            return False
        around = [(place[0] + x, place[1] + y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
        doors = any(self.memory.known.get(spot, (0, 0, 0))[0] == DOOR for spot in around)
        free = sum(spot in self.memory.known and is_walkable(self.memory.known[spot]) for spot in around)
        return not doors and free >= 5

    def _touches(self, place: Place, desc: Desc) -> bool:
        return any(
            beside in self.memory.known and matches(desc, self.memory.known[beside])
            for beside in (ahead_of(place, heading) for heading in range(4))
        )

    def _free_beside(self, pose: Pose, desc: Desc) -> bool:
        front = ahead_of(pose[:2], pose[2])
        return self._is_empty(front) and self._touches(front, desc)


def matches(desc: Desc, code: Code) -> bool:
    """:return: whether a description fits what a cell holds."""
    return desc.fits(thing_of(code))


def name(code: Code) -> str:
    """:return: colour and kind of what a cell holds."""
    return name_of(thing_of(code))


def name_of(thing: Thing) -> str:
    """:return: colour and kind."""
    return " ".join(word for word in (thing.color, thing.kind) if word)


def say(desc: Desc) -> str:
    """:return: a description in words."""
    return " ".join(word for word in (desc.color, desc.kind or "object") if word)
