"""
Statistics over few runs, as rliable defines them (Agarwal et al. 2021, arXiv 2108.13264), on scipy.

rliable 1.2 itself does not import beside pandas 3; ``tests/test_suite_statistics.py`` holds values that it gave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]  # (runs, tasks)
RESAMPLES = 5_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Scores) -> float:
    """:return: the mean of the middle half of all runs of all tasks."""
    return float(stats.trim_mean(np.ravel(scores), 0.25))


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """:return: how probably a run of ours is better than one of theirs on the same task, ties half; mean over tasks."""
    greater = (ours[:, None] > theirs[None]).mean((0, 1))
    equal = (ours[:, None] == theirs[None]).mean((0, 1))
    return float((greater + equal / 2).mean())


def performance_profile(scores: Scores, levels: Sequence[float]) -> NDArray[np.float64]:
    """:return: for each level, the share of runs above it."""
    return np.array([(scores > level).mean() for level in levels])


def bootstrap(statistic: Callable[..., float], *scores: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """
    A stratified bootstrap: runs are drawn anew within each task.

    :param statistic: of as many arrays as are given
    :param scores: (runs, tasks) each; numbers of runs may differ
    :param resamples: how often
    :param seed: of the draws
    :return: the figure with its percentile interval
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(*(_resampled(each, rng) for each in scores)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(statistic(*scores), float(low), float(high))


def mean_over_runs(scores: Scores) -> Estimate:
    """:return: the mean, with its bootstrap interval over runs."""
    return bootstrap(lambda drawn: float(drawn.mean()), scores, resamples=1000)


def _resampled(scores: Scores, rng: np.random.Generator) -> Scores:
    rows = rng.integers(len(scores), size=scores.shape)
    return np.take_along_axis(scores, rows, 0)


@dataclass(frozen=True)
class Reached:
    """When a run got to a level of success."""

    steps: float
    seconds: float  # on the clock
    processor_seconds: float
    censored: bool  # it did not: these are what it was given


def first_reaching(curve: Sequence[dict[str, Any]], level: float) -> Reached:
    """
    :param curve: looks, as cells keep them; at least one
    :param level: of success
    :return: the first look at that level or above, else the last
    """
    for look in curve:
        if look["success"] is not None and look["success"] >= level:
            return _reached(look, False)
    return _reached(curve[-1], True)


def _reached(look: dict[str, Any], censored: bool) -> Reached:
    return Reached(look["steps"], look["seconds"], look["processor_seconds"], censored)


def cost_ratio(theirs: Sequence[float], ours: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """
    How many times what ours costs theirs does: the ratio of geometric means over seeds.

    :param theirs: steps or seconds of each seed, above 0; what a run that did not arrive was given makes the ratio a
        lower bound
    :param ours: of each seed, which all arrived
    :return: the ratio with its interval
    """
    logs = [np.log(np.asarray(each, float))[:, None] for each in (theirs, ours)]
    found = bootstrap(lambda theirs, ours: float(np.exp(theirs.mean() - ours.mean())), *logs, resamples=resamples)
    return found


def area_under(curve: Sequence[dict[str, Any]], steps: float) -> float:
    """
    :param curve: looks, as cells keep them; the last one holds from there on, for training stops when it is done
    :param steps: up to where
    :return: mean success over so many steps, between 0 and 1
    """
    x = np.array([look["steps"] for look in curve], float)
    y = np.array([look["success"] or 0.0 for look in curve], float)
    within = x <= steps
    x_all = np.append(x[within], steps)
    y_all = np.append(y[within], np.interp(steps, x, y))
    return float(np.trapezoid(y_all, x_all) / steps)
