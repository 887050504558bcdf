"""The sweep behind ``sb3_llm.presets``: each algorithm and tuning mode at several learning rates, on one short task."""

import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO

from sb3_llm import LLMPolicy, make_vec_env, presets

RESULTS = Path(__file__).parent / "results" / "sweep.jsonl"
TASK = "MiniGrid-PutNear-6x6-N2-v0"  # .70 before training; results/sweep.jsonl is of an earlier model on DoorKey-5x5
STEPS, N_ENVS = 4096, 16
MODES = ("full", "lora", "top:2", "head")
#: Of PPO and A2C the learning rate, of TRPO the bound on the KL divergence of one step.
RATES = {
    "ppo": ("learning_rate", (1e-4, 3e-4, 1e-3)),
    "a2c": ("learning_rate", (1e-4, 3e-4, 1e-3)),
    "trpo": ("target_kl", (0.003, 0.01, 0.03)),
}
ALGORITHMS = {"ppo": PPO, "a2c": A2C, "trpo": TRPO}


def cells(algorithms: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    """List what is to be run. TRPO's cost grows with the number of tensors, so it is left out for the whole model."""
    for seed, algorithm in product(range(seeds), algorithms):
        name, rates = RATES[algorithm]
        for finetune, rate in product(MODES, rates):
            if (algorithm, finetune) != ("trpo", "full"):
                yield {"algorithm": algorithm, "finetune": finetune, name: rate, "seed": seed}


def run(cell: dict[str, Any], task: str) -> dict[str, Any]:
    """:return: the cell with the share of successes among the last 100 training episodes, and its seconds."""
    rate, _ = RATES[cell["algorithm"]]
    settings = presets(cell["algorithm"])  # its learning rate, of the value head too, gives way to the cell's
    settings |= {rate: cell[rate], "policy_kwargs": {"finetune": cell["finetune"]}}
    env = make_vec_env(task, N_ENVS, seed=cell["seed"])
    model = ALGORITHMS[cell["algorithm"]](LLMPolicy, env, seed=cell["seed"], **settings)
    start = time.process_time()
    try:
        model.learn(STEPS)
        success = fmean(model.ep_success_buffer or [0.0])
    except FloatingPointError:
        success = None
    return cell | {"task": task, "steps": STEPS, "success": success, "cpu_seconds": time.process_time() - start}


def sweep(
    algorithm: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(RATES)}; all by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    task: str = TASK,
) -> None:
    """Run what is not in benchmarks/results/sweep.jsonl yet; safe to interrupt."""
    torch.set_num_threads(1)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for cell in cells(algorithm or list(RATES), seeds):
        asked = cell | {"task": task, "steps": STEPS}
        if any(asked.items() <= each.items() for each in done):
            continue
        found = run(cell, task)
        print(json.dumps(found), flush=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
