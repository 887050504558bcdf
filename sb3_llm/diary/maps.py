"""A maze of which every cell is asked about: where the policy knows the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sb3_llm.decisions import Question, ask, question_of
from sb3_llm.diary.guides import Companion
from sb3_llm.diary.mazes import LEFT, Spot, spot_of
from sb3_llm.diary.playing import Make, MakeGuide
from sb3_llm.envs.layout import Cell
from sb3_llm.wrappers import TextObservation


class Shares(NamedTuple):
    """
    Agreement with the expert in each cell of a maze; NaN in the goal and where one comes only through it.

    :param likeliest: (n, n) share of the states of a cell in which the likeliest action is right
    :param probability: (n, n) mean probability of the right actions
    """

    likeliest: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True)
class MazeMap:
    """
    One maze, and what can be asked in it. As texts and experts don't change, it is walked through once.

    :param start: where the agent stands after a reset
    :param states: of each cell that can be entered before the goal: what the policy is asked there, and the right
        actions. The agent comes there from the start by the shortest way, as its memory in the text says; in a world
        where it has a heading, it looks to all four sides, and each is a state
    """

    start: Spot
    states: tuple[tuple[Cell, Question, frozenset[int]], ...]

    def ask(self, policy: Any) -> Shares:
        """
        :param policy: as it is now
        :return: its agreement with the expert
        """
        places = [(row, column) for row in range(self.start.size) for column in range(self.start.size)]
        rows = ask(policy, [question for _, question, _ in self.states]).exp().tolist()
        found: dict[Cell, list[tuple[float, float]]] = {place: [] for place in places}
        for (cell, _, right), row in zip(self.states, rows, strict=True):
            likeliest = max(range(len(row)), key=row.__getitem__)
            found[cell].append((float(likeliest in right), sum(row[action] for action in right)))
        unknown = [(np.nan, np.nan)]
        means = np.array([np.mean(found[place] or unknown, axis=0) for place in places])  # (n * n, 2)
        return Shares(*means.T.reshape(2, self.start.size, self.start.size))


def map_maze(policy: Any, make: Make, make_guide: MakeGuide, seed: int) -> MazeMap | None:
    """
    Walk to every cell of a maze.

    :param policy: that will be asked; what it would be asked depends on its template
    :param make: makes a world of text
    :param make_guide: makes an expert for an episode
    :param seed: of the reset that gives the maze
    :return: the map; None if the world is no maze, can't be walked through by what it offers, or nobody knows what is
        right there
    """
    world = make()
    world.reset(seed=seed)
    start = spot_of(world)
    if start is None or make_guide is None or not start.moves <= set(world.offer.actions):
        return None
    cells = [(row, column) for row in range(start.size) for column in range(start.size)]
    states = [
        (cell, *state)
        for cell in cells
        if cell != start.goal
        for state in _states(policy, world, Companion(make_guide()), seed, cell)
    ]
    world.close()
    return MazeMap(start, tuple(states)) if states else None


def _states(
    policy: Any, world: TextObservation, companion: Companion, seed: int, cell: Cell
) -> Iterator[tuple[Question, frozenset[int]]]:
    observation, _ = world.reset(seed=seed)
    companion.begin(world)
    over = False
    while not over and _spot(world).cell != cell:
        observation, over = _step(world, companion, _spot(world).towards(cell)[0])
    for _ in range(1 if _spot(world).heading is None else 4):
        if over:
            return
        right = companion.right(world)
        if right:
            yield question_of(policy, world, observation), right
        if _spot(world).heading is not None:
            observation, over = _step(world, companion, LEFT)


def _spot(world: TextObservation) -> Spot:
    return cast(Spot, spot_of(world))


def _step(world: TextObservation, companion: Companion, action: int) -> tuple[Any, bool]:
    """:return: the observation after an action of the environment's, and whether the episode is over"""
    observation, _, terminated, truncated, _ = world.step(world.offer.actions.index(action))
    companion.note(world, action)
    return observation, terminated or truncated
