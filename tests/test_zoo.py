"""RL Zoo, the real one in processes of its own: it patches Gymnasium's time limit when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_llm import LLMPolicy, MaskableLLMPolicy, SetupError, make_env
from sb3_llm.presets import presets
from sb3_llm.training import HYPERPARAMETERS
from sb3_llm.zoo import text_observation

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "benchmarks" / "zoo"
MAZE, DOORKEY = "sb3_llm/Maze-v0", "MiniGrid-DoorKey-5x5-v0"
NO_EVAL = "--eval-freq -1"

#: Little enough for a few updates in a second, in the words of RL Zoo's ``-params``.
SMALL = ["n_envs:4", "n_steps:16", "batch_size:64", "n_epochs:1"]
FEW_GRADIENTS = ["n_envs:4", "n_steps:16", "batch_size:64", "sub_sampling_factor:8", "cg_max_steps:2"]
STEPS = 128


def run(*arguments: str | Path) -> str:
    # A thread for each core makes tiny passes wait for each other when tests run side by side.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(folder: Path, algo: str, env_id: str, config: str, params: list[str], options: str) -> Path:
    program = "benchmarks.zoo.maskable" if algo == "ppo_mask" else "rl_zoo3.train"
    task = f"--algo {algo} --env {env_id} --gym-packages sb3_llm --conf-file {CONFIGS / config} -n {STEPS} --seed 0"
    run(program, *task.split(), "-f", folder, *options.split(), "-params", *params)
    (found,) = folder.glob(f"{algo}/*/{env_id.replace('/', '-')}.zip")
    return found


@pytest.fixture(scope="module")
def maze_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO on the maze with what people pass to it: evaluation on other layouts, and TensorBoard."""
    folder = tmp_path_factory.mktemp("zoo")
    options = f"-tb {folder / 'tb'} --eval-freq 64 --eval-episodes 1 --eval-env-kwargs split:'test'"
    return train(folder, "ppo", MAZE, "ppo.yml", SMALL, options)


@pytest.mark.parametrize(
    ("file", "algorithm"), [("ppo", "ppo"), ("a2c", "a2c"), ("trpo", "trpo"), ("ppo_mask", "maskable_ppo")]
)
def test_numbers_are_those_of_the_presets(file: str, algorithm: str) -> None:
    written = yaml.safe_load((CONFIGS / f"{file}.yml").read_text())["default"]
    chosen = presets(algorithm)
    scale = chosen.pop("policy_kwargs").get("lm_lr_scale")
    assert written.pop("policy_kwargs").get("lm_lr_scale", scale) == scale
    assert {name: written.get(name) for name in chosen} == chosen


def test_evaluates_and_logs(maze_run: Path) -> None:
    assert (maze_run.parent / "best_model.zip").exists()
    config = yaml.unsafe_load((maze_run.parent / maze_run.stem / "config.yml").read_text())
    assert config["policy"] == "sb3_llm.LLMPolicy", "enjoy reads this file"
    events = EventAccumulator(str(next(maze_run.parents[2].rglob("PPO_1")))).Reload()
    assert {"rollout/success_rate", "eval/success_rate", "train/approx_kl"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [64, 128]


@pytest.mark.parametrize(
    ("algo", "env_id", "config", "params", "algorithm"),
    [
        ("ppo", MAZE, "ppo.yml", SMALL, PPO),
        ("ppo", DOORKEY, "ppo.py", SMALL, PPO),
        ("a2c", MAZE, "a2c.yml", SMALL[:2], A2C),
        ("trpo", MAZE, "trpo.yml", FEW_GRADIENTS, TRPO),
        ("ppo_mask", MAZE, "ppo_mask.yml", SMALL, MaskablePPO),
    ],
)
def test_trains_and_the_zip_plays(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    algo: str,
    env_id: str,
    config: str,
    params: list[str],
    algorithm: type[BaseAlgorithm],
) -> None:
    known = config == "ppo.yml"
    saved = request.getfixturevalue("maze_run") if known else train(tmp_path, algo, env_id, config, params, NO_EVAL)
    env = make_env(env_id)
    model = algorithm.load(saved, env=env)
    assert type(model.policy) is (MaskableLLMPolicy if algo == "ppo_mask" else LLMPolicy)
    assert model.num_timesteps == STEPS
    assert list(model.policy.phrases) == list(env.phrases)
    obs, _ = env.reset(seed=0)
    for _ in range(3):
        assert env.text in model.policy.render(obs[None])[0]
        obs, *_ = env.step(model.predict(obs)[0])


def test_goes_on(maze_run: Path, tmp_path: Path) -> None:
    saved = train(tmp_path, "ppo", MAZE, "ppo.yml", SMALL, f"{NO_EVAL} -i {maze_run}")
    before, after = (PPO.load(each).policy.lm.get_output_embeddings().weight for each in (maze_run, saved))
    assert not before.equal(after)


@pytest.mark.skipif(not importlib.util.find_spec("requests"), reason="rl_zoo3 2.9.2's enjoy needs requests, undeclared")
def test_enjoy(maze_run: Path) -> None:
    played = f"--algo ppo --env {MAZE} --gym-packages sb3_llm -f {maze_run.parents[2]} --no-render --stochastic -n 200"
    assert "Success rate" in run("rl_zoo3.enjoy", *played.split())


def python_config() -> dict[str, Any]:
    """As RL Zoo reads it."""
    names: dict[str, Any] = {}
    exec((CONFIGS / "ppo.py").read_text(), names)
    return names["hyperparams"]


def test_configurations_say_what_training_says() -> None:
    for config, algo in (("ppo.yml", "ppo"), ("a2c.yml", "a2c"), ("ppo_mask.yml", "ppo")):
        for settings in yaml.safe_load((CONFIGS / config).read_text()).values():
            assert settings.items() >= HYPERPARAMETERS[algo, "llm"].items(), config
            scale = presets(algo)["policy_kwargs"]["lm_lr_scale"]
            assert settings["policy_kwargs"].get("lm_lr_scale", 1.0) == scale, config
    settings = python_config()
    for env_id, written in yaml.safe_load((CONFIGS / "ppo.yml").read_text()).items():
        assert settings[env_id] | {"policy_kwargs": written["policy_kwargs"]} == written


@pytest.mark.parametrize("env_id", [MAZE, DOORKEY, "BabyAI-GoToLocal-v0", "FrozenLake-v1", "CartPole-v1"])
def test_wraps_as_make_env_does(env_id: str) -> None:
    ours, theirs = make_env(env_id), text_observation(gym.make(env_id))
    assert theirs.action_space == ours.action_space
    assert theirs.observation_space == ours.observation_space
    ours.action_space.seed(0)
    for env in (ours, theirs):
        env.reset(seed=5)
    over = False
    while not over:
        assert ours.text == theirs.text
        action = ours.action_space.sample()
        (_, *mine), (_, *other) = ours.step(action), theirs.step(action)
        assert mine == other
        over = mine[1] or mine[2]


def test_options_of_the_wrapper() -> None:
    env = text_observation(gym.make(MAZE), phrases=["up", "down", "left", "right"], history=0, max_bytes=600)
    assert env.phrases == ("up", "down", "left", "right")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (600,)
    assert "Last action" not in env.text
    offering = text_observation(gym.make(MAZE), candidates=lambda obs, info: {"go": 0, "stay": 1}, slots=3)
    offering.reset(seed=0)
    assert np.array_equal(offering.action_masks(), [True, True, False])
    with pytest.raises(SetupError, match="phrases"):
        text_observation(gym.make(MAZE), phrases=["only one"])
