"""What the full suite was made to show, and where it does: all of it from the cells, whichever way they fell."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sb3_llm.benchmarks.suite.found import CLONED, HOW, OURS, WORDS, Found
from sb3_llm.benchmarks.suite.statistics import Estimate, probability_of_improvement

SUITE = "full"
#: Success that is to be reached with so many times fewer steps than the best network, and sooner.
HARD = {
    "DoorKey-8x8": 0.9,
    "UnlockPickup": 0.9,
    "KeyCorridorS3R1": 0.9,
    "LockedRoom": 0.7,
    "MultiRoom-N4-S5": 0.7,
    "PutNextLocal": 0.9,
}
EASY = {"DoorKey-5x5": 0.9, "Unlock": 0.9, "Maze-5x5": 0.9}
TIMES = {"hard": 50, "easy": 5}
BETTER = 0.95  # probability that a run of ours beats one of a cloned network
ROUNDING = 1e-9
COSTS = {"words": 0.10, "mazes": 0.05}  # share of success that a change may cost


class Item(NamedTuple):
    """Something that an aim was tried on."""

    task: str
    axis: str  # what differs from what was trained on; "" for nothing
    holds: bool


def aims(found: Found) -> list[tuple[str, list[Item]]]:
    """:return: each aim that was tried on anything, and on what."""
    if found.suite.name != SUITE:
        return []
    told = [
        (f"{TIMES['hard']} times fewer steps than the best network", _fewer_steps(found, HARD, TIMES["hard"])),
        ("and less time, the interval above 1", _less_time(found, HARD)),
        (f"{TIMES['easy']} times fewer steps where it is easy", _fewer_steps(found, EASY, TIMES["easy"])),
        ("as much time at most", _less_time(found, EASY)),
        ("RL Baselines3 Zoo's reward, sampled or greedy", _zoo(found, lambda ours: ours.value)),
        ("or less by at most 1.96 standard errors", _zoo(found, lambda ours: ours.high)),
        *((f"better than {name} with probability {BETTER:g}", _cloned(found, name)) for name in CLONED),
        (f"new words cost at most {COSTS['words']:.0%}", _generalisation(found, COSTS["words"], words=True)),
        (f"other mazes cost at most {COSTS['mazes']:.0%}", _generalisation(found, COSTS["mazes"], words=False)),
    ]
    tried = [(aim, list(items)) for aim, items in told]
    return [(aim, items) for aim, items in tried if items]


def _fewer_steps(found: Found, levels: dict[str, float], times: float) -> Iterator[Item]:
    for task, level in levels.items():
        if found.contested(task, level):
            ratio = found.ratio(task, level, "steps")
            yield Item(task, "", ratio is not None and ratio[0].value >= times)


def _less_time(found: Found, levels: dict[str, float]) -> Iterator[Item]:
    for task, level in levels.items():
        if found.contested(task, level):
            ratio = found.ratio(task, level, "seconds")
            yield Item(task, "", ratio is not None and ratio[0].low > 1)


def _zoo(found: Found, figure: Callable[[Estimate], float]) -> Iterator[Item]:
    for task in found.suite.tasks:
        if task.zoo is not None and found.of(task.name, OURS):
            ours = [each for how in HOW if (each := found.mean_return(task.name, OURS, how)) is not None]
            yield Item(task.name, "", max(map(figure, ours)) >= task.zoo["reward"])


def _cloned(found: Found, name: str) -> Iterator[Item]:
    for task in found.tasks:
        ours = found.scores(OURS, [task])
        if ours is None:
            continue
        there = {axis: found.there(task, OURS, axis) for axis in WORDS if found.success_there(task, OURS, axis)}
        for axis, scores in ({"": ours} | there).items():
            theirs = found.beside(task, name, axis)
            if theirs is not None:
                yield Item(task, axis, probability_of_improvement(scores, theirs[1]) >= BETTER)


def _generalisation(found: Found, most: float, words: bool) -> Iterator[Item]:
    for task in found.tasks:
        trained = found.success(task, OURS)
        for axis in found.axes(task, OURS):
            there = found.success_there(task, OURS, axis)
            if trained is not None and there is not None and (axis in WORDS) == words:
                yield Item(task, axis, there.value >= trained.value * (1 - most) - ROUNDING)
