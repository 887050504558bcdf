"""Two processes under torchrun train what one process would that has the data of both."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from sb3_llm import cli
from sb3_llm.distributed import Ranks, checksum
from sb3_llm.errors import SetupError
from sb3_llm.training import Run, RunFolder, _resumed, train

FIELDS = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
UPDATES, ROLLOUT = 4, 32  # steps of both processes
#: The whole rollout is one minibatch, so that one process and two see the same; the norm of gradients is clipped hard.
#: With so large an eps Adam's steps go with the size of the gradient, which clipping changes, and not with its sign.
SETTINGS = {"n_steps": 8, "n_epochs": 2, "normalize_advantage": False, "max_grad_norm": 0.05, "learning_rate": 1.0}
POLICY = {"optimizer_kwargs": {"eps": 0.1}, "value_warmup": 1}


def run_of(model: Path, n_envs: int) -> Run:
    settings = SETTINGS | {"batch_size": 8 * n_envs}
    return Run("sb3_llm/Maze3x3-v0", "ppo", "llm", str(model), 5, n_envs, {}, POLICY, settings, ROLLOUT)


class Watch(BaseCallback):
    """In each process: keep what it has seen and learnt, or die at a step."""

    def __init__(self, folder: Path, rank: int, death: int | None) -> None:
        super().__init__()
        self.folder, self.rank, self.death = folder, rank, death

    def _on_rollout_start(self) -> None:
        self._keep("weights", self.model.policy.state_dict())

    def _on_rollout_end(self) -> None:
        buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
        self._keep("rollout", {name: torch.from_numpy(getattr(buffer, name).copy()) for name in FIELDS})

    def _on_training_end(self) -> None:
        self._on_rollout_start()

    def _on_step(self) -> bool:
        if self.num_timesteps == self.death:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def _keep(self, what: str, content: dict[str, Any]) -> None:
        torch.save(content, self.folder / f"{what}-{self.model.num_timesteps}-{self.rank}.pt")


def work() -> None:
    """What each process runs: the program itself, watched."""
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    death = int(os.environ["DEATH"]) if ranks.rank == 1 and "DEATH" in os.environ else None
    watch = Watch(Path(os.environ["KEEP"]), ranks.rank, death)
    cli.train = lambda *args, callback, **options: train(*args, **options, callback=[*callback, watch])  # type: ignore[assignment]
    cli.main()


def launch(model: Path, keep: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in two processes, with ``keep / "run"`` as its folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    command += [__file__, "train", "sb3_llm/Maze3x3-v0", "--model", str(model), "--n-envs", "2", "--seed", "5"]
    command += ["--timesteps", str(UPDATES * ROLLOUT), "--save-every", str(ROLLOUT), "--out", str(keep / "run")]
    command += ["--policy-arg", 'optimizer_kwargs={"eps": 0.1}', "--policy-arg", "value_warmup=1"]
    for name, value in (SETTINGS | {"batch_size": 16}).items():
        command += ["--set", f"{name}={str(value).lower()}"]
    root = str(Path(__file__).parent.parent)
    env = os.environ | {"KEEP": str(keep), "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **variables}
    return subprocess.run([*command, *more], env=env, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, gpt2_folder: Path) -> Path:
    """A run of two processes that nothing disturbed."""
    keep = tmp_path_factory.mktemp("together")
    done = launch(gpt2_folder, keep)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("128 steps done") == 1  # one of them reports
    return keep


def kept(keep: Path, what: str, step: int, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(keep / f"{what}-{step}-{rank}.pt")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def test_weights_are_the_same_and_episodes_differ(together: Path) -> None:
    for step in range(0, UPDATES * 16 + 1, 16):
        assert furthest(kept(together, "weights", step, 0), kept(together, "weights", step, 1)) == 0.0
    moved = furthest(kept(together, "weights", 0, 0), kept(together, "weights", UPDATES * 16, 0))
    assert moved > 0.01
    first, second = kept(together, "rollout", 16, 0), kept(together, "rollout", 16, 1)
    assert not torch.equal(first["observations"], second["observations"])


def alone(together: Path, model_folder: Path, max_grad_norm: float) -> dict[str, torch.Tensor]:
    """Weights of one process that trained on the data of both."""
    run = run_of(model_folder, n_envs=4)
    model: Any = run.make_model(run.make_env(), max_grad_norm=max_grad_norm, target_kl=None)
    model.set_logger(configure(None, []))
    model.policy.load_state_dict(kept(together, "weights", 0, 0))
    for step in range(16, UPDATES * 16 + 1, 16):
        both = [kept(together, "rollout", step, rank) for rank in (0, 1)]
        model.rollout_buffer.reset()
        for name in FIELDS:
            joined = np.concatenate([each[name].numpy() for each in both], axis=1)  # (steps, environments, ...)
            setattr(model.rollout_buffer, name, joined)
        model.rollout_buffer.full = True
        model.train()
    return model.policy.state_dict()


def test_it_is_what_one_process_learns_from_the_data_of_both(together: Path, gpt2_folder: Path) -> None:
    end = kept(together, "weights", UPDATES * 16, 0)
    assert furthest(end, alone(together, gpt2_folder, SETTINGS["max_grad_norm"])) < 1e-6
    assert furthest(end, alone(together, gpt2_folder, 1e9)) > 1e-3  # the clipping acted


def test_a_process_dies_and_all_go_on(together: Path, gpt2_folder: Path, tmp_path: Path) -> None:
    """The others say so; the checkpoint is good; resumed, the end is that of the run that nothing disturbed."""
    died = launch(gpt2_folder, tmp_path, DEATH="40")  # in its third rollout
    assert died.returncode != 0
    told = " ".join(died.stderr.split())
    assert re.search(r"process 0 of 2: training stopped at update \d.*(is gone|told to end)", told), died.stderr
    assert f"{tmp_path / 'run' / 'model.zip'}, of step 64: the same torchrun command, of 2 processes" in told
    folder = RunFolder(tmp_path / "run")
    assert PPO.load(folder.model).num_timesteps == 32
    assert sorted(each.name for each in folder.path.iterdir()) == ["model.zip", "run.json"]

    with pytest.raises(SetupError, match="1 processes for a run of 2"):
        train(run_of(gpt2_folder, 2), 128, folder, resume=True, progress_bar=False)

    resumed = launch(gpt2_folder, tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for rank in (0, 1):
        last = UPDATES * 16
        assert furthest(kept(tmp_path, "weights", last, rank), kept(together, "weights", last, rank)) == 0.0
        one, other = kept(tmp_path, "rollout", last, rank), kept(together, "rollout", last, rank)
        assert all(torch.equal(one[name], other[name]) for name in FIELDS)


def test_what_several_processes_cannot_do(tmp_path: Path, gpt2_folder: Path) -> None:
    two = Ranks(rank=0, size=2)
    with pytest.raises(SetupError, match="trpo in several processes"):
        two.check("trpo", {}, "run")
    with pytest.raises(SetupError, match=r"target_kl=0\.1 in several processes"):
        two.check("ppo", {"target_kl": 0.1}, "run")
    run, folder = run_of(gpt2_folder, 2), RunFolder(tmp_path)
    train(run, 16, folder, progress_bar=False)
    with pytest.raises(SetupError, match="2 processes for a run of 1"):
        _resumed(run, folder, two)


def test_shares() -> None:
    assert Ranks.from_environment() == Ranks()
    assert [Ranks(size=size).share(100) for size in (1, 2, 3)] == [100, 50, 34]
    run = Run("CartPole-v1", policy="mlp", seed=7, n_envs=4)
    assert [Ranks(rank, 3).own(run).seed for rank in range(3)] == [7, 11, 15]


def test_several_processes_leave_the_presets_target_kl_out() -> None:
    run = Run("sb3_llm/Maze3x3-v0")
    assert run.hyperparameters["target_kl"] == Ranks().own(run).hyperparameters["target_kl"] == 0.02
    assert Ranks(0, 2).own(run).hyperparameters["target_kl"] is None
    Ranks(0, 2).own(replace(run, algorithm="a2c")).make_model(run.make_env())  # which has none


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_checksums_see_every_bit(dtype: torch.dtype) -> None:
    weights = [torch.nn.Parameter(torch.randn(5, 3).to(dtype)), torch.nn.Parameter(torch.zeros(2, dtype=dtype))]
    before = checksum(weights)
    assert before == checksum(weights)
    with torch.no_grad():
        weights[1][1] = torch.finfo(dtype).tiny
    assert before != checksum(weights)


if __name__ == "__main__":
    work()
