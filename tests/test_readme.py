"""The README's figures are those of the files that were measured; its code runs."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sb3_llm.benchmarks.controls.results import Results, readme_table
from sb3_llm.benchmarks.controls.tasks import TASKS, WORDED
from sb3_llm.benchmarks.suite.config import load_suite
from sb3_llm.benchmarks.suite.formats import share
from sb3_llm.benchmarks.suite.found import Found
from sb3_llm.benchmarks.suite.report import as_markdown
from sb3_llm.benchmarks.suite.store import Store, read_cell
from sb3_llm.benchmarks.zeroshot import OTHER_WORDS, RESULTS, wording_row
from tests.blocks import blocks_of, run_python
from tests.test_candidates import Cottage

PAGE = Path(__file__).parent.parent / "README.md"
FULL = RESULTS.parent / "full"
README = PAGE.read_text(encoding="utf-8")
NOT_HERE = ("textworld:", "Qwen/", "path/to/folder")


def test_its_zero_shot_table_is_what_was_played() -> None:
    assert readme_table(Results(RESULTS), TASKS) in README


def test_its_demo_table_is_what_was_trained() -> None:
    for row in json.loads((RESULTS.parent / "demo.json").read_text(encoding="utf-8")):
        if row["curve"]:
            before, after = (f"{row[when]['success']:.2f}".replace("0.", ".") for when in ("before", "after"))
            name = row["method"].replace("(MlpPolicy)", '("MlpPolicy")')
            assert f"| `{name}` | {before} | {after} (" in README


def test_its_wordings_table_is_what_was_played() -> None:
    found = Results(RESULTS)
    told = {"held-out phrases": "held-out phrases for the actions", "zh": "Chinese", "held-out templates": "sentences"}
    for words in OTHER_WORDS:
        row = wording_row(words)
        name = row.removeprefix("lm, ")
        cells = [f"{(found.of(task, row) or {})['success']:.2f}".removeprefix("0") for task in WORDED]
        assert f"| {told.get(name, name.removeprefix('held-out '))} | {' | '.join(cells)} |" in README


def test_the_report_is_what_the_cells_say() -> None:
    assert as_markdown(Found(load_suite("full"), Store(FULL))) == (FULL / "report.md").read_text(encoding="utf-8")


def test_its_suite_tables_are_the_reports() -> None:
    section = README.partition("## Against small networks")[2].partition("\n## ")[0]
    blocks = [block for block in section.split("\n\n") if block.startswith("|")]
    report = (FULL / "report.md").read_text(encoding="utf-8").split("\n\n")
    assert [block.count("\n") > 7 for block in blocks] == [True, True]
    assert all(block in report for block in blocks)


def test_what_it_tells_of_single_runs_is_in_the_cells() -> None:
    """Figures that stand in sentences, each sought with the words around it."""
    put, corridor = (
        [read_cell(FULL / "cells" / f"{task}--llm--{seed}.json")["final"] for seed in range(5)]
        for task in ("PutNextLocal", "KeyCorridorS3R1")
    )
    told = " ".join(README.split())
    assert f"ends at {_listed(one['sampled']['success'] for one in put)} of 200" in told
    greedy = _listed(one["greedy"]["success"] for one in corridor)
    assert f"greedy success {greedy} of 200 episodes with five seeds" in told


def test_what_it_tells_of_who_arrived_is_in_the_cells() -> None:
    """With how many of five seeds: networks within a million steps, and ours before any training."""
    told, found = " ".join(README.split()), Found(load_suite("full"), Store(FULL))
    count = ("none", "one", "two", "three", "four", "all").__getitem__

    def late(task: str, method: str) -> int:
        ends = found.reached(task, method, 0.9)
        assert len(ends) == 5
        return sum(end.censored for end in ends)

    tasks = "MultiRoom-N4-S5", "LockedRoom"
    rooms, locked = (min(late(task, name) for name in ("mlp", "cnn-view")) for task in tasks)
    assert f"{count(rooms)} of MultiRoom's five and {count(locked)} of LockedRoom's and PutNextLocal's" in told
    assert late("PutNextLocal", "mlp") == late("PutNextLocal", "cnn-view") == 5
    assert late("PutNextLocal", "llm") == 0
    assert "In PutNextLocal no network's run arrived, and all of ours did." in told
    ours, given = found.reached("PutNextLocal", "llm", 0.9), found.reached("PutNextLocal", "cnn-view", 0.9)
    before = found.success("PutNextLocal", "zero-shot")
    assert before is not None
    assert f"learns slowly in PutNextLocal: it starts at {share(before.value)}, passes 90 %" in told
    first, last = min(end.steps for end in ours), max(end.steps for end in ours)
    assert f"at single looks of 50 episodes after {first:,} to {last:,} steps" in told
    slower = sum(end.seconds > max(each.seconds for each in given) for end in ours)
    assert f"a CNN has its million steps before {count(slower)} of our runs arrive" in told
    later = sum(end.steps > 0 for end in found.reached("UnlockPickup", "llm", 0.9))
    assert f"with {count(later)} seeds of UnlockPickup, does it have to be trained" in told


def test_what_a_cloned_network_does_is_in_the_cells() -> None:
    told, found = " ".join(README.split()), Found(load_suite("full"), Store(FULL))
    hard = "DoorKey-8x8", "UnlockPickup", "KeyCorridorS3R1", "LockedRoom", "MultiRoom-N4-S5", "PutNextLocal"
    ends = {task: found.reached(task, "mlp-cloned", 0.9) for task in hard}
    assert {len(each) for each in ends.values()} == {5}
    assert sum(all(end.steps == 0 and not end.censored for end in each) for each in ends.values()) == 4
    assert "90 % before any reinforcement learning too in four of the six hardest of these tasks (five seeds)" in told
    tasks = "KeyCorridorS3R1", "PutNextLocal", "DoorKey-6x6", "GoToObject-6x6-N2", "Fetch-5x5-N2"
    key, put, *worded = [share(end.value) for task in tasks if (end := found.success(task, "mlp-cloned")) is not None]
    after = "after PPO it has {} in KeyCorridorS3R1, {} in PutNextLocal, and {}, {} and {} in DoorKey-6x6"
    assert after.format(key, put, *worded) in told


def test_what_other_words_do_is_in_the_cells() -> None:
    told, found = " ".join(README.split()), Found(load_suite("full"), Store(FULL))

    def there(task: str, *axes: str, method: str = "llm") -> list[float]:
        return [float(found.there(task, method, axis).mean()) for axis in axes]

    fetch, to_object, door_key = "Fetch-5x5-N2", "GoToObject-6x6-N2", "DoorKey-6x6"
    changed = "nouns", "colors", "missions"
    ours, theirs = (_listed(there(fetch, *changed, method=method)) for method in ("llm", "mlp-cloned"))
    assert f"sentence in Fetch's mission the language model has {ours}, and the MLP {theirs}." in told
    for task, axis, before in (
        (to_object, "missions", "In GoToObject another sentence leaves"),
        (door_key, "nouns", "other nouns leave"),
    ):
        (ours,), (theirs,) = (map(share, there(task, axis, method=method)) for method in ("llm", "mlp-cloned"))
        assert f"{before} the MLP {theirs} and the language model {ours}" in told
    spread = [
        [there(task, axis)[0] for task in (fetch, to_object, door_key)] for axis in ("phrases", "templates", "zh")
    ]
    phrases, sentences, chinese = (f"{share(min(each))} to {share(max(each))}" for each in spread)
    assert f"leave the language model {phrases}, {sentences}, and {chinese}." in told


def test_where_numbers_are_all_there_is_is_in_the_cells() -> None:
    told, found = " ".join(README.split()), Found(load_suite("full"), Store(FULL))
    mlp, ours, anew = (found.of("FrozenLake", name) for name in ("mlp", "llm", "llm-anew"))
    spent = [
        " and ".join(f"{each['curve'][-1]['seconds']:.0f}" for each in cells) + " seconds" for cells in (mlp, anew)
    ]
    assert f"it has {_sampled(mlp)} after 100,000 steps in {spent[0]}." in told
    assert f"The language model has {_sampled(ours)} after 8,192 with its presets" in told
    assert f"and {_sampled(anew)} after 200,000 in {spent[1]} with the MLP's rollouts and epochs" in told
    returns = [
        [round(each["final"]["sampled"]["mean_return"]) for each in found.of("CartPole", name)]
        for name in ("mlp", "llm")
    ]
    said = "CartPole's return is {} and {} with the MLP, and {} and {} with the language model, after"
    assert said.format(*returns[0], *returns[1]) in told


def test_what_the_guide_to_tuning_tells_is_in_the_cells() -> None:
    """Its figures of FrozenLake and ObstructedMaze, and its settings, which are the suite's."""
    told = " ".join((PAGE.parent / "docs" / "tuning.md").read_text(encoding="utf-8").split())
    suite = load_suite("full")
    found = Found(suite, Store(FULL))
    anew = found.of("FrozenLake", "llm-anew")
    assert f"FrozenLake has {_sampled(anew)} of 200 episodes after 200,000 steps, two seeds" in told
    (method,) = (each for each in suite.methods if each.name == "llm-anew")
    assert (
        ", ".join(f'"{name}": {value!r}' for name, value in method.settings.items()).replace("0.0003", "3e-4") in told
    )
    ends = {
        how: [each["final"][how]["success"] for each in found.of("ObstructedMaze-2Dlh", "llm")]
        for how in ("greedy", "sampled")
    }
    greedy, sampled = (f"{share(min(each))} to {share(max(each))}" for each in ends.values())
    assert f"stays at {greedy} greedily after 2,048 steps, and has {sampled} sampled" in told


