"""What scoring costs: the packed route beside the definition and the prompt alone, alternating in one process."""

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
from sb3_llm.scoring import PackedScorer, ReferenceScorer


def scoring(
    env_id: Annotated[str, typer.Option(help="Where the prompts come from.")] = "BabyAI-GoToLocal-v0",
    batch: Annotated[int, typer.Option(help="Prompts in a batch.", min=1)] = 16,
    repeats: Annotated[int, typer.Option(min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1,
) -> None:
    """Print each route's processor time as a ratio to one forward pass over the prompts alone."""
    torch.set_num_threads(threads)
    policy, prompts = _policy_and_prompts(env_id, batch)
    packed = policy._scorer.scorer
    assert isinstance(packed, PackedScorer)
    reference = ReferenceScorer(policy.lm, packed.tokens)
    rows = packed.tokens.encode(prompts)
    routes: dict[str, Callable[[], torch.Tensor]] = {
        "prompt alone": lambda: _prompt_alone(policy, rows),
        "packed": lambda: packed.score(prompts).log_probs,
        "reference": lambda: reference.score(prompts).log_probs,
    }
    table = Table("route", "pass", "ratio to the prompt alone: min", "median", "max")
    for backward in (False, True):
        seconds = _alternate(routes, backward, repeats)
        for name, times in seconds.items():
            ratios = [mine / bound for mine, bound in zip(times, seconds["prompt alone"], strict=True)]
            figures = (f"{figure:.2f}" for figure in (min(ratios), statistics.median(ratios), max(ratios)))
            table.add_row(name, "forward + backward" if backward else "forward", *figures)
    lengths = sorted(len(row) for row in rows)
    Console().print(table)
    Console().print(
        f"{batch} distinct prompts of {lengths[0]} to {lengths[-1]} tokens, {len(policy.phrases)} phrases, embedded "
        f"model of {policy.lm.num_parameters():,} parameters, {repeats} repeats, {threads} thread(s), processor time"
    )


def _policy_and_prompts(env_id: str, batch: int) -> tuple[LLMPolicy, list[str]]:
    """Distinct prompts from random play."""
    env = make_vec_env(env_id, batch, seed=0)
    policy = PPO(LLMPolicy, env, device="cpu").policy
    env.action_space.seed(0)
    prompts: dict[str, None] = dict.fromkeys(policy.render(env.reset()))
    while len(prompts) < batch:
        observations, *_ = env.step([env.action_space.sample() for _ in range(batch)])
        prompts |= dict.fromkeys(policy.render(observations))
    return policy, list(prompts)[:batch]


def _prompt_alone(policy: LLMPolicy, rows: list[tuple[int, ...]]) -> torch.Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    logits = policy.lm(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits
    return logits[:, 0].float().log_softmax(-1)[:, :4]


def _alternate(routes: dict[str, Callable[[], torch.Tensor]], backward: bool, repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for repeat in range(repeats + 1):
        for name, route in routes.items():
            start = time.process_time()
            with torch.set_grad_enabled(backward):
                result = route()
                if backward:
                    result.sum().backward()
            if repeat:  # the first warms up
                seconds[name].append(time.process_time() - start)
    return seconds
