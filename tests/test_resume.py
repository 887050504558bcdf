"""A run that was killed ends in the weights of a run that was not, bit for bit."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.utils import EzPickle
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.cli import main
from sb3_llm.training import Run, RunFolder, TrainingStopped, load_model, train

STEPS, EVERY = 192, 64  # of 32 in a rollout: a checkpoint at every second one
ROLLOUT = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "learning_rate": 1e-3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo full": ("ppo", {"finetune": "full"}),
    "ppo top:1": ("ppo", {"finetune": "top:1"}),
    "ppo lora": ("ppo", {"finetune": "lora", "value_warmup": 3}),
    "ppo head": ("ppo", {"finetune": "head"}),
    "ppo KL": ("ppo", {"finetune": "top:1", "prior_kl": True, "lm_lr_scale": 0.5}),
    "a2c full": ("a2c", {"finetune": "full", "micro_batch": 2}),
    "a2c top:1": ("a2c", {"finetune": "top:1"}),
    "a2c lora": ("a2c", {"finetune": "lora"}),
}


class Killed(BaseException):
    """What no part of the program may catch."""


class KillAt(BaseCallback):
    """Ends the program as a kill would: at once, in the middle of a rollout; counts the calls it got, as others do."""

    def __init__(self, step: int = 10**9) -> None:
        super().__init__()
        self.step, self.rollouts = step, 0

    def _on_rollout_start(self) -> None:
        self.rollouts += 1

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Killed
        return True


def weights(path: Path) -> dict[str, Any]:
    """All numbers of a zip: of the policy and of its optimizer."""
    with zipfile.ZipFile(path) as archive:
        return {name: torch.load(archive.open(name)) for name in ("policy.pth", "policy.optimizer.pth")}


def assert_same(one: Path, other: Path) -> None:
    def compare(a: Any, b: Any, where: str) -> None:
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}/{key}")
        elif isinstance(a, list | tuple):
            for index, (left, right) in enumerate(zip(a, b, strict=True)):
                compare(left, right, f"{where}/{index}")
        else:
            assert a == b, where

    compare(weights(one), weights(other), "")


def run_of(case: str, model: Path, env_id: str = "sb3_llm/Maze-v0") -> Run:
    algorithm, policy_kwargs = CASES[case]
    settings = {"n_steps": 16, "learning_rate": 1e-3} if algorithm == "a2c" else ROLLOUT
    return Run(env_id, algorithm, "llm", str(model), 3, 2, {}, policy_kwargs, settings, EVERY)


def quietly(run: Run, folder: RunFolder, step: int = 10**9, resume: bool = False, steps: int = STEPS) -> KillAt:
    """Train, to the end or until a kill."""
    kill = KillAt(step)
    try:
        train(run, steps, folder, resume, progress_bar=False, callback=[kill])
    except Killed:
        assert step < steps
    return kill


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_uninterrupted(case: str, tmp_path: Path, gpt2_folder: Path) -> None:
    """Killed twice: before the second checkpoint, and long after it."""
    run, whole, broken = run_of(case, gpt2_folder), RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    kept = quietly(run, whole)
    quietly(run, broken, step=44)
    assert PPO.load(broken.model).num_timesteps == 0
    torch.rand(3)  # whatever else draws random numbers in between
    quietly(run, broken, step=150, resume=True)
    assert load_model(broken.model, None).num_timesteps == 128
    resumed = quietly(run, broken, resume=True)
    assert_same(whole.model, broken.model)
    assert (resumed.n_calls, resumed.rollouts) == (kept.n_calls, kept.rollouts)


def test_the_mlp_and_minigrid(tmp_path: Path) -> None:
    run = Run("MiniGrid-Empty-Random-5x5-v0", policy="mlp", seed=1, n_envs=2, settings=ROLLOUT, save_every=EVERY)
    quietly(run, RunFolder(tmp_path / "whole"))
    quietly(run, RunFolder(tmp_path / "broken"), step=150)
    quietly(run, RunFolder(tmp_path / "broken"), resume=True)
    assert_same(tmp_path / "whole" / "model.zip", tmp_path / "broken" / "model.zip")


def test_the_zip_stays_one_of_sb3(tmp_path: Path, gpt2_folder: Path) -> None:
    """Plain PPO.load reads it; and what SB3 wrote itself is resumed as well as can be."""
    run, folder = run_of("ppo full", gpt2_folder), RunFolder(tmp_path)
    quietly(run, folder, steps=64)
    loaded = PPO.load(folder.model, env=run.make_env())
    loaded.learn(32, reset_num_timesteps=False)
    loaded.save(folder.model)
    with pytest.warns(UserWarning, match="resuming with fresh episodes"):
        train(run, 128, folder, resume=True, progress_bar=False)
    assert PPO.load(folder.model).num_timesteps == 128


def test_killed_before_the_first_checkpoint(tmp_path: Path, gpt2_folder: Path) -> None:
    run, folder = run_of("ppo full", gpt2_folder), RunFolder(tmp_path / "broken")
    folder.begin(run)
    quietly(run, folder, resume=True, steps=64)
    quietly(run, RunFolder(tmp_path / "whole"), steps=64)
    assert_same(folder.model, tmp_path / "whole" / "model.zip")


class Locked(CartPoleEnv):
    """Holds what can't be pickled."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Remade(CartPoleEnv, EzPickle):
    """Pickles without complaint, and comes back as a new one: the trap of Gymnasium's EzPickle."""

    __getstate__, __setstate__ = EzPickle.__getstate__, EzPickle.__setstate__

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        EzPickle.__init__(self)


