"""PolicyWatch: training goes on as without it, in every setup, and bad arguments are refused."""

import math
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.callbacks import PolicyWatch
from sb3_llm.errors import SetupError
from tests.test_policy import Follow, follow_env
from tests.watching import ALWAYS, TEXTS, TRAININGS, drop, paths_env, train

pytestmark = pytest.mark.filterwarnings(r"ignore:after \d+ steps")  # where a test is about something else

# --- training goes on as without it


@pytest.mark.parametrize(("algorithm", "policy_kwargs"), [*TRAININGS, (PPO, {"value_warmup": 2})])
def test_training_is_the_same_to_the_bit(algorithm: Any, policy_kwargs: dict[str, Any], gpt2_folder: Path) -> None:
    """With dropout, a look draws random numbers."""
    change = drop if policy_kwargs == {"dropout": True} else lambda policy: None
    policy_kwargs = {} if policy_kwargs == {"dropout": True} else policy_kwargs
    after = []
    for callbacks in ((), (PolicyWatch(every=1, max_kl=math.inf),)):
        random.seed(0)
        size = {"n_steps": 8, "steps": 32} if algorithm is TRPO else {"steps": 128}
        model = train(gpt2_folder, *callbacks, algorithm=algorithm, policy_kwargs=policy_kwargs, change=change, **size)
        states = torch.random.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))
        weights = [*model.policy.lm.state_dict().values(), *model.policy.value_net.state_dict().values()]
        after.append((weights, states, random.random(), model.policy.training))
    (plain, states, drawn, mode), (watched, watched_states, watched_drawn, watched_mode) = after
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(states, watched_states, strict=True))
    assert (drawn, mode) == (watched_drawn, watched_mode)


def test_leaves_no_gradient_and_no_mode_behind(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            assert not any(module.training for module in self.model.policy.modules())
            assert all(parameter.grad is None for parameter in self.model.policy.parameters())
            assert all(parameter.grad is None for parameter in self.model.policy.base_lm().parameters())
            assert not self.model.policy._scorer.memo._answers

    model = train(gpt2_folder, watch, Look())
    assert not model.policy._scorer.memo._answers


# --- setup


def test_refuses_policies_without_a_language_model() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16)
    with pytest.raises(SetupError, match=r"PolicyWatch with a ActorCriticPolicy.*LLMPolicy"):
        model.learn(16, callback=PolicyWatch())
    assert model.num_timesteps == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"every": 0}, "every=0"),
        ({"samples": 1.5}, "samples=1.5"),
        ({"compared": 0}, "compared=0"),
        ({"probes": -1}, "probes=-1"),
        ({"probes": "Do: drop."}, "probes='Do: drop.'"),
        ({"probes": [("Do: drop.", [])]}, "a number from 0, or a list of prompts"),
        ({"stop": "kl"}, "stop='kl'"),
        ({"stop": ["KL"]}, "entropy, top_action, kl, perplexity, ratio, non_finite"),
        ({"max_kl": -1}, "max_kl=-1"),
        ({"max_kl": math.nan}, "max_kl=nan"),
        ({"max_perplexity": None}, "max_perplexity=None"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SetupError) as error:
        PolicyWatch(**arguments)
    assert told in str(error.value)


def test_bad_probes_and_texts_are_refused_before_training(gpt2_folder: Path) -> None:
    for env, watch in (
        (follow_env, PolicyWatch(probes=[("Do: drop.\nAction:", ["drop"])])),
        (paths_env, PolicyWatch(probes=["Do: drop.\nAction:"])),
        (follow_env, PolicyWatch(texts="A wall.")),
    ):
        with pytest.raises(SetupError):
            train(gpt2_folder, watch, env=env)


def test_without_the_base_model(gpt2_folder: Path) -> None:
    model = train(gpt2_folder, watch := PolicyWatch(texts=TEXTS, compare_to_base=False))
    assert model.policy._base is None
    assert {"watch/perplexity", "watch/entropy"} <= set(watch.values)
    assert not {"watch/perplexity_base", "train/kl_to_base"} & set(watch.values)


def test_goes_on_with_a_loaded_model(gpt2_folder: Path, tmp_path: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    model = train(gpt2_folder, watch)
    model.save(tmp_path / "model.zip")
    again: PolicyWatch = pickle.loads(pickle.dumps(watch))
    assert (again.probes, again.values, again.limits) == (watch.probes, watch.values, watch.limits)
    loaded: BaseAlgorithm = PPO.load(tmp_path / "model.zip", env=DummyVecEnv([follow_env] * 2))
    loaded.learn(32, callback=again, reset_num_timesteps=False)
    assert again.num_timesteps == 64
    assert again.probes == watch.probes
    assert again.values["train/kl_to_base"] > watch.values["train/kl_to_base"] / 10, "base is the first model, not this"


def test_embedded_model_and_numbers() -> None:
    """Its own stories; plain numbers as observations."""
    env = make_vec_env("sb3_llm/Maze3x3-v0", 2, seed=0)
    PPO(LLMPolicy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0).learn(32, callback=(watch := PolicyWatch()))
    assert 1 < watch.values["watch/perplexity_base"] < 2
    assert watch.values["watch/perplexity"] == pytest.approx(watch.values["watch/perplexity_base"], rel=0.1)
    assert "entropy" not in watch.bad, "low from the start: the base model is sure of small mazes"
    numbers = PolicyWatch(probes=1)
    PPO(LLMPolicy, "FrozenLake-v1", n_steps=16, batch_size=16, n_epochs=1, seed=0).learn(16, callback=numbers)
    assert numbers.values["probe/0/action 0"] > 0


def test_environments_in_other_processes(gpt2_folder: Path) -> None:
    env = SubprocVecEnv([follow_env] * 2, start_method="fork")  # the default imports torch anew
    model = PPO(LLMPolicy, env, n_steps=16, batch_size=16, n_epochs=1, policy_kwargs={"model": str(gpt2_folder)})
    model.learn(32, callback=(watch := PolicyWatch(texts=TEXTS)))
    env.close()
    assert set(watch.values) >= ALWAYS
    assert "ratio" not in watch.bad


def test_dict_observations(gpt2_folder: Path) -> None:
    class Two(Follow):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 2, (2,), np.int64)})

        def reset(self, **options: Any) -> Any:
            obs, info = super().reset(**options)
            return {"a": int(obs[0]), "b": obs}, info

        def step(self, action: int) -> Any:
            obs, *rest = super().step(action)
            return {"a": int(obs[0]), "b": obs}, *rest

    trained = PPO(
        LLMPolicy, DummyVecEnv([Two] * 2), n_steps=16, batch_size=16, policy_kwargs={"model": str(gpt2_folder)}
    )
    trained.learn(32, callback=(watch := PolicyWatch(texts=TEXTS)))
    assert "ratio" not in watch.bad
    assert set(watch.values) >= ALWAYS
