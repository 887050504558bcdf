"""The suite's statistics are rliable's: values that rliable 1.2 gave for the same scores, beside pandas 2."""

import numpy as np
import pytest

from sb3_llm.benchmarks.suite.statistics import (
    area_under,
    bootstrap,
    cost_ratio,
    first_reaching,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

OURS = np.array(
    [
        [0.852, 0.788, 0.728, 0.83],
        [0.949, 0.713, 0.618, 0.691],
        [0.872, 0.872, 0.816, 0.694],
        [0.964, 0.776, 0.912, 0.921],
        [0.663, 0.967, 0.731, 0.597],
    ]
)
THEIRS = np.array(
    [
        [0.949, 0.479, 0.55, 0.599],
        [0.847, 0.232, 0.423, 0.471],
        [0.693, 0.43, 0.816, 0.498],
        [0.548, 0.224, 0.661, 0.605],
        [0.417, 0.604, 0.6, 0.554],
    ]
)
NOISE = 0.008  # between two bootstraps of this many resamples
CURVE = [
    {"steps": 0, "seconds": 1.0, "processor_seconds": 1.0, "success": 0.0},
    {"steps": 100, "seconds": 3.0, "processor_seconds": 3.0, "success": 0.5},
    {"steps": 200, "seconds": 5.0, "processor_seconds": 5.0, "success": 1.0},
]


def test_figures_of_rliable() -> None:
    assert interquartile_mean(OURS) == pytest.approx(0.7978, abs=1e-9)
    assert interquartile_mean(THEIRS) == pytest.approx(0.5508, abs=1e-9)
    assert probability_of_improvement(OURS, THEIRS) == pytest.approx(0.88, abs=1e-9)
    assert performance_profile(OURS, [0.5, 0.7, 0.8, 0.9]).tolist() == [1.0, 0.75, 0.5, 0.25]


def test_intervals_of_rliable() -> None:
    ours, theirs = bootstrap(interquartile_mean, OURS), bootstrap(interquartile_mean, THEIRS)
    assert (ours.low, ours.high) == pytest.approx((0.73740, 0.86070), abs=NOISE)
    assert (theirs.low, theirs.high) == pytest.approx((0.49380, 0.61050), abs=NOISE)
    better = bootstrap(probability_of_improvement, OURS, THEIRS)
    assert (better.low, better.high) == pytest.approx((0.75, 0.98), abs=0.021)  # it moves in steps of .01


def test_resamples_stay_within_a_task() -> None:
    apart = np.array([[0.0, 10.0], [0.0, 10.0], [0.0, 10.0]])
    found = bootstrap(lambda scores: float(scores.mean()), apart, resamples=200)
    assert (found.low, found.value, found.high) == (5.0, 5.0, 5.0)
    assert bootstrap(interquartile_mean, OURS) == bootstrap(interquartile_mean, OURS)  # the same draws each time


def test_levels_are_reached_or_censored() -> None:
    there = first_reaching(CURVE, 0.5)
    assert (there.steps, there.seconds, there.censored) == (100, 3.0, False)
    never = first_reaching(CURVE[:2], 0.9)
    assert (never.steps, never.seconds, never.censored) == (100, 3.0, True)
    unknown = first_reaching([{"steps": 9, "seconds": 1.0, "processor_seconds": 1.0, "success": None}], 0.0)
    assert unknown.censored


def test_cost_ratios() -> None:
    found = cost_ratio([400.0, 100.0], [10.0, 10.0])
    assert found.value == pytest.approx(20.0)
    assert found.low == pytest.approx(10.0)
    assert found.high == pytest.approx(40.0)


def test_area_under_a_curve() -> None:
    assert area_under(CURVE, 200) == pytest.approx(0.5)
    assert area_under(CURVE, 400) == pytest.approx(0.75)  # training ended, success stays
    assert area_under(CURVE, 100) == pytest.approx(0.25)
    assert area_under(CURVE, 50) == pytest.approx(0.125)
