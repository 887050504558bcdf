"""256 decisions on a real level: prompts, memo and all, beside whole rows for each phrase."""

import tempfile
import time

import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peers import AllRows
from benchmarks.shapes import SIZES
from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.language_model import load_language_model

ENV_ID, N_ENVS, STEPS, NAIVE_STEPS = "BabyAI-GoToLocal-v0", 8, 32, 4
INSTRUCTION = (
    "Goal: You are in a grey room. You see a red ball 2 steps left and 1 step forward, a blue key 3 steps forward, a "
    "green box 1 step right, a wall 4 steps forward. You carry nothing. Facing east. Action: turn left. You see a "
    "purple ball 2 steps forward and a yellow key 1 step left. Action: go forward.\n\n"
)


def end_to_end() -> dict[str, float]:
    """
    Print how many times cheaper the policy's own path is than whole rows, and with it the naive figure's scaling.

    :return: seconds of both, per 256 decisions
    """
    with tempfile.TemporaryDirectory() as folder:
        env = make_vec_env(ENV_ID, N_ENVS, seed=0)
        policy = _policy(folder, env)
        batches = _prompts(policy, env)
    with torch.no_grad():
        start = time.process_time()
        for prompts in batches:
            policy.action_log_probs(prompts)
        ours = time.process_time() - start
        start = time.process_time()
        for prompts in batches[:: STEPS // NAIVE_STEPS]:
            _naive(policy, prompts)
        naive = (time.process_time() - start) * STEPS / NAIVE_STEPS
    tokens = policy._scorer.tokens.encode(batches[0])
    Console().print(
        f"End to end, {STEPS * N_ENVS} decisions of {N_ENVS} environments ({ENV_ID}, random play, prompts of "
        f"{min(map(len, tokens))} to {max(map(len, tokens))} tokens, 6M model): {naive / ours:.0f} times cheaper than "
        f"all rows (of which {NAIVE_STEPS} of {STEPS} steps were timed and scaled)."
    )
    return {"all rows": naive, "ours": ours}


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
