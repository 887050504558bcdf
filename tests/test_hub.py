"""Models on the hub by SB3's own means, huggingface_sb3, without a network: a folder stands in for the hub."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_sb3 import load_from_hub, package_to_hub, push_to_hub
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_llm import LLMPolicy, make_vec_env

MAZE, REPOSITORY = "sb3_llm/Maze3x3-v0", "someone/ppo-maze"


class FolderHub:
    """What huggingface_sb3 asks of ``HfApi``, kept in a folder as the hub's cache keeps what was downloaded."""

    def __init__(self, cache: Path) -> None:
        self.repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
        self.files = self.repository / "snapshots" / ("0" * 40)

    def create_repo(self, repo_id: str, exist_ok: bool) -> SimpleNamespace:
        self.files.mkdir(parents=True)
        (self.repository / "refs").mkdir()
        (self.repository / "refs" / "main").write_text(self.files.name)
        return SimpleNamespace(repo_id=repo_id)

    def upload_file(self, path_or_fileobj: str, path_in_repo: str, **_: Any) -> None:
        shutil.copy(path_or_fileobj, self.files / path_in_repo)

    def upload_folder(self, folder_path: Path, **_: Any) -> None:
        shutil.copytree(folder_path, self.files, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    hub = FolderHub(tmp_path / "cache")
    # The function push_to_hub hides the module of the same name from a plain import.
    monkeypatch.setattr(importlib.import_module("huggingface_sb3.push_to_hub"), "HfApi", lambda token: hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    return hub


@pytest.fixture(scope="module")
def trained() -> PPO:
    env = make_vec_env(MAZE, 2, seed=0)
    return PPO(LLMPolicy, env, n_steps=8, batch_size=16, n_epochs=1, seed=0).learn(16)


def assert_loads_and_plays(path: str, trained: PPO) -> None:
    model = PPO.load(path)
    env = make_vec_env(MAZE, 1, seed=0)
    prompts = model.policy.render(env.reset())
    assert model.policy.action_log_probs(prompts).equal(trained.policy.action_log_probs(prompts))
    assert evaluate_policy(model, env, 1, deterministic=False, return_episode_rewards=True)[1][0] > 0


def test_push_and_load(trained: PPO, hub: FolderHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.save(tmp_path / "model.zip")
    push_to_hub(repo_id=REPOSITORY, filename=str(tmp_path / "model.zip"), commit_message="a maze")
    with pytest.raises(ValueError, match="TRUST_REMOTE_CODE"):
        load_from_hub(REPOSITORY, "model.zip")
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    assert_loads_and_plays(load_from_hub(REPOSITORY, "model.zip"), trained)


def test_package(trained: PPO, hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, evaluation and card in one; the film needs ffmpeg, and is left out with a message where there is none."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    package_to_hub(
        model=trained,
        model_name="ppo-maze",
        model_architecture="PPO",
        env_id=MAZE,
        eval_env=make_vec_env(MAZE, 1, seed=0, render_mode="rgb_array"),
        repo_id=REPOSITORY,
        is_deterministic=False,
        n_eval_episodes=2,
        video_length=4,
    )
    assert MAZE in (hub.files / "README.md").read_text()
    assert json.loads((hub.files / "config.json").read_text())["policy_kwargs"] == {}
    results = json.loads((hub.files / "results.json").read_text())
    assert (results["is_deterministic"], results["n_eval_episodes"]) == (False, 2)
    assert_loads_and_plays(load_from_hub(REPOSITORY, "ppo-maze.zip"), trained)
