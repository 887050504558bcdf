"""One contract for every algorithm, tuning mode and architecture: what learns, what moves, and what a zip holds."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gymnasium import Env
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from transformers import AutoModelForCausalLM

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation
from tests.test_policy import Follow, say
from tests.tiny import byte_level_tokenizer, save_language_model

ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "PPO": (PPO, LLMPolicy, {"batch_size": 8, "n_epochs": 2}),
    "A2C": (A2C, LLMPolicy, {}),
    "TRPO": (TRPO, LLMPolicy, {"batch_size": 16, "n_critic_updates": 2, "cg_max_steps": 3}),
    "MaskablePPO": (MaskablePPO, MaskableLLMPolicy, {"batch_size": 8, "n_epochs": 2}),
}
#: How many numbers the optimizer keeps for each that it trains. TRPO's trains the value head alone.
STATES = {"PPO": 2, "A2C": 1, "TRPO": 2, "MaskablePPO": 2}
MODES = ("full", "lora", "top:1", "head")
LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
GATED = {**LAYERS, "num_key_value_heads": 2, "intermediate_size": 96}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "resid_pdrop": 0.5, "attn_pdrop": 0.5}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GATED),
    "gpt2": ("GPT2Config", GPT2),
    "qwen2": ("Qwen2Config", {**GATED, "tie_word_embeddings": True}),
    "gpt_neox": ("GPTNeoXConfig", {**LAYERS, "intermediate_size": 96}),
    "gemma": ("GemmaConfig", {**GATED, "head_dim": 16}),
}
OVERHEAD = 40_000  # bytes that do not grow with the model: SB3's settings, names of tensors, zip and pickle headers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random model of each family, of 0.1 to 0.2 M parameters, saved as a person would."""
    saved = {}
    for name, (config, options) in FAMILIES.items():
        tokenizer = byte_level_tokenizer()
        # Room for what a family's own tokenizer class adds when it is loaded.
        ids = {"vocab_size": len(tokenizer) + 12, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(getattr(transformers, config)(**options, **ids))
        saved[name] = save_language_model(tmp_path_factory.mktemp(name), lm, tokenizer)
    return saved


def short_env() -> Env[Any, Any]:
    return Monitor(TextObservation(Follow(), describe=say, max_bytes=128))


def make(algorithm: str, **policy_kwargs: Any) -> Any:
    kind, policy, settings = ALGORITHMS[algorithm]
    env = DummyVecEnv([short_env] * 2)
    return kind(policy, env, n_steps=8, seed=0, policy_kwargs=policy_kwargs, learning_rate=1e-3, **settings)


class RatioErrors(BaseCallback):
    """Before each update: the largest |ratio - 1| over the rollout, in odd minibatches, as the update would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.model.policy.set_training_mode(True)
        worst = 0.0
        for batch in self.model.rollout_buffer.get(batch_size=5):
            masks = {"action_masks": batch.action_masks} if hasattr(batch, "action_masks") else {}
            _, log_prob, _ = self.model.policy.evaluate_actions(batch.observations, batch.actions.long(), **masks)
            worst = max(worst, ((log_prob - batch.old_log_prob).exp() - 1).abs().max().item())
        self.found.append(worst)


def should_train(mode: str, lm: Any) -> set[str]:
    """Names of the language model's parameters that a mode trains, by what the mode says."""
    names = [name for name, _ in lm.named_parameters()]
    if mode == "lora":
        return {name for name in names if "lora_" in name}
    if mode == "head":
        return {name for name, each in lm.named_parameters() if each is lm.get_output_embeddings().weight}
    if mode == "top:1":
        norms = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
        return {name for name in names if ".1." in name or name.startswith(norms)}
    return set(names)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_contract(algorithm: str, mode: str, family: str, folders: dict[str, str], tmp_path: Path) -> None:
    model = make(algorithm, model=folders[family], finetune=mode)
    policy = model.policy
    before = {name: each.detach().clone() for name, each in policy.lm.named_parameters()}
    errors = RatioErrors()
    model.learn(32, callback=errors)

    assert len(errors.found) == 2
    assert max(errors.found) <= 1e-5
    moved = {name for name, each in policy.lm.named_parameters() if not torch.equal(each, before[name])}
    trained = should_train(mode, policy.lm)
    assert moved <= trained
    # Of what is trained, some may have no gradient: GPT-NeoX's key biases, LoRA's A while B is zero.
    assert len(moved) >= 0.5 * len(trained)
    assert any(name.startswith("lm.") for name, _ in policy.named_parameters())
    assert all(each.grad is None or each.requires_grad for each in policy.lm.parameters())

    path = tmp_path / "model.zip"
    model.save(path)
    loaded = type(model).load(path)
    obs = torch.as_tensor(model.env.reset())
    for each in (model, loaded):
        each.policy.set_training_mode(False)
        each.policy.clear_memo()
    with torch.no_grad():
        assert torch.equal(probabilities(model.policy, obs), probabilities(loaded.policy, obs))
        assert torch.equal(model.policy.predict_values(obs), loaded.policy.predict_values(obs))

    assert path.stat().st_size <= 1.1 * trained_bytes(model, STATES[algorithm]) + OVERHEAD


def probabilities(policy: Any, obs: torch.Tensor) -> torch.Tensor:
    return policy.get_distribution(obs).distribution.probs


def trained_bytes(model: Any, states: int) -> int:
    return 4 * (1 + states) * sum(math.prod(each.shape) for each in model.policy.parameters())


@pytest.mark.parametrize("mode", ["full", "top:1"])
def test_a_zip_of_a_larger_model_holds_little_else(mode: str, tmp_path: Path) -> None:
    """The same bound, without the fixed part, on the model that ships in the package."""
    for algorithm in ("PPO", "A2C"):
        model = make(algorithm, model="embedded", finetune=mode).learn(16)
        model.save(tmp_path / "model.zip")
        assert (tmp_path / "model.zip").stat().st_size <= 1.1 * trained_bytes(model, STATES[algorithm])
