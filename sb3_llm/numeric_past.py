"""A summary as numbers: what the text says of the past, for baselines without a language model."""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX
from numpy.typing import NDArray

from sb3_llm.describe.maze_memory import MAX_UNTRIED as MAZE_UNTRIED
from sb3_llm.describe.maze_memory import MazeMemory
from sb3_llm.describe.memory import Memory
from sb3_llm.describe.summary import MAX_BEFORE, MAX_UNTRIED, OPENING, Ways
from sb3_llm.describe.view import LAVA
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.words.facts import Spot, Thing

#: First moves by their names in :class:`~sb3_llm.words.facts.Spot`.
MOVES = ("ahead", "left", "right", "open", "here", "clear")
KINDS = (
    *(Thing(kind, color) for kind in ("door", "key", "ball", "box") for color in COLOR_TO_IDX),
    Thing("goal"),
)
STATES = ("open", "closed", "locked")
DEEDS = ("reached", "picked up", "dropped", "opened")
FAR = 10.0  # steps; what distances are told in


def encode_past(memory: Memory) -> NDArray[np.float32]:
    """
    The summary of :func:`sb3_llm.describe.summary.recall`: for each kind and colour the nearest known thing, then the
    openings not yet tried, visits, and the deeds of a mission of several parts.

    :param memory: what the agent knows
    :return: one vector of a fixed length
    """
    ways = Ways(memory)
    places = [place for place in ways.places(in_view=True)]
    before = [place for place in ways.places(in_view=False) if memory.known[place][0] != LAVA]
    spots = [ways.spot(place) for place in places + before[:MAX_BEFORE]]
    nearest = {spot.thing._replace(state=None): spot for spot in reversed(spots)}
    untried: list[Spot | None] = [*ways.untried()[:MAX_UNTRIED]]
    untried += [None] * (MAX_UNTRIED - len(untried))
    parts = [_spot(nearest.get(kind)) for kind in KINDS] + [_spot(spot) for spot in untried]
    visits = np.array([min(memory.visits[memory.pose], 5) / 5.0], np.float32)
    return np.concatenate([*parts, visits, _deeds(memory)])


def _spot(spot: Spot | None) -> NDArray[np.float32]:
    numbers = np.zeros(5 + len(MOVES) + len(STATES), np.float32)
    if spot is not None:
        moves = 0 if spot.moves is None else spot.moves
        numbers[:5] = (1.0, spot.thing == OPENING, spot.ahead / FAR, spot.right / FAR, moves / FAR)
        if spot.way is not None:
            numbers[5 + MOVES.index(spot.way)] = 1.0
        if spot.thing.state is not None:
            numbers[5 + len(MOVES) + STATES.index(spot.thing.state)] = 1.0
    return numbers


def _deeds(memory: Memory) -> NDArray[np.float32]:
    """One number for each deed and thing: larger for a later one."""
    numbers = np.zeros((len(DEEDS), len(KINDS)), np.float32)
    for order, (deed, thing) in enumerate(memory.deeds.told()):
        if thing in KINDS:
            numbers[DEEDS.index(deed), KINDS.index(thing)] = (order + 1) / 4.0
    return numbers.ravel()


def encode_maze_past(memory: MazeMemory) -> NDArray[np.float32]:
    """
    The summary of :meth:`sb3_llm.describe.maze_memory.MazeMemory.past`.

    :param memory: what the walker knows
    :return: for each of the best cells to try the first step, one-hot, and how far it is; then visits
    """
    numbers = np.zeros((MAZE_UNTRIED, len(DIRECTIONS) + 1), np.float32)
    for row, trail in enumerate(memory.untried()[:MAZE_UNTRIED]):
        numbers[row, DIRECTIONS.index(trail.direction)] = 1.0
        numbers[row, -1] = trail.steps / FAR
    visits = np.array([min(memory.visits[memory.cell], 5) / 5.0], np.float32)
    return np.concatenate((numbers.ravel(), visits))
