"""What the tests of PolicyWatch share: environments, training with a watch, plain computations beside it."""

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.distributions import kl_divergence

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation
from tests.test_policy import Follow, follow_env, say

TEXTS = ["You see a red key.", "Goal: open the door. You carry a blue ball."]
ALWAYS = {"watch/entropy", "watch/entropy_share", "watch/perplexity", "watch/perplexity_base", "train/kl_to_base"}
BEFORE_AN_UPDATE = {"watch/top_action_share", "watch/first_epoch_ratio_error"}


#: Algorithms and tuning that an onlooker must not disturb; "dropout" is a model whose config has some.
TRAININGS: list[tuple[Any, dict[str, Any]]] = [
    (PPO, {}),
    (PPO, {"dropout": True}),
    (A2C, {}),
    (MaskablePPO, {}),
    (TRPO, {}),
    (PPO, {"finetune": "top:1"}),
    (A2C, {"finetune": "lora"}),
]


class Drawn(Follow):
    """A world that draws from the global generators, as some do."""

    def step(self, action: int) -> Any:
        random.random()
        np.random.random()
        torch.rand(1)
        return super().step(action)


def follow() -> TextObservation:
    return TextObservation(Drawn(), describe=say, history=1)


class Paths(Follow):
    """The phrases come with each observation, two or three of them, the first one always the same."""

    def offer(self, obs: np.ndarray, info: dict[str, Any]) -> dict[str, int]:
        return {"turn left": 0, f"go to {obs[1]}": 1} | ({"drop": 2} if obs[0] else {})


class Forced(Follow):
    """Two states of three leave no choice."""

    def action_masks(self) -> np.ndarray:
        return np.arange(3) == self.wanted[1] if self.wanted[1] else np.ones(3, dtype=bool)


def forced_env() -> gym.Env[Any, Any]:
    return TextObservation(Forced(), describe=say)


def paths_env() -> gym.Env[Any, Any]:
    env = Paths()
    return TextObservation(env, describe=say, candidates=env.offer, slots=4)


def train(
    folder: Path | str,
    *callbacks: BaseCallback,
    algorithm: Any = PPO,
    steps: int = 32,
    env: Callable[[], gym.Env[Any, Any]] = follow_env,
    policy_kwargs: dict[str, Any] | None = None,
    change: Callable[[Any], None] = lambda policy: None,
    logged: Path | None = None,
    **settings: Any,
) -> Any:
    """A short training of a tiny model in two environments, 32 decisions in each rollout."""
    kind = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    own = {PPO: {"n_epochs": 2}, MaskablePPO: {"n_epochs": 2}, TRPO: {"cg_max_steps": 2, "n_critic_updates": 1}}
    chosen = {"n_steps": 16, "seed": 0, **own.get(algorithm, {}), **settings}
    if algorithm is not A2C:
        chosen = {"batch_size": 16, **chosen}
    kwargs = {"model": str(folder), **(policy_kwargs or {})}
    model = algorithm(kind, DummyVecEnv([env] * 2), policy_kwargs=kwargs, **chosen)
    change(model.policy)
    if logged is not None:
        model.set_logger(configure(str(logged), ["csv", "json", "tensorboard", "log"]))
    return model.learn(steps, callback=list(callbacks), log_interval=1)


def scale(factor: float) -> Callable[[Any], None]:
    """Tune a model by hand: another policy than the base model's."""

    def change(policy: Any) -> None:
        with torch.no_grad():
            policy.lm.get_input_embeddings().weight.mul_(factor)

    return change


def drop(policy: Any) -> None:
    """Switch on, by hand, the dropout that loading a model switches off."""
    for module in policy.lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5


class Plainly(BaseCallback):
    """The same figures at the first rollout's end, decision by decision, from SB3's distributions of two policies."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base, self.found = base, dict[str, float]()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.found:
            return
        policy, buffer = self.model.policy, self.model.rollout_buffer
        parts: dict[str, list[float]] = {"entropy": [], "most": [], "kl": []}
        actions = []
        for step, place in np.ndindex(buffer.buffer_size, buffer.n_envs):
            obs = torch.as_tensor(buffer.observations[step, place])[None]
            masks = (buffer.action_masks[step, place][None],) if hasattr(buffer, "action_masks") else ()
            with torch.no_grad():
                mine, base = (each.get_distribution(obs, *masks).distribution for each in (policy, self.base))
            phrases = policy._read_phrases(obs)[0] if policy._read_phrases else policy.phrases
            allowed = int((mine.probs > 0).sum())
            parts["entropy"].append(mine.entropy().item())
            parts["most"].append(math.log(allowed))
            parts["kl"].append(kl_divergence(*(torch.distributions.Categorical(d.probs) for d in (mine, base))).item())
            actions += [phrases[int(buffer.actions[step, place].item())]] * (allowed > 1)
        means = {name: float(np.mean(each)) for name, each in parts.items()}
        self.found = {
            "watch/entropy": means["entropy"],
            "watch/entropy_share": means["entropy"] / means["most"],
            "watch/top_action_share": Counter(actions).most_common(1)[0][1] / len(actions),
            "train/kl_to_base": means["kl"],
        }
        policy.clear_memo()
