"""What PolicyWatch costs, and what it sees at a learning rate: PPO on the maze, with it and without in turn."""

import time
from statistics import median
from typing import Annotated, Any

import torch
import typer
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, PolicyWatch, make_vec_env, presets

HIGHEST = ("train/kl_to_base", "watch/perplexity", "watch/first_epoch_ratio_error", "watch/top_action_share")


class Highest(PolicyWatch):
    """Keeps the largest of each figure."""

    def __init__(self) -> None:
        super().__init__()
        self.highest: dict[str, float] = {}

    def _report(self, values: dict[str, float], ended: bool = False) -> None:
        super()._report(values, ended)
        self.highest |= {name: max(values[name], self.highest.get(name, 0.0)) for name in HIGHEST if name in values}


def seconds(watch: PolicyWatch | None, steps: int, learning_rate: float) -> float:
    """:return: of processor time, for a training run."""
    settings: dict[str, Any] = presets("ppo") | {"learning_rate": learning_rate, "n_epochs": 3, "target_kl": None}
    model = PPO(LLMPolicy, make_vec_env("sb3_llm/Maze-v0", 16, seed=0), seed=0, **settings)
    start = time.process_time()
    model.learn(steps, callback=watch)
    return time.process_time() - start


def watching(
    steps: Annotated[int, typer.Option(min=1)] = 2048,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    learning_rate: float = 1e-4,
) -> None:
    """Print processor time with the watch, in that without it, and the largest of what was watched."""
    torch.set_num_threads(1)
    seconds(None, 512, learning_rate)  # the first run pays for what torch sets up
    ratios = []
    for _ in range(repeats):
        watch = Highest()
        without = seconds(None, steps, learning_rate)
        ratios.append(seconds(watch, steps, learning_rate) / without)
    print(f"with PolicyWatch {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) of without, {repeats} repeats")
    perplexity = watch.highest.pop("watch/perplexity") / watch.values["watch/perplexity_base"]
    told = ", ".join(f"{name} {value:.3g}" for name, value in watch.highest.items())
    print(f"largest at learning rate {learning_rate:g}: {told}, perplexity {perplexity:.3g} x the base model's")
