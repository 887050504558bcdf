"""Where the time of a PPO iteration goes: in the language model, or around it."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.training import HYPERPARAMETERS

N_ENVS = 8


class Stopwatch:
    """Wall time by part; a part's time leaves out the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[tuple[str, float]] = []

    def start(self, part: str) -> None:
        """:param part: that begins now, inside the one that runs."""
        self._book()
        self._open.append((part, time.perf_counter()))

    def stop(self) -> None:
        """End the innermost part."""
        self._book()
        self._open.pop()
        if self._open:
            self._open[-1] = (self._open[-1][0], time.perf_counter())

    def _book(self) -> None:
        if self._open:
            part, since = self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - since

    def wrapped(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """:return: the same call, timed."""

        def timed(*args: Any, **named: Any) -> Any:
            self.start(part)
            try:
                return call(*args, **named)
            finally:
                self.stop()

        return timed


def profile(
    env_id: Annotated[str, typer.Option(help="What is trained on.")] = "MiniGrid-DoorKey-8x8-v0",
    iterations: Annotated[int, typer.Option(help="Rollout and update, after one that warms up.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 2,
) -> None:
    """Print which share of PPO's wall time is spent outside the language model's forward and backward."""
    torch.set_num_threads(threads)
    settings = HYPERPARAMETERS["ppo", "llm"] | {"target_kl": None}  # so that all of it is run
    model = PPO(LLMPolicy, make_vec_env(env_id, N_ENVS, seed=0), seed=0, device="cpu", **settings)
    _, callback = model._setup_learn(10**6, None)
    shares: dict[str, list[float]] = {}
    for iteration in range(iterations + 1):
        watch = Stopwatch()
        with _timed_parts(model, watch):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
            model.train()
        whole = sum(watch.seconds.values())
        for part, seconds in watch.seconds.items():
            if iteration:
                shares.setdefault(part, []).append(seconds / whole)
    inside = ("forward", "backward")
    outside = [1 - sum(each) for each in zip(*(shares[part] for part in inside), strict=True)]
    table = Table("part", "share of wall time: min", "median", "max")
    for part, values in sorted(shares.items(), key=lambda item: -statistics.median(item[1])):
        table.add_row(part, *_figures(values))
    table.add_section()
    table.add_row("outside the language model", *_figures(outside))
    Console().print(table)
    Console().print(
        f"{iterations} iterations of {model.n_steps} steps of {N_ENVS} environments ({env_id}), {model.n_epochs} "
        f"epochs in minibatches of {model.batch_size}, embedded model, {threads} threads. Backward is that of the "
        "whole loss, of which the value head is a thousandth."
    )


@contextmanager
def _timed_parts(model: PPO, watch: Stopwatch) -> Iterator[None]:
    policy, env = model.policy, model.env
    parts = [
        (policy.lm, "forward", "forward"),
        (policy._scorer, "score", "tokens, masks, memo, softmax"),
        (policy, "render", "prompts"),
        (policy.optimizer, "step", "optimizer"),
        (env, "step_wait", "environments and describing"),
    ]
    patches = [patch.object(thing, name, watch.wrapped(part, getattr(thing, name))) for thing, name, part in parts]
    backward = torch.Tensor.backward
    patches.append(patch.object(torch.Tensor, "backward", lambda *a, **n: watch.wrapped("backward", backward)(*a, **n)))
    watch.start("the rest of SB3 and of the policy")
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()
        watch.stop()


def _figures(values: list[float]) -> list[str]:
    return [f"{figure:.1%}" for figure in (min(values), statistics.median(values), max(values))]
