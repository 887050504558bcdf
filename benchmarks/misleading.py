"""Early reward for the wrong thing: does the policy come back from it? Entropy against the KL to the base model."""

import json
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import gymnasium as gym
import torch
import typer
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, make_env, make_vec_env
from sb3_llm.evaluation import evaluate

RESULTS = Path(__file__).parent / "results" / "misleading.json"
TASK, N_ENVS, MAX_STEPS = "MiniGrid-Empty-Random-5x5-v0", 8, 30
LURED, STEPS = 1024, 4096  # environment steps: with the wrong reward, and in all


class Lure(gym.Wrapper[Any, Any, Any, Any]):
    """For its first steps it pays for "turn left" and for nothing else; from then on it pays as it should."""

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        super().__init__(env)
        self.left = steps

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.left -= 1
        return obs, float(action == 0) if self.left >= 0 else reward, terminated, truncated, info


def play(bonus: str, ent_coef: float, seed: int) -> dict[str, Any]:
    """:return: success before training, and of the sampled policy at its end."""
    env = DummyVecEnv(
        [lambda: Monitor(Lure(make_env(TASK, max_steps=MAX_STEPS), LURED // N_ENVS)) for _ in range(N_ENVS)]
    )
    model = PPO(
        LLMPolicy,
        env,
        n_steps=64,
        batch_size=128,
        n_epochs=4,
        learning_rate=3e-4,
        ent_coef=ent_coef,
        seed=seed,
        policy_kwargs={"prior_kl": bonus == "KL to the base model"},
    )
    found: dict[str, Any] = {"bonus": bonus, "ent_coef": ent_coef, "seed": seed}
    for name, steps in (("before", 0), ("lured", LURED), ("after", STEPS - LURED)):
        if steps:
            model.learn(steps, reset_num_timesteps=False)
        test = make_vec_env(TASK, N_ENVS, seed=10_000, max_steps=MAX_STEPS)
        found[name] = evaluate(model, test, 48, greedy=False).success
    return found


def misleading(
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    ent_coef: Annotated[list[float] | None, typer.Option(help="Weights of the bonus.")] = None,
) -> None:
    """Train with either bonus at each weight and print success; written to benchmarks/results/misleading.json."""
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    for weight, bonus, seed in product(ent_coef or [0.1], ("entropy", "KL to the base model"), range(seeds)):
        runs.append(play(bonus, weight, seed))
        print(json.dumps(runs[-1]), flush=True)
        RESULTS.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    for weight, bonus in product(ent_coef or [0.1], ("entropy", "KL to the base model")):
        mine = [run for run in runs if (run["bonus"], run["ent_coef"]) == (bonus, weight)]
        told = ", ".join(f"{name} {fmean(run[name] for run in mine):.2f}" for name in ("before", "lured", "after"))
        ends = sorted(run["after"] for run in mine)
        print(f"{bonus}, weight {weight}: {told} (seeds at the end {ends[0]:.2f} to {ends[-1]:.2f})")
