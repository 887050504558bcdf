"""A memory in facts: ways to what is known, openings not yet tried, things seen before, what was done."""

from collections.abc import Iterable

from sb3_llm.describe.memory import OFFSETS, Memory, Place, Pose, Route
from sb3_llm.describe.view import DOOR, GOAL, LAVA, LOCKED, OPEN, Code, is_thing, thing_of
from sb3_llm.words.facts import Past, Spot, Thing, View

OPENING = Thing("opening")
MAX_UNTRIED = 2  # the best of them; the others come up as these are tried
MAX_BEFORE = 6  # the nearest; more than a small model reads well


class Ways:
    """
    Where things are, and how to get there, from one moment of a memory.

    :param memory: what the agent knows
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.routes = memory.routes()
        self._clearing: dict[Pose, Route] | None = None

    def spot(self, place: Place) -> Spot:
        """:return: the thing at a known place, with the way there; blocked ways lead over what must be moved."""
        code = self.memory.known[place]
        route = self.route_to(place)
        ahead, right = self.memory.relative(place)
        if code[0] == LAVA or route is None:
            return Spot(thing_of(code), ahead, right)
        first, moves = route
        if code[0] == GOAL:
            return Spot(thing_of(code), ahead, right, first or "ahead", moves + 1)
        return Spot(thing_of(code), ahead, right, first or "here", moves)

    def route_to(self, place: Place) -> Route | None:
        """:return: the shortest way to stand before a place and look at it."""
        poses = list(poses_before(place))
        route = best_route(self.routes, poses)
        if route is None:
            if self._clearing is None:
                self._clearing = self.memory.routes(clearing=True)
            route = best_route(self._clearing, poses)
        return route

    def places(self, in_view: bool) -> list[Place]:
        """:return: where the things are that are, or are not, in view; the fewest moves away first."""
        known, view = self.memory.known, self.memory.in_view
        found = [place for place, code in known.items() if is_thing(code) and (place in view) == in_view]
        return sorted(found, key=lambda place: (self._far(place), self.memory.relative(place)))

    def untried(self) -> list[Spot]:
        """:return: closed doors and openings that the agent has not been through, the most promising first."""
        ranked: list[tuple[float, Spot]] = []
        for place, code in self.memory.known.items():
            if self.memory.opens(code):
                route = best_route(self.routes, poses_before(place))
                if route is not None:
                    spot = Spot(thing_of(code), *self.memory.relative(place), route[0] or "open", route[1] + 1)
                    ranked.append((route[1], spot))
        for places in groups(self._edges()):
            (first, moves), place = min(places, key=lambda found: (found[0][1], self.memory.relative(found[1])))
            spot = Spot(OPENING, *self.memory.relative(place), first, moves)
            ranked.append((moves - min(len(places), 3), spot))
        ranked.sort(key=lambda pair: (pair[0], pair[1].ahead, pair[1].right))
        return [spot for _, spot in ranked]

    def _edges(self) -> list[tuple[Route, Place]]:
        edges = self.memory.unknown_edges()
        return [(self.routes[pose], place) for pose, place in edges.items() if pose in self.routes]

    def _far(self, place: Place) -> int:
        route = best_route(self.routes, poses_before(place))
        ahead, right = self.memory.relative(place)
        return route[1] if route is not None else 1000 + abs(ahead) + abs(right)


def poses_before(place: Place) -> Iterable[Pose]:
    """:return: the four poses that look at a place from the next one."""
    return [(place[0] - x, place[1] - y, heading) for heading, (x, y) in enumerate(OFFSETS)]


def best_route(routes: dict[Pose, Route], poses: Iterable[Pose]) -> Route | None:
    """:return: the shortest of the routes to some poses."""
    known = [routes[pose] for pose in poses if pose in routes]
    return min(known, key=lambda route: route[1]) if known else None


def groups(edges: list[tuple[Route, Place]]) -> list[list[tuple[Route, Place]]]:
    """:return: edges whose places touch, together: one opening each."""
    left: dict[Place, list[tuple[Route, Place]]] = {}
    for route, place in edges:
        left.setdefault(place, []).append((route, place))
    found: list[list[tuple[Route, Place]]] = []
    while left:
        stack = [next(iter(left))]
        group: list[tuple[Route, Place]] = []
        while stack:
            place = stack.pop()
            if place in left:
                group += left.pop(place)
                stack += [(place[0] + x, place[1] + y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        found.append(group)
    return found


def is_closed(code: Code) -> bool:
    """:return: whether a door stands there that is not open."""
    return code[0] == DOOR and code[2] != OPEN


def is_locked(code: Code) -> bool:
    """:return: whether a locked door stands there."""
    return code[0] == DOOR and code[2] == LOCKED


def recall(memory: Memory, view: View, turns: tuple[str, ...]) -> tuple[View, Past]:
    """
    :param memory: what the agent knows
    :param view: what it sees
    :param turns: its last actions
    :return: the view with the ways to what is seen, and the past
    """
    ways = Ways(memory)
    seen = tuple(ways.spot(place) for place in ways.places(in_view=True))
    before = tuple(ways.spot(place) for place in ways.places(in_view=False) if memory.known[place][0] != LAVA)
    untried = tuple(ways.untried()[:MAX_UNTRIED])
    past = Past(turns, memory.visits[memory.pose], untried, before[:MAX_BEFORE], memory.deeds.told())
    return view._replace(seen=seen), past
