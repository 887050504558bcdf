"""The sweep behind ``sb3_llm.presets``: each algorithm and tuning mode at several learning rates, on one short task."""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO

from sb3_llm import LLMPolicy, make_vec_env

RESULTS = Path(__file__).parent / "results" / "sweep.jsonl"
TASK = "MiniGrid-DoorKey-5x5-v0"  # .88 before training; it can be learnt, and it can be unlearnt
STEPS, N_ENVS = 4096, 16
MODES = ("full", "lora", "top:2", "head")
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 32, "batch_size": 256, "n_epochs": 3, "ent_coef": 0.01},
    "a2c": {"n_steps": 8, "ent_coef": 0.01, "use_rms_prop": False},
    "trpo": {"n_steps": 32, "sub_sampling_factor": 8, "cg_max_steps": 5, "batch_size": 256, "n_critic_updates": 3},
}
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


def run(cell: dict[str, Any], task: str, policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """:return: the cell with the share of successes among the last 100 training episodes, and its seconds."""
    options = {key: value for key, value in cell.items() if key not in ("algorithm", "finetune", "seed", "extra")}
    env = make_vec_env(task, N_ENVS, seed=cell["seed"])
    model = ALGORITHMS[cell["algorithm"]](
        LLMPolicy,
        env,
        seed=cell["seed"],
        policy_kwargs={"finetune": cell["finetune"], **policy_kwargs},
        **SETTINGS[cell["algorithm"]] | options,
    )
    start = time.process_time()
    try:
        model.learn(STEPS)
        success = fmean(model.ep_success_buffer or [0.0])
    except FloatingPointError:
        success = None
    return cell | {"task": task, "steps": STEPS, "success": success, "cpu_seconds": time.process_time() - start}


def main() -> None:
    """Run what is not in the results file yet, cheapest first; safe to interrupt."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sweep", description=__doc__)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--policy-arg", action="append", default=[], help="name=JSON, in every cell")
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy_kwargs = {name: json.loads(value) for name, value in (each.split("=", 1) for each in given.policy_arg)}
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for cell in cells(given.algorithms, given.seeds):
        cell = cell | ({"extra": policy_kwargs} if policy_kwargs else {})
        if any(cell.items() <= each.items() and each["task"] == given.task for each in done):
            continue
        found = run(cell, given.task, policy_kwargs)
        print(json.dumps(found), flush=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
