"""The benchmark suite: what it runs, keeps, refuses and reports. Cells here are real, and small."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_llm.benchmarks.suite import launch, store
from sb3_llm.benchmarks.suite.config import FOLDER, SUITES, Cell, Method, Suite, Task, load_suite, suites
from sb3_llm.benchmarks.suite.found import Found
from sb3_llm.benchmarks.suite.players import AXES, PLAYERS
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.report import write_report
from sb3_llm.benchmarks.suite.running import run_cell
from sb3_llm.benchmarks.suite.store import DamagedCell, Store, read_cell
from sb3_llm.cli import main
from sb3_llm.errors import SetupError
from sb3_llm.ids import gym_make

RANDOM = "Maze-5x5--random--0.json"
SMALL = {
    "description": "Small.",
    "episodes": 4,
    "final_episodes": 4,
    "groups": [{"tasks": ["Maze-5x5"], "seeds": 1, "methods": {"random": 0, "expert": 0, "mlp": 128}}],
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A suite that takes seconds."""
    return _written(tmp_path / "small.yaml", SMALL)


def _written(path: Path, said: Any) -> Path:
    path.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return path


def _run(*arguments: str) -> int:
    """:return: the program's exit code."""
    before = sys.argv
    sys.argv = ["sb3-llm", "benchmark", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


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


def test_looks_change_nothing(tmp_path: Path) -> None:
    """The same training however many test episodes are played meanwhile."""
    few, many = (run_cell(_cell("Maze-5x5", "mlp", steps=640, episodes=n), tmp_path) for n in (1, 9))
    assert few["final"] == many["final"]


def test_training_stops_when_it_is_done(tmp_path: Path) -> None:
    stopped = run_cell(_cell("DoorKey-5x5", "llm", steps=4096, stop_at=0.5), tmp_path)
    assert [look["steps"] for look in stopped["curve"]] == [0, 512, 528]


# --- kept, resumed, refused


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small suite, run by the program in two parts; in its folder the results are under "out"."""
    folder = tmp_path_factory.mktemp("finished")
    suite = _written(folder / "small.yaml", SMALL)
    arguments = "--suite", str(suite), "--out", str(folder / "out"), "--work", str(folder)
    assert _run(*arguments, "--methods", "random") == 0
    first = folder / "out" / "cells" / RANDOM
    shutil.copy(first, folder / "first.json")
    assert _run(*arguments) == 0
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """:return: a copy to spoil"""
    return Path(shutil.copytree(finished, tmp_path / "results"))


def _arguments(folder: Path, suite: str = "small.yaml") -> list[str]:
    return ["--suite", str(folder / suite), "--out", str(folder / "out"), "--work", str(folder)]


def test_what_is_finished_is_kept(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (results / "first.json").read_bytes() == (results / "out" / "cells" / RANDOM).read_bytes()
    assert _run(*_arguments(results), "--report-only") == 0
    said = capsys.readouterr().out
    assert "3 of 3 cells" in said
    assert re.search(r"\| Maze-5x5 \| \.\d\d \(.*\) \| 1\.00 \(.*\) \|", said)
    page = (results / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert page.index("<h1>") < page.index("<figure>") < page.index("<h2>")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # it needs nothing else


def test_results_of_another_suite(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _written(results / "other.yaml", SMALL | {"final_episodes": 5})
    assert _run(*_arguments(results, "other.yaml")) == 2
    assert "made with another final_episodes than the suite says" in capsys.readouterr().err


def test_results_of_another_commit(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Store(results / "out")
    for cell in load_suite(str(results / "small.yaml")).cells:
        found, now = read_cell(kept.path(cell.key)), here()
        old = type(now)("0123abc", "of another time", now.versions, now.machine)
        kept.save(cell, {name: found[name] for name in store.PARTS}, old)
    assert _run(*_arguments(results)) == 2
    assert "made with the code of commit 0123abc; this is" in capsys.readouterr().err
    assert _run(*_arguments(results), "--mix") == 0
    assert "Commits: 0123abc." in capsys.readouterr().out


def test_a_damaged_cell_is_run_again(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "out" / "cells" / RANDOM
    good = path.read_text(encoding="utf-8")
    for bad, why in [
        (good[:-20], "is no JSON"),
        (good.replace('"episodes": 4', '"episodes": 9'), "is not as it was written"),
        ("{}", "lacks parts"),
    ]:
        path.write_text(bad, encoding="utf-8")
        assert _run(*_arguments(results), "--report-only") == 1
        said = capsys.readouterr().out
        assert f"{path.stem}: damaged, not counted: {RANDOM} {why}" in said
        assert "2 of 3 cells" in said
    assert _run(*_arguments(results)) == 0
    assert f"again: {path.stem} (damaged" in capsys.readouterr().out
    assert read_cell(path)["final"]["sampled"] == json.loads(good)["final"]["sampled"]


def test_a_failing_cell_takes_no_other_along(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One method that can't be made, and one worker that is killed; the third is finished, and all are told of."""
    groups = [
        {"tasks": ["CartPole"], "seeds": 1, "methods": {"cnn": 256}},
        {"tasks": ["Maze-5x5"], "seeds": 1, "methods": {"mlp": 5_000_000, "random": 0}},
    ]
    suite = _written(tmp_path / "bad.yaml", SMALL | {"groups": groups})
    begin = launch._begin

    def killed(cell: Cell, *rest: Any) -> Any:
        begun = begin(cell, *rest)
        if cell.method.name == "mlp":
            os.kill(begun.process.pid, signal.SIGKILL)
        return begun

    monkeypatch.setattr(launch, "_begin", killed)
    out = tmp_path / "out"
    assert _run("--suite", str(suite), "--out", str(out), "--work", str(tmp_path), "--jobs", "1") == 1
    said = capsys.readouterr().out
    assert "failed: CartPole--cnn--0: exit code 1: sb3_llm.errors.SetupError: observations of shape (4,)" in said
    assert "failed: Maze-5x5--mlp--0: killed by signal 9: it said nothing" in said
    assert "1 of 3 cells (a task" in said
    assert "- CartPole--cnn--0: failed: exit code 1" in (out / "report.md").read_text(encoding="utf-8")
    assert "2 cells have no figures" in said
    assert "Traceback" in (out / "failed" / "CartPole--cnn--0.txt").read_text(encoding="utf-8")


def test_interrupted_and_gone_on_with(small: Path, tmp_path: Path) -> None:
    """Ctrl-C while a long cell runs: it is ended, what was finished stays, and the same command finishes the rest."""
    groups: list[dict[str, Any]]
    groups = [{"tasks": ["Maze-5x5"], "seeds": 1, "methods": {"random": 0, "mlp": 5_000_000}}]
    suite = _written(tmp_path / "long.yaml", SMALL | {"groups": groups})
    out = tmp_path / "out"
    arguments = ["--suite", str(suite), "--out", str(out), "--work", str(tmp_path), "--jobs", "1"]
    run = subprocess.Popen(
        [sys.executable, "-m", "sb3_llm", "benchmark", *arguments], stdout=subprocess.PIPE, text=True
    )
    done = out / "cells" / "Maze-5x5--random--0.json"
    end = time.monotonic() + 120
    while not done.exists() and time.monotonic() < end:
        time.sleep(0.1)
    kept = done.read_bytes()
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Interrupted; what is finished is kept" in said
    shorter = _written(tmp_path / "long.yaml", SMALL | {"groups": [groups[0] | {"methods": {"random": 0, "mlp": 128}}]})
    assert _run("--suite", str(shorter), *arguments[2:]) == 0
    assert done.read_bytes() == kept


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_table(finished: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, workers left to themselves: in the end all figures are those of a quiet run."""
    shutil.copy(finished / "small.yaml", tmp_path)
    program = [sys.executable, "-m", "sb3_llm", "benchmark", *_arguments(tmp_path)]
    rng = random.Random(0)
    for _ in range(3):
        run = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, 20))
        run.kill()
        run.wait()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    for name in ("Success after training", "Steps to 50 %", "Mean return, sampled"):
        quiet, killed = (_section(folder / "out", name) for folder in (finished, tmp_path))
        assert quiet == killed


def _section(out: Path, title: str) -> str:
    report = (out / "report.md").read_text(encoding="utf-8")
    return report.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_no_room(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "NEEDED_MIB", 10**12)
    with pytest.raises(SetupError, match=r"MiB free for .*out\. Expected: 10+ MiB"):
        Store(tmp_path / "out").require(load_suite(str(small)).cells, here(), False)


def test_bad_options(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--suite", str(small), "--launcher", "slurm") == 2
    assert "--launcher slurm. Expected: one of local, ray" in capsys.readouterr().err


# --- Ray


@pytest.mark.slow
def test_on_ray(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real cluster on this machine: the same figures as from a process, and a failing cell takes no other along."""
    pytest.importorskip("ray")
    groups = [
        {"tasks": ["Maze-5x5"], "seeds": 1, "methods": {"mlp": 128}},
        {"tasks": ["CartPole"], "seeds": 1, "methods": {"cnn": 256}},
    ]
    suite = load_suite(str(_written(tmp_path / "ray.yaml", SMALL | {"groups": groups})))
    ends: dict[str, str | None] = {}
    local, remote = Store(tmp_path / "local"), Store(tmp_path / "remote")
    launch.run_on_ray(suite.cells, remote, tmp_path, None, lambda cell, why: ends.update({cell.key: why}))
    failed = ends.pop("CartPole--cnn--0")
    assert failed is not None
    assert "observations of shape (4,)" in failed
    assert ends == {"Maze-5x5--mlp--0": None}
    mlp = suite.cells[0]
    launch.run_locally([mlp], local, tmp_path, 1, lambda cell, why: None)
    assert _figures(local, mlp) == _figures(remote, mlp)


def _figures(results: Store, cell: Cell) -> Any:
    found = results.load(cell)
    assert found is not None
    return found["final"], [look["success"] for look in found["curve"]]


def test_ray_out_of_reach(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    arguments = ["--suite", str(small), "--methods", "random", "--out", str(tmp_path / "out"), "--work", str(tmp_path)]
    arguments += ["--launcher", "ray", "--ray-address", "127.0.0.1:1"]
    assert _run(*arguments) == 2
    assert "--ray-address 127.0.0.1:1" in capsys.readouterr().err
    assert _run(*arguments, "--fallback") == 0
    assert "Running locally." in capsys.readouterr().out


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
    assert "| DoorKey-5x5 | 0.964 | 100,000 | 0.900 | 1,024 |  |" in text


def _made_up(looks: list[tuple[int, float, float]]) -> dict[str, Any]:
    final = {
        "policy": "sampled",
        "episodes": 4,
        "success": looks[-1][2],
        "success_interval": [0.0, 1.0],
        "mean_return": 0.9,
        "std_return": 0.0,
        "mean_length": 9.0,
        "spl": None,
    }
    names = "steps", "seconds", "success"
    common = {"processor_seconds": 1.0, "mean_return": 0.0, "mean_length": 1.0, "episodes": 4}
    return {
        "curve": [dict(zip(names, look, strict=True)) | common for look in looks],
        "final": {"sampled": final, "greedy": final | {"policy": "greedy"}},
        "generalisation": {},
        "fluency": None,
        "costs": {
            "setup_seconds": 0.1,
            "seconds": 9.0,
            "parameters": 7,
            "trained": 7,
            "flops_per_decision": 14.0,
            "peak_memory_mib": 100.0,
        },
    }


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DamagedCell, match=r"a\.json lacks parts"):
        read_cell(tmp_path / "a.json")
    assert SUITES.is_dir()
