"""Lists: invented moments with several things, and what to do for each of them: practice in looking things up."""

import numpy as np

from sb3_llm.describe.actions import KEYS
from sb3_llm.describe.view import COMPASS
from sb3_llm.describe.worded import after_phrases
from sb3_llm.pretrain.drills import PATTERNS, PLAIN_SHARE, SAY_DONE
from sb3_llm.pretrain.planner import MOVES, name_of
from sb3_llm.pretrain.stories import Line, exchange
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.facts import Free, Past, Spot, Thing, View
from sb3_llm.words.mission import GoTo, Open, PickUp, parse
from sb3_llm.words.wording import Wording

KINDS, COLORS = ("key", "ball", "box", "door"), ("red", "green", "blue", "purple", "yellow", "grey")
THINGS = tuple((kind, color) for kind in KINDS for color in COLORS)
TURNS = KEYS[:3]
WAY_SHARES = {"ahead": 0.3, "left": 0.3, "right": 0.3, "open": 0.05, "clear": 0.05}
MAX_THINGS = 6
REACH_SHARE = 0.5  # of the lists have one of their things in reach


def listed(rng: np.random.Generator, wording: Wording) -> Line:
    """
    :param rng: the only source of randomness
    :param wording: how it is told
    :return: a moment of no world, told as those of MiniGrid are: a mission or two for each thing, and what to do for it
    """
    kinds = rng.permutation(len(THINGS))[: rng.integers(2, MAX_THINGS + 1)].tolist()
    spots = [_spot(rng, *THINGS[place]) for place in kinds]
    if rng.random() < REACH_SHARE:
        spots[0] = spots[0]._replace(ahead=1, right=0, way="here")
    seen = int(rng.integers(1, len(spots) + 1)) if rng.random() < 0.5 else len(spots)
    drawn = [(_mission(rng, spot.thing), spot) for spot in (spots[0], *spots)]
    asked = [drawn[place] for place in rng.permutation(len(drawn))]
    (mission, phrase), *more = [(mission, wording.phrase(_answer(mission, spot))) for mission, spot in asked]
    text = wording.room(mission, _view(rng, tuple(spots[:seen])), _past(rng, tuple(spots[seen:])))
    drills = (exchange(DEFAULT_TEMPLATE, wording.goal(other), answer) for other, answer in more)
    return Line(
        *exchange(DEFAULT_TEMPLATE, after_phrases(text, wording, tuple(map(wording.phrase, KEYS)), KEYS), phrase),
        tuple(drills),
    )


def _spot(rng: np.random.Generator, kind: str, color: str) -> Spot:
    """Somewhere, and the way there, which need not fit: what counts is what is told."""
    way = str(rng.choice(list(WAY_SHARES), p=list(WAY_SHARES.values())))
    thing = Thing(kind, color, "closed" if kind == "door" else None)
    return Spot(thing, int(rng.integers(7)), int(rng.integers(-3, 4)) or 1, way, int(rng.integers(2, 14)))


def _mission(rng: np.random.Generator, thing: Thing) -> str:
    patterns = [pattern for pattern in PATTERNS[thing.kind] if "{1}" not in pattern]
    asked = patterns[int(rng.integers(len(patterns)))].format(name_of(thing._replace(state=None)))
    return asked.removesuffix(SAY_DONE) if rng.random() < PLAIN_SHARE else asked


def _answer(mission: str, spot: Spot) -> str:
    """What the planner does: the way's first move, and in reach what the mission ends with."""
    task = parse(mission)
    return MOVES.get(str(spot.way)) or {GoTo: "done", PickUp: "pick up", Open: "open"}[type(task)]


def _view(rng: np.random.Generator, seen: tuple[Spot, ...]) -> View:
    ahead, *sides = (Free(side, int(rng.integers(5)), Thing("wall")) for side in ("ahead", "left", "right"))
    if seen[0].way == "here":
        ahead = Free("ahead", 0, seen[0].thing)
    free = (ahead, *sides)
    return View(COMPASS[int(rng.integers(4))], None, free, seen, None)


def _past(rng: np.random.Generator, before: tuple[Spot, ...]) -> Past:
    turns = tuple(TURNS[int(place)] for place in rng.integers(len(TURNS), size=int(rng.integers(1, 3))))
    return Past(turns, int(rng.integers(1, 4)), (), before, ())
