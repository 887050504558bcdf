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
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO

from sb3_llm.cli import Masked, environment_for, main
from sb3_llm.errors import SetupError
from sb3_llm.evaluation import evaluate, wilson_interval
from sb3_llm.training import Run, RunFolder, algorithm_of, load_model, train

KINDS = {"ppo": PPO, "a2c": A2C, "trpo": TRPO, "maskable_ppo": MaskablePPO}


class Locks(gym.Env[Any, Any]):
    """Three doors, one of them open at a time; only open ones may be tried. Pays 1 and ends after four steps."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.open = 0, int(self.np_random.integers(3))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action == self.open, "a masked action was taken"
        self.steps, self.open = self.steps + 1, int(self.np_random.integers(3))
        return self._observe(), 1.0, self.steps == 4, False, {}

    def action_masks(self) -> Any:
        return np.arange(3) == self.open

    def _observe(self) -> Any:
        return np.eye(3, dtype=np.float32)[self.open]


gym.register("Locks-v0", Locks)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sb3_llm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240)


def test_train_then_evaluate(tmp_path: Path, gpt2_folder: Path) -> None:
    options = ["--model", str(gpt2_folder), "--n-envs", "2", "--env-arg", "split=test", "--finetune", "top:1"]
    options += ["--policy-arg", "temperature=2", "--set", "n_steps=16", "--set", "batch_size=32", "--save-every", "64"]
    trained = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "64", "--out", "run", *options, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "sb3-llm evaluate run/model.zip sb3_llm/Maze3x3-v0" in trained.stdout
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["policy_kwargs"] == {"temperature": 2, "finetune": "top:1"}
    assert (kept["settings"], kept["save_every"]) == ({"n_steps": 16, "batch_size": 32}, 64)
    again = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "64", "--out", "run", *options, cwd=tmp_path)
    assert again.returncode == 2
    assert "add --resume" in again.stderr
    on = run("train", "sb3_llm/Maze3x3-v0", "--timesteps", "128", "--out", "run", "--resume", *options, cwd=tmp_path)
    assert on.returncode == 0, on.stderr
    loaded = PPO.load(tmp_path / "run" / "model.zip")
    assert (loaded.num_timesteps, loaded.n_steps) == (128, 16)
    assert loaded.policy_kwargs == {"model": str(gpt2_folder), "temperature": 2, "finetune": "top:1"}
    if hasattr(loaded.policy, "what_trains"):
        assert loaded.policy.what_trains() in trained.stdout
    shown = run("evaluate", "run/model.zip", "sb3_llm/Maze3x3-v0", "--episodes", "4", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert [each["policy"] for each in result["evaluations"]] == ["sampled", "greedy"]
    assert all(each["episodes"] == 4 for each in result["evaluations"])
    assert all(0 <= each["spl"] <= each["success"] for each in result["evaluations"])


@pytest.mark.parametrize("policy", ["mlp", "llm"])
@pytest.mark.parametrize("algorithm", KINDS)
def test_algorithms(algorithm: str, policy: str, tmp_path: Path, gpt2_folder: Path) -> None:
    """Each trains what it should, and its zip and its run are read back as what they are."""
    folder = RunFolder(tmp_path)
    env_id = "Locks-v0" if algorithm == "maskable_ppo" else "MiniGrid-Empty-5x5-v0"
    settings: dict[str, Any] = {"n_steps": 8, "learning_rate": 1e-3}
    settings |= {} if algorithm == "a2c" else {"batch_size": 16}
    settings |= {"cg_max_steps": 2, "line_search_max_iter": 2} if algorithm == "trpo" else {}
    tuned = {"finetune": "top:1"} if policy == "llm" and algorithm != "trpo" else {}
    run_ = Run(env_id, algorithm, policy, str(gpt2_folder), 0, 2, {}, tuned, settings, save_every=16)
    model, finished = train(run_, 32, folder, progress_bar=False)
    assert finished
    assert type(model) is KINDS[algorithm]
    assert (model.n_steps, model.learning_rate) == (8, 1e-3)  # type: ignore[attr-defined]
    assert folder.load_run() == run_
    assert algorithm_of(folder.model) == algorithm
    loaded = load_model(folder.model, None)
    assert type(loaded) is KINDS[algorithm]
    assert type(loaded.policy) is type(model.policy)
    on, _ = train(run_, 48, folder, resume=True, progress_bar=False)
    assert on.num_timesteps == 48
    if algorithm == "maskable_ppo":
        env = environment_for(loaded, "Locks-v0", 2, {})
        assert evaluate(Masked(loaded, env), env, 4, greedy=False).mean_return == 4.0  # type: ignore[arg-type]


def test_zips_of_other_algorithms_are_refused(tmp_path: Path) -> None:
    for other, policy in ((DQN, "MlpPolicy"), (RecurrentPPO, "MlpLstmPolicy")):
        other(policy, "CartPole-v1").save(tmp_path / "other.zip")
        with pytest.raises(SetupError, match="a model of another algorithm"):
            load_model(tmp_path / "other.zip", None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"settings": {"n_step": 8}}, "setting of PPO 'n_step'.* Expected: one of .*batch_size.*n_steps"),
        ({"settings": {"seed": 8}}, "setting of PPO 'seed'"),
        ({"settings": {"n_steps": 0}}, "n_steps=0. Expected: a whole number"),
        ({"settings": {"n_epochs": 2.5}}, "n_epochs=2.5. Expected: a whole number"),
        ({"settings": {"learning_rate": "fast"}}, "learning_rate='fast'. Expected: a number"),
        ({"settings": {"learning_rate": float("nan")}}, "learning_rate=nan"),
        ({"settings": {"gamma": True}}, "gamma=True"),
        ({"policy_kwargs": {"finetun": "full"}}, "'finetun'.* one of .*finetune"),
        ({"policy": "mlp", "policy_kwargs": {"finetune": "full"}}, "policy keyword 'finetune'.* one of .*net_arch"),
        ({"settings": {"n_steps": 1}, "n_envs": 1}, r"a minibatch of one step \(n_steps \* n_envs = 1 \* 1 = 1"),
        ({"settings": {"batch_size": 1}}, "batch_size=1.*NaN"),
        ({"algorithm": "trpo", "settings": {"n_steps": 1}, "n_envs": 1}, "a minibatch of one step"),
        (
            {"algorithm": "trpo", "settings": {"n_steps": 8, "sub_sampling_factor": 8}, "n_envs": 1},
            "sub_sampling_factor=8",
        ),
        (
            {"algorithm": "a2c", "settings": {"n_steps": 1, "normalize_advantage": True}, "n_envs": 1},
            "a minibatch of one step",
        ),
        (
            {"algorithm": "maskable_ppo", "settings": {"n_steps": 3, "batch_size": 8}, "n_envs": 3},
            r"n_steps \* n_envs = 3 \* 3 = 9, batch_size=8",
        ),
        ({"algorithm": "maskable_ppo"}, "maskable_ppo on MiniGrid-Empty-5x5-v0, which has no action_masks"),
        ({"save_every": 0}, "save_every=0"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    options: dict[str, Any], expected: str, tmp_path: Path, gpt2_folder: Path
) -> None:
    with pytest.raises(SetupError, match=expected):
        train(Run(**{"env_id": "MiniGrid-Empty-5x5-v0", "model": str(gpt2_folder), **options}), 8, RunFolder(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_batch_of_one_is_fine_where_nothing_is_normalised() -> None:
    Run("Locks-v0", "ppo", settings={"n_steps": 3, "batch_size": 8}, n_envs=3)  # PPO leaves a remainder of one alone
    Run("Locks-v0", "a2c", settings={"n_steps": 1}, n_envs=1)
    Run("Locks-v0", "maskable_ppo", settings={"batch_size": 1, "normalize_advantage": False})


def test_runs_of_earlier_versions_are_read(tmp_path: Path) -> None:
    old = {"env_id": "CartPole-v1", "algorithm": "ppo", "policy": "mlp", "model": "embedded", "seed": 1, "n_envs": 2}
    (tmp_path / "run.json").write_text(json.dumps(old | {"env_kwargs": {}}))
    assert RunFolder(tmp_path).load_run() == Run("CartPole-v1", policy="mlp", seed=1, n_envs=2)


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
        (["train", "CartPole-v1", "--set", "steps=3"], "one of batch_size, clip_range"),
        (["train", "Pendulum-v1"], "Discrete"),
        (["evaluate", "CartPole-v1"], "either MODEL.zip ENV, or --model NAME ENV"),
        (["evaluate", "none.zip", "CartPole-v1"], "the model none.zip"),
        (["evaluate", "--model", "./none", "CartPole-v1"], "no existing folder"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, where the program has been imported once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sb3-llm", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert expected in told
    assert "Traceback" not in told
    assert "To mend it" in told
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
        def save(self, file: Any) -> None:
            file.write(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        folder.save(run_, Broken())  # type: ignore[arg-type]
    assert folder.model.read_bytes() == before
    assert PPO.load(folder.model).num_timesteps == model.num_timesteps
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.zip", "run.json"]


def test_wilson_interval() -> None:
    """Against the figures of envs.md-style tables: half-width .069 at p = .5 and n = 200, .041 at p = .9."""
    low, high = wilson_interval(100, 200)
    assert (high - low) / 2 == pytest.approx(0.0686, abs=5e-4)
    low, high = wilson_interval(180, 200)
    assert (low, high) == (pytest.approx(0.8506, abs=1e-3), pytest.approx(0.9343, abs=1e-3))
    assert wilson_interval(0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == 1.0


def test_the_embedded_model_is_trained_by_its_preset() -> None:
    run = Run("sb3_llm/Maze-v0", policy_kwargs={"finetune": "head"})
    for scale, options in ((3.0, {}), (0.5, {"lm_lr_scale": 0.5})):
        asked = replace(run, policy_kwargs=run.policy_kwargs | options)
        assert asked.make_model(run.make_env(n_envs=1)).policy._settings["lm_lr_scale"] == scale
