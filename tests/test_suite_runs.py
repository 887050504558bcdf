"""The benchmark suite as a program: what it keeps, resumes, refuses and reports; on this machine and on Ray."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sb3_llm.benchmarks.suite import launch, store
from sb3_llm.benchmarks.suite.config import Cell, load_suite
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.store import Store, read_cell
from sb3_llm.errors import SetupError
from tests.suites import RANDOM, SMALL
from tests.suites import run as _run
from tests.suites import written as _written


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return _written(tmp_path / "small.yaml", SMALL)


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
        old = replace(now, commit="0123abc", code="of another time")
        kept.save(cell, {name: found[name] for name in store.PARTS}, old)
    assert _run(*_arguments(results)) == 2
    assert "made with the code of commit 0123abc; this is" in capsys.readouterr().err
    assert _run(*_arguments(results), "--mix") == 0
    assert "Commits: 0123abc." in capsys.readouterr().out


def test_another_language_model_leaves_the_networks_cells(results: Path, tmp_path: Path) -> None:
    """They are most of what a suite costs, and nothing of theirs has changed."""
    now = here()
    for cell in load_suite(str(results / "small.yaml")).cells:
        kept = Store(tmp_path / cell.method.player)
        found = read_cell(Store(results / "out").path(cell.key))
        kept.save(cell, {name: found[name] for name in store.PARTS}, replace(now, model="other weights"))
        if cell.method.player in ("network", "random"):
            kept.require([cell], now, mix=False)
        else:
            with pytest.raises(SetupError, match="made with the code of commit"):
                kept.require([cell], now, mix=False)


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
        [sys.executable, "-m", "sb3_llm", "benchmark", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # in the background it would be ignored
    )
    done = out / "cells" / "Maze-5x5--random--0.json"
    end = time.monotonic() + 120
    while not done.exists() and time.monotonic() < end:
        time.sleep(0.1)
    kept = done.read_bytes()
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    try:
        said, _ = run.communicate(timeout=60)
    finally:
        run.kill()
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
