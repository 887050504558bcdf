"""A policy trained to talk: PPO on the slot-filling dialogue, beside its expert and random acts."""

import json
import time
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm import LLMPolicy, TextObservation, presets
from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.envs.dialogue import DialogueEnv
from sb3_llm.evaluation import evaluate

RESULTS = Path(__file__).parent / "results" / "dialogue.json"
N_ENVS, TEST_SEED, EXPERT_EPISODES = 16, 10_000, 20_000
FEW = 64  # test dialogues before training, which are long
#: The presets with a higher learning rate, which the value head needs; the model forgets at more than a tenth of it.
LLM = presets("ppo") | {"learning_rate": 3e-4, "n_epochs": 3, "target_kl": None, "policy_kwargs": {"lm_lr_scale": 0.1}}
MLP = {"n_steps": 128, "batch_size": 256, "n_epochs": 10, "learning_rate": 1e-3, "ent_coef": 0.01}


def make_envs(policy: str, seed: int) -> VecEnv:
    """:return: dialogues side by side: text for "llm", numbers for "mlp"."""

    def make() -> Any:
        return TextObservation(DialogueEnv(), describe_dialogue) if policy == "llm" else DialogueEnv()

    return make_vec_env(make, N_ENVS, seed=seed)


def scripted(rule: str, episodes: int) -> dict[str, Any]:
    """:return: mean return and success of the expert, or of random acts, on the seeds of the test."""
    env = DialogueEnv()
    env.reset(seed=TEST_SEED)
    env.action_space.seed(TEST_SEED)
    returns, successes = [], []
    for _ in range(episodes):
        obs, total, ended = env.reset()[0], 0.0, False
        while not ended:
            action = env.expert_action(obs) if rule == "expert" else int(env.action_space.sample())
            obs, reward, terminated, truncated, info = env.step(action)
            total, ended = total + reward, terminated or truncated
        returns.append(total)
        successes.append(info["is_success"])
    return {"policy": rule, "mean_return": fmean(returns), "success": fmean(successes), "episodes": episodes}


def examined(model: PPO, policy: str, episodes: int, greedy: bool) -> dict[str, Any]:
    """:return: the sampled or the greedy policy on other seeds than those of training."""
    seen = evaluate(model, make_envs(policy, TEST_SEED), episodes, greedy)
    shown = {name: getattr(seen, name) for name in ("policy", "mean_return", "success", "mean_length", "episodes")}
    return shown | {"return_error": seen.std_return / episodes**0.5, "turns": model.num_timesteps}


def dialogue(
    steps: Annotated[int, typer.Option(min=1, help="Turns of training.")] = 20_000,
    episodes: Annotated[int, typer.Option(min=2, help="Test dialogues of each policy.")] = 300,
    seed: int = 0,
    policy: Annotated[str, typer.Option(help="llm or mlp.")] = "llm",
    every: Annotated[int, typer.Option(min=1, help="Turns between lines.")] = 2048,
    settings: Annotated[str, typer.Option(help="PPO's, as JSON, over those used here.")] = "{}",
) -> None:
    """Train, and print returns beside the expert's; written to benchmarks/results/dialogue.json."""
    torch.set_num_threads(1)
    rows = [scripted(rule, EXPERT_EPISODES) for rule in ("random", "expert")]
    options: dict[str, Any] = (LLM if policy == "llm" else MLP) | json.loads(settings)
    kind: Any = LLMPolicy if policy == "llm" else "MultiInputPolicy"
    model = PPO(kind, make_envs(policy, seed), seed=seed, device="cpu", **options)
    rows.append(examined(model, policy, min(episodes, FEW), greedy=False))
    start = time.process_time()
    while model.num_timesteps < steps:
        model.learn(min(every, steps - model.num_timesteps), reset_num_timesteps=False)
        recent = fmean(episode["r"] for episode in model.ep_info_buffer or ())
        print(f"{model.num_timesteps} turns, {time.process_time() - start:.0f} s: return {recent:.3f}", flush=True)
    rows += [examined(model, policy, episodes, greedy) for greedy in (False, True)]
    expert = rows[1]["mean_return"]
    rows = [row | {"of_expert": row["mean_return"] / expert} for row in rows]
    print("\n".join(json.dumps(row) for row in rows))
    found = {"trained": policy, "seed": seed, "settings": options, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