gym.register("Locked-v0", Locked)
gym.register("Remade-v0", Remade)


@pytest.mark.parametrize(("env_id", "why"), [("Locked-v0", "lock"), ("Remade-v0", "EzPickle")])
def test_environments_that_cannot_be_saved(env_id: str, why: str, tmp_path: Path) -> None:
    """Reported once, and again when resumed; the resumed run plays other episodes than the first."""
    run, folder = Run(env_id, policy="mlp", settings=ROLLOUT, n_envs=2, save_every=32), RunFolder(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quietly(run, folder, step=120)
    told = [str(each.message) for each in caught if "can't be saved" in str(each.message)]
    assert len(told) == 1
    assert why in told[0]
    with pytest.warns(UserWarning, match="resuming with fresh episodes"):
        model, _ = train(run, STEPS, folder, resume=True, progress_bar=False)
    assert model.num_timesteps == STEPS


def test_ctrl_c_goes_on_with_fresh_episodes(tmp_path: Path) -> None:
    run, folder = Run("CartPole-v1", policy="mlp", settings=ROLLOUT, n_envs=2), RunFolder(tmp_path)

    class Interrupt(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 40:
                raise KeyboardInterrupt
            return True

    _, finished = train(run, STEPS, folder, progress_bar=False, callback=[Interrupt()])
    assert not finished
    assert PPO.load(folder.model).num_timesteps == 40  # a KeyboardInterrupt, in the middle of a rollout
    with pytest.warns(UserWarning, match="resuming with fresh episodes"):
        model, finished = train(run, 64, folder, resume=True, progress_bar=False)
    assert finished
    assert model.num_timesteps == 72


class Poison(BaseCallback):
    """Spoil a trainable weight in the last step of the first update: the next to look at it is the checkpoint."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.steps = value, 0

    def _on_training_start(self) -> None:
        self.model.policy.optimizer.register_step_post_hook(self._spoil)

    def _spoil(self, *_: Any) -> None:
        self.steps += 1
        if self.steps == 4:  # two epochs of two minibatches
            next(p for p in self.model.policy.parameters() if p.requires_grad).data.fill_(self.value)

    def _on_step(self) -> bool:
        return True


def test_weights_that_are_no_good_are_never_saved(tmp_path: Path, gpt2_folder: Path) -> None:
    """NaN; finite, but with scores that are not; and values that are not, of an MLP."""
    llm = run_of("ppo full", gpt2_folder)
    llm = replace(llm, save_every=32, settings=llm.settings | {"target_kl": None})  # so that all four steps are taken
    mlp = Run("CartPole-v1", policy="mlp", settings=ROLLOUT, n_envs=2, save_every=32)
    for run, value in ((llm, float("nan")), (llm, 1e38), (mlp, float("nan"))):
        folder = RunFolder(tmp_path / f"{run.policy}{value}")
        with pytest.raises(TrainingStopped, match=r"step 0: the same command with --resume"):
            train(run, STEPS, folder, progress_bar=False, callback=[Poison(value)])
        assert load_model(folder.model, None).num_timesteps == 0


def test_divergence_ends_in_one_sentence(
    tmp_path: Path, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "sb3_llm/Maze3x3-v0", "--model", str(gpt2_folder), "--n-envs", "2", "--out", str(tmp_path)]
    command += ["--set", "n_steps=8", "--set", "learning_rate=1e30", "--timesteps", "64"]
    monkeypatch.setattr(sys, "argv", ["sb3-llm", *command])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 1
    assert "Traceback" not in told
    assert "training stopped at update 1, after 16 steps" in told
    assert f"The last good checkpoint is {tmp_path / 'model.zip'}, of step 0" in told
    assert PPO.load(tmp_path / "model.zip").num_timesteps == 0


class Program:
    """``sb3-llm train`` as a process of its own, killed and started again."""

    def __init__(self, model: Path, out: Path, steps: int, case: str) -> None:
        algorithm, policy_kwargs = CASES[case]
        self.out, self.starts = out, 0
        self.command = [sys.executable, "-m", "sb3_llm", "train", "sb3_llm/Maze-v0", "--model", str(model)]
        self.command += ["--algorithm", algorithm, "--n-envs", "2", "--seed", "3", "--timesteps", str(steps)]
        self.command += ["--save-every", "32", "--out", str(out)]
        settings = {"n_steps": 16, "learning_rate": 1e-3} if algorithm == "a2c" else ROLLOUT
        for option, pairs in (("--policy-arg", policy_kwargs), ("--set", settings)):
            for name, value in pairs.items():
                self.command += [option, f"{name}={json.dumps(value)}"]

    def start(self) -> subprocess.Popen[bytes]:
        """Go on from whatever is there, under another order of hashes each time."""
        resume = ["--resume"] if (self.out / "run.json").exists() else []
        self.starts += 1
        # Threads of a tiny model wait for each other on a busy machine.
        env = os.environ | {"PYTHONHASHSEED": str(self.starts), "OMP_NUM_THREADS": "1"}
        output = (self.out.parent / f"{self.out.name}.txt").open("ab")
        return subprocess.Popen([*self.command, *resume], stdout=output, stderr=output, env=env)

    def finish(self) -> None:
        assert self.start().wait(240) == 0, (self.out.parent / f"{self.out.name}.txt").read_text()

    def kill(self, wait: Callable[[subprocess.Popen[bytes]], None]) -> str:
        """Start, wait, kill -9; say what was hit."""
        process = self.start()
        try:
            wait(process)
        finally:
            process.kill()
        code = process.wait()
        half = (self.out / "model.zip.part").exists()
        steps = load_model(self.out / "model.zip", None).num_timesteps if (self.out / "model.zip").exists() else None
        return f"exit {code}, checkpoint of step {steps}{', in the middle of a save' if half else ''}"

    def until_trained(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it has saved something of its own."""
        model, before = self.out / "model.zip", self._saved()
        while process.poll() is None and (not model.exists() or self._saved() == before):
            time.sleep(0.01)

    def until_saving(self, process: subprocess.Popen[bytes]) -> None:
        self.until_trained(process)
        while process.poll() is None and not (self.out / "model.zip.part").exists():
            pass

    def _saved(self) -> int:
        return (self.out / "model.zip").stat().st_mtime_ns if (self.out / "model.zip").exists() else 0


def test_kill_9(tmp_path: Path, gpt2_folder: Path) -> None:
    """Once somewhere in training, once in a save."""
    run = replace(run_of("ppo top:1", gpt2_folder), save_every=32)
    quietly(run, RunFolder(tmp_path / "whole"), steps=320)
    broken = Program(gpt2_folder, tmp_path / "broken", 320, "ppo top:1")
    luck = random.Random(0)
    broken.kill(lambda process: (broken.until_trained(process), time.sleep(luck.uniform(0, 0.3)))[0])
    broken.kill(broken.until_saving)
    broken.finish()
    assert_same(tmp_path / "whole" / "model.zip", tmp_path / "broken" / "model.zip")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ppo full", "ppo KL", "a2c lora", "a2c top:1"])
def test_kill_9_again_and_again(case: str, tmp_path: Path, gpt2_folder: Path) -> None:
    """Twenty times in all: while it starts, at random moments, in saves."""
    whole = Program(gpt2_folder, tmp_path / "whole", 2560, case)
    whole.finish()
    broken, luck = Program(gpt2_folder, tmp_path / "broken", 2560, case), random.Random(case)
    waits: list[Callable[[subprocess.Popen[bytes]], None]] = [
        lambda process: time.sleep(luck.uniform(0, 6)),
        lambda process: (broken.until_trained(process), time.sleep(luck.uniform(0, 1)))[0],
        lambda process: (broken.until_trained(process), time.sleep(luck.uniform(0, 1)))[0],
        broken.until_saving,
        lambda process: (broken.until_saving(process), time.sleep(luck.uniform(0, 0.02)))[0],
    ]
    luck.shuffle(waits)
    for wait in waits:
        told = broken.kill(wait)
        print(case, told)
        assert "exit -9" in told, "it was over before it could be killed: make the run longer"
    broken.finish()
    assert_same(tmp_path / "whole" / "model.zip", tmp_path / "broken" / "model.zip")
    assert not list((tmp_path / "broken").glob("*.part"))
    shutil.rmtree(tmp_path / "broken")
