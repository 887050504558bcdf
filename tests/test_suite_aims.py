"""What the full suite was made to show: each aim holds where it does and nowhere else."""

from pathlib import Path

import pytest

from sb3_llm.benchmarks.suite.aims import Item, aims
from sb3_llm.benchmarks.suite.config import Suite, load_suite
from sb3_llm.benchmarks.suite.found import Found
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.report import as_markdown
from sb3_llm.benchmarks.suite.store import Store
from tests.suites import made_up

#: Steps and seconds until a success of .9; 512 and 1 for all others.
ARRIVALS = {
    ("DoorKey-8x8", "mlp"): (26_112, 51.0),
    ("UnlockPickup", "mlp"): (25_088, 0.5),
    ("Unlock", "mlp"): (2_560, 5.0),
}


@pytest.fixture
def found(tmp_path: Path) -> Found:
    tasks = ["DoorKey-8x8", "UnlockPickup", "Unlock", "Fetch-5x5-N2"]
    cells = load_suite("full", tasks, ["llm", "mlp", "mlp-cloned"], seeds=2).cells
    results = Store(tmp_path)
    for cell in cells:
        steps, seconds = ARRIVALS.get((cell.task.name, cell.method.name), (512, 1.0))
        ends = 0.7 if cell.method.name == "mlp-cloned" else 0.9
        figures = made_up([(0, 0.1, 0.0), (steps, seconds, ends)])
        if cell.axes:
            ours = {"phrases": 0.81, "nouns": 0.80, "colors": 0.6, "wilson": 0.85}
            there = ours if cell.method.name == "llm" else {"colors": 0.5}
            sampled = figures["final"]["sampled"]
            figures["generalisation"] = {axis: sampled | {"success": value} for axis, value in there.items()}
        results.save(cell, figures, here())
    return Found(Suite("full", "", tuple(cells)), results)


def test_aims(found: Found) -> None:
    told = dict(aims(found))
    assert told["50 times fewer steps than the best network"] == [
        Item("DoorKey-8x8", "", True),
        Item("UnlockPickup", "", False),
    ]
    assert told["5 times fewer steps where it is easy"] == [Item("Unlock", "", True)]
    assert told["and less time, the interval above 1"] == [
        Item("DoorKey-8x8", "", True),
        Item("UnlockPickup", "", False),
    ]
    assert told["new words cost at most 10%"] == [
        Item("Fetch-5x5-N2", "phrases", True),
        Item("Fetch-5x5-N2", "nouns", False),
        Item("Fetch-5x5-N2", "colors", False),
    ]
    assert told["other mazes cost at most 5%"] == [Item("Fetch-5x5-N2", "wilson", False)]
    beaten = {(item.task, item.axis): item.holds for item in told["better than mlp-cloned with probability 0.95"]}
    assert beaten == {
        ("DoorKey-8x8", ""): True,
        ("UnlockPickup", ""): True,
        ("Fetch-5x5-N2", ""): True,
        ("Fetch-5x5-N2", "phrases"): True,
        ("Fetch-5x5-N2", "nouns"): True,
        ("Fetch-5x5-N2", "colors"): True,  # for it falls to .5 there; in canonical words it has .7
    }
    assert "better than cnn-cloned with probability 0.95" not in told, "it was not tried"


def test_zoos_reward_is_held_or_missed_by_what_is_uncertain(found: Found) -> None:
    """The made-up returns are .9 ± .196 of 4 episodes; Zoo has .963 in Unlock."""
    by_mean, within = "RL Baselines3 Zoo's reward, sampled or greedy", "or less by at most 1.96 standard errors"
    assert [dict(aims(found))[aim] for aim in (by_mean, within)] == [
        [Item("Unlock", "", False)],
        [Item("Unlock", "", True)],
    ]
    for one in found.of("Unlock", "llm"):
        one["final"]["greedy"] |= {"mean_return": 0.97}
        one["final"]["sampled"] |= {"std_return": 0.06}
    assert dict(aims(found))[by_mean] == [Item("Unlock", "", True)]
    for one in found.of("Unlock", "llm"):
        one["final"]["greedy"] = one["final"]["sampled"]
    assert dict(aims(found))[within] == [Item("Unlock", "", False)]


def test_the_report_tells_what_falls_short(found: Found) -> None:
    text = as_markdown(found)
    assert "| 50 times fewer steps than the best network | 1 of 2 | UnlockPickup |" in text
    assert "| new words cost at most 10% | 1 of 3 | Fetch-5x5-N2 (nouns, colors) |" in text
    found.suite = Suite("mine", "", found.suite.cells)
    assert "aim" not in as_markdown(found), "other suites have no aims"
