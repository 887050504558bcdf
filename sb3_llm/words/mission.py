"""MiniGrid's and BabyAI's missions as trees: what is asked for, whatever words ask for it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from sb3_llm.words.facts import Thing

CARRIED = ("key", "ball", "box")  # what "an object" can be


class Desc(NamedTuple):
    """Which thing is meant; None leaves it open."""

    kind: str | None = None  # MiniGrid's own name; None: any object
    color: str | None = None
    location: str | None = None  # "front", "behind", "left" or "right" of where the agent starts

    def fits(self, thing: Thing) -> bool:
        """:return: whether a thing may be meant; where it lay at the start is not looked at."""
        fits = thing.kind == self.kind if self.kind else thing.kind in CARRIED
        return fits and self.color in (None, thing.color)


# The nodes are no named tuples: those with the same content would be equal, such as picking up and opening a thing.


@dataclass(frozen=True)
class Reach:
    """Get to the goal."""

    hint: str | None = None  # "lava", "opening", "key", "rooms" or "locked": what the mission says of the way
    colors: tuple[str, ...] = ()  # with "locked": of the key and the locked door, and of the room where the key is


@dataclass(frozen=True)
class GoTo:
    """Go to a thing."""

    desc: Desc
    done: bool = False  # the mission asks to say "done" there


@dataclass(frozen=True)
class PickUp:
    """Pick up a thing."""

    desc: Desc


@dataclass(frozen=True)
class Open:
    """Open a door."""

    desc: Desc


@dataclass(frozen=True)
class PutNext:
    """Put one thing beside another."""

    first: Desc
    second: Desc


@dataclass(frozen=True)
class Match:
    """Go to the thing that is like the one at the start (MiniGrid's Memory)."""


@dataclass(frozen=True)
class Roam:
    """Nothing is asked for (MiniGrid's Playground)."""


@dataclass(frozen=True)
class Then:
    """One after the other."""

    first: "Mission"
    second: "Mission"


@dataclass(frozen=True)
class Both:
    """Both, in any order."""

    first: "Mission"
    second: "Mission"


Mission: TypeAlias = Reach | GoTo | PickUp | Open | PutNext | Match | Roam | Then | Both

LOCATIONS = {"in front of you": "front", "behind you": "behind", "on your left": "left", "on your right": "right"}

_FIXED: dict[str, Mission] = {
    "": Roam(),
    "reach the goal": Reach(),
    "go to the goal": Reach(),
    "get to the goal": Reach(),
    "get to the green goal square": Reach(),
    "avoid the lava and get to the green goal square": Reach("lava"),
    "find the opening and get to the green goal square": Reach("opening"),
    "use the key to open the door and then get to the goal": Reach("key"),
    "traverse the rooms to get to the goal": Reach("rooms"),
    "traverse the maze to get to the goal": Reach(),
    "go to the matching object at the end of the hallway": Match(),
}
_LOCKED = re.compile(r"get the (\w+) key from the (\w+) room, unlock the (\w+) door and go to the goal")
_TWO_DOORS = re.compile(r"open the (\w+) door then the (\w+) door")
_WORD = r"(?!(?:a|an|the|and|or|then|after|you|to|of|in|on|next|near)\b)[a-z]+"
_DESC = rf"(?:the|a|an) (?:{_WORD} )??{_WORD}(?: (?:{'|'.join(LOCATIONS)}))?"
_ACTIONS: tuple[tuple[re.Pattern[str], Callable[..., Mission]], ...] = (
    (re.compile(rf"go to ({_DESC})"), GoTo),
    (re.compile(rf"(?:pick up|get|go get|fetch|go fetch|you must fetch) ({_DESC})"), PickUp),
    (re.compile(rf"open ({_DESC})"), Open),
    (re.compile(rf"put ({_DESC}) (?:next to|near) ({_DESC})"), PutNext),
)
_PARTS = re.compile(rf"(?:the|a|an) (?:(?P<color>[a-z]+) )??(?P<kind>[a-z]+)(?: (?P<location>{'|'.join(LOCATIONS)}))?")
_SAY_DONE = " and say done"


def parse(mission: str) -> Mission | None:
    """
    Understand a mission of MiniGrid 3.2, of BabyAI, or of this project's own worlds.

    :param mission: the environment's own English sentence
    :return: what it asks for, or None if it is none of their sentences
    """
    if mission in _FIXED:
        return _FIXED[mission]
    return _parse_doors(mission) or _parse_sequence(mission)


def tasks_of(mission: Mission | None) -> list[Mission]:
    """:return: the single tasks of a mission, in order."""
    if mission is None:
        return []
    if isinstance(mission, Then | Both):
        return [*tasks_of(mission.first), *tasks_of(mission.second)]
    return [mission]


def things_of(task: Mission) -> list[Desc]:
    """:return: the things that a single task names."""
    if isinstance(task, PutNext):
        return [task.first, task.second]
    return [task.desc] if isinstance(task, GoTo | PickUp | Open) else []


def _parse_doors(mission: str) -> Mission | None:
    if locked := _LOCKED.fullmatch(mission):
        key, room, door = locked.groups()
        return Reach("locked", (key, room)) if key == door else None
    if doors := _TWO_DOORS.fullmatch(mission):
        first, second = (Open(Desc("door", color)) for color in doors.groups())
        return Then(first, second)
    return None


def _parse_sequence(mission: str) -> Mission | None:
    """BabyAI joins at most four clauses: one "then" or "after you", with at most one "and" on either side."""
    for joint, turned in ((", then ", False), (" after you ", True)):
        if joint in mission:
            before, _, after = mission.partition(joint)
            first, second = (after, before) if turned else (before, after)
            return _join(Then, _parse_pair(first), _parse_pair(second))
    return _parse_pair(mission)


def _parse_pair(mission: str) -> Mission | None:
    whole = _parse_clause(mission)
    if whole is not None or " and " not in mission:
        return whole
    first, _, second = mission.partition(" and ")
    return _join(Both, _parse_clause(first), _parse_clause(second))


def _join(node: type[Then] | type[Both], first: Mission | None, second: Mission | None) -> Mission | None:
    return None if first is None or second is None else node(first, second)


def _parse_clause(clause: str) -> Mission | None:
    if clause.endswith(_SAY_DONE):
        there = _parse_clause(clause.removesuffix(_SAY_DONE))
        if isinstance(there, Reach):
            return GoTo(Desc("goal"), done=True)
        return GoTo(there.desc, done=True) if isinstance(there, GoTo) else None
    for pattern, node in _ACTIONS:
        if found := pattern.fullmatch(clause):
            task = node(*map(_parse_desc, found.groups()))
            return Reach() if task in (GoTo(Desc("goal")), GoTo(Desc("goal", "green"))) else task
    return None


def _parse_desc(words: str) -> Desc:
    found = _PARTS.fullmatch(words)
    assert found is not None  # the clause's pattern holds this one
    kind, color, location = found["kind"], found["color"], found["location"]
    return Desc(None if kind == "object" else kind, color, LOCATIONS[location] if location else None)
