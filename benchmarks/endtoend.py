"""256 decisions on a real level: prompts, memo and all, beside whole rows for each phrase."""

import statistics
import tempfile
import time
from itertools import chain
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Column, Table
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from transformers import LlamaConfig, LlamaForCausalLM

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.benchmarks.peers import AllRows
from sb3_llm.benchmarks.shapes import SIZES
from sb3_llm.language_model import load_language_model

N_ENVS, STEPS, NAIVE_STEPS = 8, 32, 4
#: Level, and how many past actions the text tells: one is make_env's default, and makes most prompts new.
LEVELS = (("BabyAI-GoToLocal-v0", 1), ("BabyAI-GoToLocal-v0", 0), ("BabyAI-GoToRedBallNoDists-v0", 0))
INSTRUCTION = (
    "Goal: You are in a grey room. You see a red ball 2 steps left and 1 step forward, a blue key 3 steps forward, a "
    "green box 1 step right, a wall 4 steps forward. You carry nothing. Facing east. Action: turn left. You see a "
    "purple ball 2 steps forward and a yellow key 1 step left. Action: go forward.\n\n"
)


def end_to_end(
    repeats: Annotated[int, typer.Option(help="Alternating.", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1,
) -> None:
    """Print how many times cheaper the policy's own path is than whole rows, over 256 decisions of random play."""
    torch.set_num_threads(threads)
    table = Table(Column("level", no_wrap=True), "history", "distinct prompts", "tokens", "times cheaper than all rows")
    for env_id, history in LEVELS:
        env = make_vec_env(env_id, N_ENVS, seed=0, history=history)
        with tempfile.TemporaryDirectory() as folder:
            policy = _policy(folder, env)
        batches = _prompts(policy, env)
        lengths = [len(ids) for ids in policy._scorer.tokens.encode(list(chain(*batches)))]
        ratios = sorted(_ratio(policy, batches) for _ in range(repeats))
        times = f"{statistics.median(ratios):.0f} ({ratios[0]:.0f}-{ratios[-1]:.0f})"
        distinct = str(len(set(chain(*batches))))
        table.add_row(env_id, str(history), distinct, f"{min(lengths)}-{max(lengths)}", times)
    Console().print(table)
    Console().print(
        f"{STEPS * N_ENVS} decisions of {N_ENVS} environments, 6M model, prompts, tokens, memo and all; median "
        f"(min-max) of {repeats} alternating repeats, {threads} thread(s), processor time. Of whole rows, "
        f"{NAIVE_STEPS} of {STEPS} steps are timed and scaled."
    )


def _ratio(policy: LLMPolicy, batches: list[list[str]]) -> float:
    """Processor time of whole rows over that of the policy's own path."""
    with torch.no_grad():
        policy.clear_memo()
        start = time.process_time()
        for prompts in batches:
            policy.action_log_probs(prompts)
        ours = time.process_time() - start
        start = time.process_time()
        for prompts in batches[:: STEPS // NAIVE_STEPS]:
            _naive(policy, prompts)
        return (time.process_time() - start) * STEPS / NAIVE_STEPS / ours


def _policy(folder: str, env: VecEnv) -> LLMPolicy:
    """The 6M shape with random weights over the embedded tokenizer."""
    hidden, layers, heads, width = SIZES["6M"]
    _, tokenizer = load_language_model("embedded")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width,
        max_position_embeddings=1024,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = f"{INSTRUCTION}{{observation}}\nAction:"
    return PPO(LLMPolicy, env, policy_kwargs={"model": folder, "template": template}, device="cpu").policy


def _prompts(policy: LLMPolicy, env: VecEnv) -> list[list[str]]:
    env.action_space.seed(0)
    batches = [policy.render(env.reset())]
    while len(batches) < STEPS:
        observations, *_ = env.step([env.action_space.sample() for _ in range(N_ENVS)])
        batches.append(policy.render(observations))
    return batches


def _naive(policy: LLMPolicy, prompts: list[str]) -> torch.Tensor:
    tokens = policy._scorer.tokens
    rows = tokens.rows(prompts, [tokens.continuations(policy.phrases)] * len(prompts))
    return AllRows(policy.lm).score(rows).log_probs
