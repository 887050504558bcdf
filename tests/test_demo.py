"""The demo and the benchmark of scoring run end to end; the slow ones hold the demo to what it promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sb3_llm.benchmarks.curves import WINDOW, Point, first_at

ROOT = Path(__file__).parent.parent


def run(*arguments: str, timeout: int = 280) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["task"], row["method"]): row for row in json.loads((folder / "table.json").read_text())}


def test_a_short_demo(tmp_path: Path) -> None:
    sizes = ["--maze-steps", "512", "--minigrid-steps", "512", "--episodes", "2"]
    printed = run("benchmarks", "demo", "--out", str(tmp_path), *sizes)
    assert "PPO(LLMPolicy)" in printed
    assert "no MiniGrid-* task" in " ".join(printed.split())
    rows = rows_of(tmp_path)
    assert len(rows) == 6
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.glob("*/model.zip"))) == 4


def test_scoring_benchmark(tmp_path: Path) -> None:
    sizes = ["--only", "1", "--batch", "2", "--repeats", "1", "--slow-repeats", "1"]
    printed = run("benchmarks", "scoring", *sizes, "--json", str(tmp_path / "figures.json"))
    assert "TWOSOME" in " ".join(printed.split())
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["seconds"]["forward"]) >= {"prompt only", "ours", "all rows", "reference"}
    assert 0 < figures["peak_MiB"]["ours"] < figures["peak_MiB"]["all rows"]


def test_first_at() -> None:
    points = [Point(5, 0.5, 1.0, 12), Point(10, 1.0, 0.5, 50), Point(20, 2.0, 0.9, 50), Point(30, 3.0, 0.95, 50)]
    assert first_at(points, 0.9) == points[2], "twelve lucky episodes are no 90 %"
    assert first_at(points, 0.99) is None


@pytest.mark.slow
def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    run("benchmarks", "demo", "--out", str(tmp_path), timeout=3000)
    rows = rows_of(tmp_path)
    for task in ("sb3_llm/Maze-v0", "MiniGrid-PutNear-6x6-N2-v0"):
        assert rows[task, "PPO(LLMPolicy)"]["after"]["success"] >= 0.9
    ninety = {
        method: next(
            (p["steps"] for p in row["curve"] if p["episodes"] == WINDOW and p["success"] >= 0.9), float("inf")
        )
        for (task, method), row in rows.items()
        if task == "MiniGrid-PutNear-6x6-N2-v0"
    }
    assert ninety["PPO(LLMPolicy)"] < ninety["PPO(MlpPolicy)"]


@pytest.mark.slow
def test_zero_shot_doorkey() -> None:
    """A task the embedded model has never read of, without any training."""
    arguments = ["--model", "embedded", "MiniGrid-DoorKey-8x8-v0", "--episodes", "200", "--json"]
    sampled, _ = json.loads(run("sb3_llm", "evaluate", *arguments, timeout=3000))["evaluations"]
    assert sampled["success"] >= 0.6
