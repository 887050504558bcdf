"""Drills: what the planner would do in the same moment if something else were asked for."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from minigrid.core.constants import COLOR_NAMES

from sb3_llm.describe.memory import Memory
from sb3_llm.describe.summary import Ways
from sb3_llm.describe.view import is_thing, thing_of
from sb3_llm.pretrain.planner import WAIT, Planner, name_of
from sb3_llm.words.facts import Thing
from sb3_llm.words.mission import GoTo, parse

Item = TypeVar("Item")

SAY_DONE = " and say done"
GO = "go to the {0}" + SAY_DONE
PUT = ("put the {0} near the {1}", "put the {0} next to the {1}")
_MOVE = (GO, GO, "pick up the {0}", "fetch a {0}", "go get a {0}", *PUT)
#: What can be asked for, by the kind of thing.
PATTERNS = {
    "key": _MOVE,
    "ball": _MOVE,
    "box": _MOVE,
    "door": (GO, "open the {0}"),
    "goal": ("get to the green goal square",),
}
ASKED = tuple(PATTERNS)
MAX_DRILLS = 5
MAX_THINGS = 8  # that are asked for in one moment; most moments know of fewer
UNSEEN_SHARE = 0.3  # of the moments also ask for what may be nowhere
PLAIN_SHARE = 0.5  # of the missions whose end is to say done are told without these words

Drill = tuple[str, str]  # a mission, and the key of the action that the planner takes for it


def drills(rng: np.random.Generator, memory: Memory) -> list[Drill]:
    """
    One text, several decisions.

    Most steps of a story are the same whatever is asked for. From them a small model learns late to look up what the
    mission names: after 3,000 steps without drills it went to a random door. They come in random order: put so that
    like ones are apart, each is told by those before it, and nothing need be looked up (benchmarks/LOG.md).

    :param rng: draws what is asked for
    :param memory: of the agent in this moment
    :return: up to :data:`MAX_DRILLS`
    """
    ways = Ways(memory)
    found = [drill for mission in _missions(rng, memory) if (drill := _drill(rng, mission, memory, ways)) is not None]
    rng.shuffle(found)
    return found[:MAX_DRILLS]


def _missions(rng: np.random.Generator, memory: Memory) -> list[str]:
    """One for each of the things that the agent knows of, and now and then one for another."""
    known = list(dict.fromkeys(thing_of(code)._replace(state=None) for code in memory.known.values() if is_thing(code)))
    known = [thing for thing in known if thing.kind in ASKED]
    asked = [known[place] for place in rng.permutation(len(known))[:MAX_THINGS]]
    if rng.random() < UNSEEN_SHARE:
        asked.append(Thing(one_of(rng, ASKED), one_of(rng, COLOR_NAMES)))
    return [_mission(rng, thing, known) for thing in asked]


def _mission(rng: np.random.Generator, thing: Thing, known: Sequence[Thing]) -> str:
    others = [other for other in known if other != thing and other.kind != "goal"]
    pattern = one_of(rng, [pattern for pattern in PATTERNS[thing.kind] if others or "{1}" not in pattern])
    return pattern.format(name_of(thing), name_of(one_of(rng, others or [thing])))


def _drill(rng: np.random.Generator, asked: str, memory: Memory, ways: Ways) -> Drill | None:
    mission = parse(asked)
    assert mission is not None, asked
    key, purpose = Planner(mission, says_done=isinstance(mission, GoTo)).action(memory, ways)
    if purpose == WAIT[1]:
        return None
    return asked.removesuffix(SAY_DONE) if rng.random() < PLAIN_SHARE else asked, key


def one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """:return: one of the items, each as likely."""
    return items[int(rng.integers(len(items)))]
