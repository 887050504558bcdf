"""Lists: invented moments with several things, and what to do for each of them: practice in looking things up."""

from typing import NamedTuple

import numpy as np
from minigrid.core.constants import COLOR_NAMES

from sb3_llm.describe.actions import KEYS
from sb3_llm.describe.view import COMPASS
from sb3_llm.describe.worded import after_phrases
from sb3_llm.pretrain.drills import PATTERNS, PLAIN_SHARE, PUT, SAY_DONE, Drill, one_of
from sb3_llm.pretrain.planner import MOVES, name_of
from sb3_llm.pretrain.stories import Line, exchange
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.facts import Free, Past, Spot, Thing, View
from sb3_llm.words.mission import GoTo, Open, PickUp, PutNext, parse
from sb3_llm.words.wording import Wording

THINGS = tuple((kind, color) for kind in ("key", "ball", "box", "door") for color in COLOR_NAMES)
TURNS = KEYS[:3]
WAY_SHARES = {"ahead": 0.3, "left": 0.3, "right": 0.3, "open": 0.05, "clear": 0.05}
MAX_THINGS = 6
REACH_SHARE = 0.5  # of the lists with empty hands have one of their things in reach
CARRY_SHARE = 0.3  # of the lists tell of something carried
PUT_SHARE = 0.4  # of the missions with something carried are to put it somewhere
FAR = 4  # moves
AT_LAST = {GoTo: "done", PickUp: "pick up", PutNext: "pick up", Open: "open"}


class Moment(NamedTuple):
    """What is known."""

    spots: tuple[Spot, ...]
    carrying: Thing | None


def listed(rng: np.random.Generator, wording: Wording) -> Line:
    """
    :param rng: the only source of randomness
    :param wording: how it is told
    :return: a moment of no world, told as those of MiniGrid are: a mission or two for each thing, and what to do for it
    """
    moment = _moment(rng)
    spots = moment.spots
    seen = int(rng.integers(1, len(spots) + 1)) if rng.random() < 0.5 else len(spots)
    drawn = [_drill(rng, spot, moment) for spot in (spots[0], *spots)]
    asked = [drawn[place] for place in rng.permutation(len(drawn))]
    (mission, phrase), *more = [(mission, wording.phrase(key)) for mission, key in asked]
    text = wording.room(mission, _view(rng, spots[:seen], moment.carrying), _past(rng, spots[seen:]))
    drills = (exchange(DEFAULT_TEMPLATE, wording.goal(other), answer) for other, answer in more)
    return Line(
        *exchange(DEFAULT_TEMPLATE, after_phrases(text, wording, tuple(map(wording.phrase, KEYS)), KEYS), phrase),
        tuple(drills),
    )


def _moment(rng: np.random.Generator) -> Moment:
    things = [Thing(*THINGS[place]) for place in rng.permutation(len(THINGS)).tolist()]
    spots = [_spot(rng, thing) for thing in things[: rng.integers(2, MAX_THINGS + 1)]]
    others = [thing for thing in things[MAX_THINGS:] if thing.kind != "door"]
    if rng.random() < CARRY_SHARE:
        return Moment(tuple(spots), others[0])
    if rng.random() < REACH_SHARE:
        spots[0] = spots[0]._replace(ahead=1, right=0, way="here")
    return Moment(tuple(spots), None)


def _spot(rng: np.random.Generator, thing: Thing) -> Spot:
    """Somewhere, and the way there, which need not fit: what counts is what is told."""
    way = str(rng.choice(list(WAY_SHARES), p=list(WAY_SHARES.values())))
    thing = thing._replace(state="closed" if thing.kind == "door" else None)
    return Spot(thing, int(rng.integers(7)), int(rng.integers(-3, 4)) or 1, way, int(rng.integers(2, 14)))


def _drill(rng: np.random.Generator, spot: Spot, moment: Moment) -> Drill:
    """A mission about a thing that is not carried, and what the planner does: the way's first move, or what is due."""
    carrying, plain = moment.carrying, spot.thing._replace(state=None)
    if carrying is not None and _is_far(spot) and rng.random() < PUT_SHARE:
        return _said(rng, one_of(rng, PUT), carrying, plain), MOVES[str(spot.way)]
    others = [other.thing._replace(state=None) for other in moment.spots if other != spot]
    mission = _said(rng, one_of(rng, PATTERNS[plain.kind]), plain, one_of(rng, others))
    task = type(parse(mission))
    if carrying is not None and (task in (PickUp, PutNext) or spot.way == "clear"):
        return mission, "drop"  # hands free first
    return mission, MOVES.get(str(spot.way)) or AT_LAST[task]


def _is_far(spot: Spot) -> bool:
    """Whether something carried for it is carried on; nearer, the planner would put it down."""
    return spot.way != "clear" and spot.moves is not None and spot.moves >= FAR


def _said(rng: np.random.Generator, pattern: str, first: Thing, second: Thing) -> str:
    asked = pattern.format(name_of(first), name_of(second))
    return asked.removesuffix(SAY_DONE) if rng.random() < PLAIN_SHARE else asked


def _view(rng: np.random.Generator, seen: tuple[Spot, ...], carrying: Thing | None) -> View:
    ahead, *sides = (Free(side, int(rng.integers(5)), Thing("wall")) for side in ("ahead", "left", "right"))
    if seen[0].way == "here":
        ahead = Free("ahead", 0, seen[0].thing)
    if carrying is not None:  # room to drop it
        ahead = ahead._replace(steps=1 + ahead.steps)
    return View(COMPASS[int(rng.integers(4))], carrying, (ahead, *sides), seen, None)


def _past(rng: np.random.Generator, before: tuple[Spot, ...]) -> Past:
    turns = tuple(TURNS[int(place)] for place in rng.integers(len(TURNS), size=int(rng.integers(1, 3))))
    return Past(turns, int(rng.integers(1, 4)), (), before, ())