def _sampled(cells: list[dict[str, Any]]) -> str:
    return _listed(cell["final"]["sampled"]["success"] for cell in cells)


def _listed(shares: Iterable[float]) -> str:
    *others, last = map(share, shares)
    return f"{', '.join(others)} and {last}"


def test_what_training_did_to_locked_room_is_in_the_report() -> None:
    report = (FULL / "report.md").read_text(encoding="utf-8")
    sampled, greedy = [line.split(" | ") for line in report.splitlines() if line.startswith("| LockedRoom |")][:2]
    after, before = (cell.split(" ")[0] for cell in greedy[1:3])
    told = " ".join(README.split())
    then = sampled[1].split(" ")[0]
    assert f"one update took greedy success from {before} to {after} (sampled: {then} after it)" in told


@pytest.mark.filterwarnings("ignore")
def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, as it is read; cut short, and without what has to be installed or fetched first."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__", "game": Cottage()}
    blocks = [block for block in blocks_of(PAGE) if block.language == "python"]
    for block in blocks:
        code = block.code.replace("from stable_baselines3 import PPO", "from tests.blocks import ShortPPO as PPO")
        lines = ["" if any(name in line for name in NOT_HERE) else line for line in code.splitlines(True)]
        run_python(replace(block, code="".join(lines)), names)
    assert len(blocks) > 8
    assert (tmp_path / "my-model" / "model.safetensors").exists()
