"""The benchmark suite: what there is to run, cells, which are real and small here, and the report."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

from sb3_llm import make_env
from sb3_llm.benchmarks.controls.networks import NETWORKS
from sb3_llm.benchmarks.controls.numbers import CommonNumbers
from sb3_llm.benchmarks.suite.config import FOLDER, Cell, Method, Suite, Task, load_suite, suites
from sb3_llm.benchmarks.suite.curve import Stopwatch
from sb3_llm.benchmarks.suite.found import WORDS, Found
from sb3_llm.benchmarks.suite.players import AXES, MAZES, PLAYERS
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.report import write_report
from sb3_llm.benchmarks.suite.running import run_cell
from sb3_llm.benchmarks.suite.store import DamagedCell, Store, read_cell
from sb3_llm.benchmarks.suite.worlds import MISSION, Reworded
from sb3_llm.errors import SetupError
from sb3_llm.ids import gym_make
from sb3_llm.numeric import bag_of_words, make_numeric_env
from tests.suites import SMALL
from tests.suites import made_up as _made_up
from tests.suites import written as _written


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return _written(tmp_path / "small.yaml", SMALL)


# --- what there is to run


def test_the_suites_can_be_read() -> None:
    assert suites() == ["full", "quick"]
    for name in suites():
        suite = load_suite(name)
        assert len({cell.key for cell in suite.cells}) == len(suite.cells)
        assert {cell.method.player for cell in suite.cells} <= set(PLAYERS)
        assert {axis for cell in suite.cells for axis in cell.axes} <= set(AXES)
        assert [cell.seed for cell in suite.cells] == sorted(cell.seed for cell in suite.cells)


def test_every_task_makes() -> None:
    for cell in {cell.task.name: cell for cell in load_suite("full").cells}.values():
        for kwargs in (cell.task.env_kwargs, cell.task.test_kwargs):
            gym_make(cell.task.env_id, **kwargs).close()


def test_the_full_suite_has_five_seeds_where_it_decides() -> None:
    cells = load_suite("full").cells
    decisive = ("DoorKey-8x8", "UnlockPickup", "KeyCorridorS3R1", "LockedRoom", "MultiRoom-N4-S5", "PutNextLocal")
    for task in (*decisive, "DoorKey-5x5", "Unlock", "Maze-5x5"):
        for method in ("llm", "mlp"):
            assert len([cell for cell in cells if (cell.task.name, cell.method.name) == (task, method)]) >= 5
    for task in decisive:
        budgets = {cell.method.name: cell.steps for cell in cells if cell.task.name == task}
        assert budgets["mlp"] == budgets["cnn-view"] == 1_000_000
    for cell in cells:
        if cell.task.zoo is not None and cell.method.name == "llm":
            assert cell.steps <= 200_000


def test_parts_can_be_chosen(small: Path) -> None:
    suite = load_suite("full", ["DoorKey-8x8", "Unlock"], ["llm", "mlp"], 2)
    assert {(cell.task.name, cell.method.name, cell.seed) for cell in suite.cells} == {
        (task, method, seed) for task in ("DoorKey-8x8", "Unlock") for method in ("llm", "mlp") for seed in (0, 1)
    }
    assert [cell.method.name for cell in load_suite(str(small)).cells] == ["random", "expert", "mlp"]


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("tiny", {}, "the suite 'tiny'. Expected: one of full, quick, or a path"),
        ("quick", {"tasks": ["DoorKey"]}, "the task 'DoorKey'. Expected: one of Maze-5x5, "),
        ("quick", {"methods": ["dqn"]}, "the method 'dqn'. Expected: one of llm, llm-lora, "),
        ("quick", {"tasks": ["Synth"]}, "Expected: at least one cell"),
    ],
)
def test_unknown_parts(name: str, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=re.escape(message)):
        load_suite(name, **parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("- a", "holds list"),
        ("description: Small.", "without 'groups'"),
        (yaml.safe_dump(SMALL | {"groups": [{"tasks": ["Nowhere"], "seeds": 1, "methods": {}}]}), "the task 'Nowhere'"),
        (
            yaml.safe_dump(SMALL | {"groups": [{"tasks": ["Unlock"], "seeds": 1, "methods": {"sac": 1}}]}),
            "the method 'sac'",
        ),
    ],
)
def test_suites_that_can_not_be(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SetupError, match=message):
        load_suite(str(path))


# --- cells


def _cell(task: str, method: str, **changed: Any) -> Cell:
    short = {"n_steps": 8, "batch_size": 64, "n_epochs": 1} if method not in ("random", "expert") else {}
    tasks = yaml.safe_load((FOLDER / "tasks.yaml").read_text(encoding="utf-8"))
    methods = yaml.safe_load((FOLDER / "methods.yaml").read_text(encoding="utf-8"))
    return Cell(
        **{
            "task": Task(name=task, **tasks[task]),
            "method": Method(name=method, **methods[method] | {"settings": short}),
            "seed": 0,
            "steps": 0,
            "episodes": 2,
            "final_episodes": 3,
        }
        | changed
    )


@pytest.mark.parametrize(
    ("task", "method", "steps", "axes"),
    [
        ("Maze-5x5", "llm-masked", 128, ("size-8",)),
        ("DoorKey-5x5", "llm-lora", 128, ("missions", "zh")),
        ("Maze-5x5", "text-mlp", 128, ("wilson",)),
        ("DoorKey-5x5", "cnn", 128, ()),
        ("Maze-5x5", "mlp-view", 128, ("kruskal", "size-8")),
        ("GoToObject-6x6-N2", "mlp", 128, ("nouns", "missions")),
        ("DoorKey-5x5", "zero-shot", 0, ()),
        ("CartPole", "mlp", 128, ()),
        ("FrozenLake", "random", 0, ()),
    ],
)
def test_players(task: str, method: str, steps: int, axes: tuple[str, ...], tmp_path: Path) -> None:
    found = run_cell(_cell(task, method, steps=steps, axes=axes), tmp_path)
    assert found["final"]["sampled"]["episodes"] == found["final"]["greedy"]["episodes"] == 3
    looks = [look["steps"] for look in found["curve"]]
    assert looks == sorted(looks)
    assert bool(looks) == bool(steps)
    if steps:
        assert looks[0] == 0
        assert looks[-1] >= steps
        assert found["curve"][-1]["seconds"] > found["curve"][0]["seconds"] >= found["costs"]["setup_seconds"]
    if method != "random":
        assert found["costs"]["flops_per_decision"] > 1e4
        assert 0 < found["costs"]["trained"] <= found["costs"]["parameters"]
    assert set(found["generalisation"]) == (set(axes) - {"size-8"} if method == "mlp-view" else set(axes))
    assert (found["fluency"] is None) == (not method.startswith(("llm", "zero")))


@pytest.mark.parametrize("method", ["mlp-cloned", "cnn-cloned"])
@pytest.mark.parametrize("task", ["DoorKey-5x5", "UnlockPickup"])
def test_cloned_networks_begin_as_they_were_cloned(
    task: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_id = _cell(task, method).task.env_id
    cloned = NETWORKS[method[:3]]("grid", CommonNumbers(gym_make(env_id)).observation_space.shape[0]).eval()

    events: list[str] = []

    class Watch(Stopwatch):
        def __init__(self) -> None:
            events.append("watch")
            super().__init__()

    def clone(*_: Any) -> tuple[Any, dict[str, Any]]:
        events.append("cloned")
        return cloned, {}

    monkeypatch.setattr("sb3_llm.benchmarks.suite.running.Stopwatch", Watch)
    monkeypatch.setattr("sb3_llm.benchmarks.suite.players.kept_network", clone)
    player = PLAYERS["cloned"](_cell(task, method), tmp_path)
    env = player.world(player.kwargs)
    obs = torch.from_numpy(np.stack([env.reset(seed=seed)[0] for seed in range(3)]))
    logits = cloned(obs.float())[:, env.offered]
    policy = player.make().policy
    torch.testing.assert_close(policy.get_distribution(obs).distribution.probs, logits.softmax(-1))
    found = run_cell(_cell(task, method, steps=128), tmp_path)
    assert found["costs"]["trained"] > 5e5
    assert events == ["cloned", "cloned", "watch"], "cloning counts no more than pretraining does"


@pytest.mark.parametrize("method", ["mlp", "mlp-cloned"])
def test_numbers_hold_a_mission_in_the_words_of_the_text(method: str) -> None:
    """And nothing else of them changes."""
    env_id, wording = "MiniGrid-GoToObject-6x6-N2-v0", "held-out nouns"
    text, plain = make_env(env_id, wording=wording), _numbers(method, env_id)
    told = Reworded(_numbers(method, env_id), wording)
    said, others = set(), np.arange(plain.observation_space.shape[0])
    others = np.delete(others, MISSION)
    for seed in (7, None, None, 8):
        text.reset(seed=seed)
        (canonical, _), (reworded, _) = plain.reset(seed=seed), told.reset(seed=seed)
        mission: str = told.unwrapped.mission  # type: ignore[attr-defined]
        np.testing.assert_array_equal(canonical[MISSION], bag_of_words(mission))
        for numbers in (reworded, told.step(0)[0]):
            np.testing.assert_array_equal(numbers[MISSION], bag_of_words(told.said))
        np.testing.assert_array_equal(reworded[others], canonical[others])
        assert f"Goal: {told.said}." in text.text
        assert told.said != mission
        said.add(told.said)
    assert len(said) > 1


def _numbers(method: str, env_id: str) -> gym.Env[Any, Any]:
    return make_numeric_env(env_id) if method == "mlp" else CommonNumbers(gym_make(env_id))


def test_looks_change_nothing(tmp_path: Path) -> None:
    """The same training however many test episodes are played meanwhile."""
    few, many = (run_cell(_cell("Maze-5x5", "mlp", steps=640, episodes=n), tmp_path) for n in (1, 9))
    assert few["final"] == many["final"]


def test_training_stops_when_it_is_done(tmp_path: Path) -> None:
    stopped = run_cell(_cell("DoorKey-5x5", "llm", steps=4096, stop_at=0.5), tmp_path)
    assert [look["steps"] for look in stopped["curve"]] == [0, 512]


# --- the report


def test_ratios_and_bounds(tmp_path: Path) -> None:
    """A network that never arrives makes the ratio a bound; a language model that was there counts a rollout."""
    tasks = load_suite("quick", ["DoorKey-5x5"], ["llm", "mlp"]).cells
    results = Store(tmp_path)
    for cell in tasks:
        arrived = cell.method.name == "llm"
        looks = [(0, 1.0, 1.0), (512, 9.0, 1.0)] if arrived else [(0, 0.1, 0.0), (512, 0.4, 0.2), (51_200, 20.0, 0.5)]
        results.save(cell, _made_up(looks), here())
    found = Found(Suite("quick", "", tuple(tasks)), results)
    steps, network, bound = found.ratio("DoorKey-5x5", 0.9, "steps") or (None, "", False)
    assert steps is not None
    assert (steps.value, network, bound) == (pytest.approx(100.0), "mlp", True)
    seconds, _, _ = found.ratio("DoorKey-5x5", 0.9, "seconds") or (None, "", False)
    assert seconds is not None
    assert seconds.value == pytest.approx(20.0)
    text = write_report(found.suite, results).with_name("report.md").read_text(encoding="utf-8")
    assert "| DoorKey-5x5 | mlp | >= 100 (100-100) | mlp | >= 20 (20-20) | mlp | >= 1 (1-1) |" in text
    assert "| DoorKey-5x5 | 0 | > 51,200 (0 of 2) |" in text
    assert "cloned from the same stories" not in text.partition("## Success")[2].partition("## How each")[0]
    assert "| DoorKey-5x5 | 0.964 | 100,000 | 0.900 ± 0.196 | 0.900 ± 0.196 | 512 |  |  |  |" in text


def test_a_language_model_that_did_not_arrive_has_no_ratio(tmp_path: Path) -> None:
    """But the row stays, and says so."""
    tasks = load_suite("quick", ["DoorKey-5x5"], ["llm", "mlp"]).cells
    results = Store(tmp_path)
    for cell in tasks:
        arrived = cell.method.name == "mlp" or cell.seed == 0
        results.save(cell, _made_up([(0, 1.0, 0.0), (512, 9.0, 1.0 if arrived else 0.8)]), here())
    text = write_report(Suite("quick", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    told = "ours: 1 of 2 runs"
    assert f"| DoorKey-5x5 |  | {told} |  | {told} |  | {told} |" in text


def test_where_no_network_was_tried_there_is_no_contest(tmp_path: Path) -> None:
    tasks = load_suite("full", ["DoorKey-5x5", "Unlock"], ["llm", "mlp"], seeds=2).cells
    results = Store(tmp_path)
    for cell in tasks:
        if cell.method.name == "llm" or cell.task.name == "DoorKey-5x5":
            results.save(cell, _made_up([(0, 1.0, 0.0), (512, 9.0, 0.8)]), here())
    text = write_report(Suite("full", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    contest = text.partition("x processor time |")[2].partition("\n\n")[0]
    assert "| DoorKey-5x5 |" in contest
    assert "| Unlock |" not in contest
    assert "| Unlock |" in text


def test_a_task_without_success_stands_where_it_has_figures(tmp_path: Path) -> None:
    """CartPole's return is told; it never "needs more than so many steps" to a success that it doesn't have."""
    tasks, results = load_suite("full", ["CartPole", "Unlock"], ["llm", "mlp"], seeds=1).cells, Store(tmp_path)
    for cell in tasks:
        known = None if cell.task.name == "CartPole" else 0.5
        results.save(cell, _made_up([(0, 1.0, known), (512, 9.0, known)]), here())
    text = write_report(Suite("full", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    sections = {each.partition("\n")[0]: each for each in text.split("## ")}
    assert {title for title, section in sections.items() if "| CartPole |" in section} == {
        "Mean return, sampled",
        "Steps of an episode",
    }
    assert "| Unlock | > 512 (0 of 1) | > 512 (0 of 1) |" in text
    assert "| mlp | 1 | 1 | .50 | .50 | .50 |" in text, "over all tasks that have success"


def test_the_median_is_told_and_how_many_arrived(tmp_path: Path) -> None:
    tasks, results = load_suite("full", ["DoorKey-8x8"], ["llm", "mlp-cloned"], seeds=5).cells, Store(tmp_path)
    arrivals = {"llm": (0, 0, 512, 512, 1024), "mlp-cloned": (512, 1024, None, None, None)}
    for cell in tasks:
        at = arrivals[cell.method.name][cell.seed]
        looks = [(steps, steps / 100, float(at is not None and steps >= at)) for steps in (0, 512, 1024, 2048)]
        results.save(cell, _made_up(looks), here())
    text = write_report(Suite("full", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    assert "| DoorKey-8x8 | 512 | > 2,048 (2 of 5) |" in text
    assert "| DoorKey-8x8 | 5.1 | > 20 (2 of 5) |" in text
    beside = text.partition("## Against networks cloned")[2].partition("## ")[0]
    assert "| .40 (.00-.80) | .80 (.60-1.00) |" in beside


def test_other_words_are_told_beside_networks_as_far_as_their_numbers_hold_them(tmp_path: Path) -> None:
    tasks, results = load_suite("full", ["Fetch-5x5-N2"], ["llm", "mlp-cloned"], seeds=2).cells, Store(tmp_path)
    for cell in tasks:
        ours = cell.method.name == "llm"
        figures = _made_up([(0, 1.0, 0.0), (512, 9.0, 1.0 if ours else 0.7)])
        there = {"phrases": (0.6, 0.8), "nouns": (1.0, 1.0), "size-8": (0.0, 0.0)} if ours else {"nouns": (1.0, 0.2)}
        axes = {axis: figures["final"]["sampled"] | {"success": seeds[cell.seed]} for axis, seeds in there.items()}
        results.save(cell, figures | {"generalisation": axes}, here())
    text = write_report(Suite("full", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("## In words")[2].partition("\n## ")[0].splitlines() if "Fetch" in line]
    assert rows == [
        "| Fetch-5x5-N2 | phrases | .70 (.60-.80) | .70 (.70-.70) | .50 (.00-1.00) |",
        "| Fetch-5x5-N2 | nouns | 1.00 (1.00-1.00) | .60 (.20-1.00) | .75 (.50-1.00) |",
    ]
    assert set(WORDS) == set(AXES) - set(MAZES)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    tasks, results = load_suite("quick", ["DoorKey-5x5"], ["llm", "mlp"], seeds=1).cells, Store(tmp_path)
    for cell in tasks:
        results.save(cell, _made_up([(0, 1.0, 1.0), (512, 9.0, 1.0)]), here())
    text = write_report(Suite("quick", "", tuple(tasks)), results).with_name("report.md").read_text(encoding="utf-8")
    assert "| DoorKey-5x5 | mlp | 1 | mlp | 1 | mlp | 1 |" in text
    assert "| mlp | 1 | 1 | 1.00 | 1.00 | .50 |" in text


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DamagedCell, match=r"a\.json lacks parts"):
        read_cell(tmp_path / "a.json")
