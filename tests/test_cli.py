"""The program, as a user types it."""

import contextlib
import functools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stable_baselines3 import A2C, PPO

from sb3_llm.evaluation import wilson_interval
from sb3_llm.training import Run, RunFolder, algorithm_of, train


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sb3_llm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240)


def test_train_then_evaluate(tmp_path: Path, gpt2_folder: Path) -> None:
    options = ["--model", str(gpt2_folder), "--n-envs", "2", "--env-arg", "split=test"]
    trained = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "64", "--out", "run", *options, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "sb3-llm evaluate run/model.zip sb3_llm/Maze3x3-v0" in trained.stdout
    again = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "64", "--out", "run", *options, cwd=tmp_path)
    assert again.returncode == 2
    assert "add --resume" in again.stderr
    on = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "128", "--out", "run", "--resume", *options, cwd=tmp_path)
    assert on.returncode == 0, on.stderr
    assert PPO.load(tmp_path / "run" / "model.zip").num_timesteps == 128
    shown = run("evaluate", "run/model.zip", "sb3_llm/Maze3x3-v0", "--episodes", "4", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert [each["policy"] for each in result["evaluations"]] == ["sampled", "greedy"]
    assert all(each["episodes"] == 4 for each in result["evaluations"])
    assert all(0 <= each["spl"] <= each["success"] for each in result["evaluations"])


def test_mlp_and_a2c(tmp_path: Path) -> None:
    for algorithm, kind in (("ppo", PPO), ("a2c", A2C)):
        folder = RunFolder(tmp_path / algorithm)
        model, finished = train(
            Run("MiniGrid-Empty-5x5-v0", algorithm, "mlp", n_envs=2), 64, folder, progress_bar=False
        )
        assert finished
        assert isinstance(model, kind)
        assert algorithm_of(folder.model) == algorithm
    shown = run("evaluate", str(folder.model), "MiniGrid-Empty-5x5-v0", "--episodes", "2", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "sampled" in shown.stdout


def test_zero_shot(tmp_path: Path, gpt2_folder: Path) -> None:
    shown = run("evaluate", "--model", str(gpt2_folder), "sb3_llm/Maze3x3-v0", "--episodes", "2", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "NoSuchEnv-v0"], "NoSuchEnv"),
        (["train", "CartPole-v1", "--policy", "cnn"], "one of llm, mlp"),
        (["train", "CartPole-v1", "--algorithm", "dqn"], "one of ppo, a2c"),
        (["train", "CartPole-v1", "--resume", "--out", "nothing"], "no run to resume in nothing"),
        (["train", "CartPole-v1", "--env-arg", "size"], "name=value"),
        (["train", "Pendulum-v1"], "Discrete"),
        (["evaluate", "CartPole-v1"], "either MODEL.zip ENV, or --model NAME ENV"),
        (["evaluate", "none.zip", "CartPole-v1"], "the model none.zip"),
        (["evaluate", "--model", "./none", "CartPole-v1"], "no existing folder"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], expected: str, tmp_path: Path) -> None:
    shown = run(*arguments, cwd=tmp_path)
    assert shown.returncode == 2
    assert expected in shown.stderr
    assert "Traceback" not in shown.stderr
    assert "To mend it" in shown.stderr
    assert not list(tmp_path.rglob("*.zip"))


def read_all(terminal: int) -> str:
    """Read until the other side is closed, which Linux tells by an error."""
    told = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            told += part
    return told.decode(errors="replace")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, gpt2_folder: Path) -> None:
    command = [sys.executable, "-m", "sb3_llm", "train", "sb3_llm/Maze3x3-v0", "--timesteps", "1000000"]
    command += ["--out", "run", "--model", str(gpt2_folder), "--n-envs", "2"]
    terminal, its_side = pty.openpty()  # on anything but a terminal the progress bar does not move
    # A shell's background jobs ignore the signal, and hand that down to theirs.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=its_side, stderr=its_side, preexec_fn=listen)
    os.close(its_side)
    output = ""
    while not re.search(r"[1-9][\d,]*/1,000,000", output):
        output += os.read(terminal, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.append(read_all(terminal)))
    reader.start()
    try:
        assert process.wait(60) == 130
    finally:
        process.kill()
        reader.join()
    assert "--resume" in told[0]
    steps = PPO.load(tmp_path / "run" / "model.zip").num_timesteps
    assert 0 < steps < 1_000_000


def test_a_failed_save_leaves_the_earlier_model(tmp_path: Path) -> None:
    folder, run_ = RunFolder(tmp_path), Run("MiniGrid-Empty-5x5-v0", policy="mlp", n_envs=1)
    model, _ = train(run_, 128, folder, progress_bar=False)
    before = folder.model.read_bytes()

    class Broken:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        folder.save(run_, Broken())  # type: ignore[arg-type]
    assert folder.model.read_bytes() == before
    assert PPO.load(folder.model).num_timesteps == model.num_timesteps


def test_wilson_interval() -> None:
    """Against the figures of envs.md-style tables: half-width .069 at p = .5 and n = 200, .041 at p = .9."""
    low, high = wilson_interval(100, 200)
    assert (high - low) / 2 == pytest.approx(0.0686, abs=5e-4)
    low, high = wilson_interval(180, 200)
    assert (low, high) == (pytest.approx(0.8506, abs=1e-3), pytest.approx(0.9343, abs=1e-3))
    assert wilson_interval(0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == 1.0
