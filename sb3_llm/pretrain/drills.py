"""Drills: what the planner would do in the same moment if something else were asked for."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from minigrid.core.constants import COLOR_NAMES

from sb3_llm.describe.memory import Memory
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
MAX_DRILLS = 4
UNSEEN_SHARE = 0.15  # of the things asked for are mostly none that the agent knows of
PLAIN_SHARE = 0.5  # of the missions whose end is to say done are told without these words


def drills(rng: np.random.Generator, memory: Memory) -> list[tuple[str, str]]:
    """
    One text, several decisions: most steps of a story are the same whatever is asked for, and a small model learns late
    from them to look up what the mission names.

    :param rng: draws what is asked for
    :param memory: of the agent in this moment
    :return: up to :data:`MAX_DRILLS` missions, each with the key of the action that the planner takes for it
    """
    return [drill for _ in range(int(rng.integers(1, MAX_DRILLS + 1))) if (drill := _drill(rng, memory)) is not None]


def _drill(rng: np.random.Generator, memory: Memory) -> tuple[str, str] | None:
    asked = _mission(rng, memory)
    mission = parse(asked)
    assert mission is not None, asked
    key, purpose = Planner(mission, says_done=isinstance(mission, GoTo)).action(memory)
    if purpose == WAIT[1]:
        return None
    return asked.removesuffix(SAY_DONE) if rng.random() < PLAIN_SHARE else asked, key


def _mission(rng: np.random.Generator, memory: Memory) -> str:
    """What can be asked for of a thing; mostly of one that the agent knows of."""
    known = list(dict.fromkeys(thing_of(code)._replace(state=None) for code in memory.known.values() if is_thing(code)))
    known = [thing for thing in known if thing.kind in ASKED]
    if not known or rng.random() < UNSEEN_SHARE:
        known = [Thing(_one_of(rng, ASKED), _one_of(rng, COLOR_NAMES))]
    thing = _one_of(rng, known)
    others = [other for other in known if other != thing and other.kind != "goal"]
    pattern = _one_of(rng, [pattern for pattern in PATTERNS[thing.kind] if others or "{1}" not in pattern])
    return pattern.format(name_of(thing), name_of(_one_of(rng, others or [thing])))


def _one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]
