"""What an update costs: the whole model, its upper half over remembered lower layers, and micro-batches."""

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.benchmarks.memory import peak
from sb3_llm.scoring.model import decoder_layers
from sb3_llm.training import HYPERPARAMETERS

N_ENVS = 8
BATCHES = (64, 128, 256)


def update(
    env_id: Annotated[str, typer.Option(help="Where the prompts come from.")] = "MiniGrid-DoorKey-8x8-v0",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    micro_batch: Annotated[int, typer.Option(help="Prompts per pass, for the third row.", min=1)] = 16,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1,
) -> None:
    """Print each mode's processor time for one PPO update on its own rollout, as a ratio to the whole model's."""
    torch.set_num_threads(threads)
    whole = _rolled_out(env_id)
    upper = len(decoder_layers(whole.policy.lm)) // 2
    modes: dict[str, dict[str, object]] = {
        "full": {},
        f"top:{upper}": {"finetune": f"top:{upper}"},
        f"micro_batch={micro_batch}": {"micro_batch": micro_batch},
    }
    seconds = _alternate({name: _rolled_out(env_id, **options) for name, options in modes.items()}, repeats)
    table = Table("mode", "cost of full: min", "median", "max", *(f"peak MiB, {size}" for size in BATCHES))
    for name, times in seconds.items():
        ratios = [mine / full for mine, full in zip(times, seconds["full"], strict=True)]
        figures = [f"{figure:.2f}" for figure in (min(ratios), statistics.median(ratios), max(ratios))]
        peaks = [f"{peak(_minibatch, env_id, size, modes[name]):.0f}" for size in BATCHES]
        table.add_row(name, *figures, *peaks)
    Console().print(table)
    Console().print(
        f"{whole.n_epochs} epochs of minibatches of {whole.batch_size} from {whole.n_steps} steps of {N_ENVS} "
        f"environments ({env_id}), embedded model, {repeats} alternating repeats after one that warms up, {threads} "
        "thread(s), processor time. Lower layers were run in the rollout, as in any training. Peak memory is that of "
        f"forward and backward over minibatches of {', '.join(map(str, BATCHES))}, above what was there before."
    )


def _alternate(models: dict[str, PPO], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            start = time.process_time()
            model.train()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return seconds


def _rolled_out(env_id: str, **policy_kwargs: object) -> PPO:
    """A model whose rollout buffer is full, as before its first update."""
    settings = HYPERPARAMETERS["ppo", "llm"] | {"target_kl": None}  # so that all of it is run
    env = make_vec_env(env_id, N_ENVS, seed=0)
    model = PPO(LLMPolicy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **settings)
    _, callback = model._setup_learn(10**6, None)
    model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
    return model


def _minibatch(env_id: str, size: int, policy_kwargs: dict[str, object]) -> Callable[[], object]:
    """Forward and backward over one minibatch; gradients and what it reads are there already."""
    torch.set_num_threads(1)
    model = _rolled_out(env_id, **policy_kwargs)
    batch = next(iter(model.rollout_buffer.get(size)))
    model.policy.set_training_mode(True)
    for parameter in model.policy.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def work() -> None:
        _, log_prob, entropy = model.policy.evaluate_actions(batch.observations, batch.actions.long().flatten())
        assert entropy is not None
        (log_prob.sum() + entropy.sum()).backward()

    return work
