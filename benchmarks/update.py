"""What an update costs: the whole model, its upper half over remembered lower layers, and micro-batches."""

import statistics
import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from torch import Tensor

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.scoring.model import decoder_layers
from sb3_llm.training import HYPERPARAMETERS

N_ENVS = 8


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
    models = {
        "full": whole,
        f"top:{upper}": _rolled_out(env_id, finetune=f"top:{upper}"),
        f"full, micro_batch={micro_batch}": _rolled_out(env_id, micro_batch=micro_batch),
    }
    held = {name: _held(model) / 2**20 for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            start = time.process_time()
            model.train()
            seconds[name].append(time.process_time() - start)
    table = Table("mode", "cost of full: min", "median", "max", "MiB a minibatch's graph holds")
    for name, times in seconds.items():
        ratios = [mine / full for mine, full in zip(times, seconds["full"], strict=True)]
        figures = [f"{figure:.2f}" for figure in (min(ratios), statistics.median(ratios), max(ratios))]
        table.add_row(name, *figures, f"{held[name]:.1f}")
    Console().print(table)
    Console().print(
        f"{whole.n_epochs} epochs of minibatches of {whole.batch_size} from {whole.n_steps} steps of {N_ENVS} "
        f"environments ({env_id}), embedded model, {repeats} alternating repeats, {threads} thread(s), processor time. "
        "Lower layers were run in the rollout, as in any training."
    )


def _rolled_out(env_id: str, **policy_kwargs: object) -> PPO:
    """A model whose rollout buffer is full, as before its first update."""
    settings = {name: value for name, value in HYPERPARAMETERS["ppo", "llm"].items() if name != "n_envs"}
    env = make_vec_env(env_id, N_ENVS, seed=0)
    model = PPO(LLMPolicy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **settings)
    _, callback = model._setup_learn(10**6, None)
    model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
    return model


def _held(model: PPO) -> int:
    """Bytes that the graph of one minibatch keeps for its backward pass, weights left out."""
    batch = next(iter(model.rollout_buffer.get(model.batch_size)))
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.policy.set_training_mode(True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.policy.evaluate_actions(batch.observations, batch.actions.long().flatten())
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.policy.parameters()}
    return sum(size for place, size in sizes.items() if place not in weights)
