"""Every preset makes a model that learns two updates; unknown ones list what is known."""

from typing import Any

import pytest
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, presets
from sb3_llm.errors import SetupError
from sb3_llm.presets import SIZES
from tests.test_policy import follow_env

ALGORITHMS = {"ppo": PPO, "a2c": A2C, "trpo": TRPO, "maskable_ppo": MaskablePPO}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("finetune", ["full", "top:1", "head", {"mode": "lora", "rank": 2}])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_presets_are_keywords_that_work(algorithm: str, finetune: Any, size: str, llama_folder: Any) -> None:
    chosen = presets(algorithm, finetune, size)
    chosen["policy_kwargs"]["model"] = str(llama_folder)
    policy = MaskableLLMPolicy if algorithm == "maskable_ppo" else LLMPolicy
    model = ALGORITHMS[algorithm](
        policy,
        DummyVecEnv([follow_env] * 2),
        **chosen | ({"n_steps": 4} if algorithm == "a2c" else {"n_steps": 4, "batch_size": 8}),
    )
    if algorithm != "trpo":
        model.learn(16)
    assert model.policy.optimizer.param_groups[0]["lr_scale"] == chosen["policy_kwargs"].get("lm_lr_scale", 1.0)


def test_large_models_warm_their_value_head_up() -> None:
    assert "value_warmup" not in presets("ppo")["policy_kwargs"]
    assert presets("ppo", size="large")["policy_kwargs"]["value_warmup"] > 0
    assert presets("ppo", size="large")["policy_kwargs"]["lm_lr_scale"] < 0.1


def test_whole_small_models_are_tuned_slower_by_ppo() -> None:
    scales = {name: presets(name)["policy_kwargs"].get("lm_lr_scale") for name in ALGORITHMS}
    assert scales == {"ppo": 0.3, "a2c": 1.0, "trpo": None, "maskable_ppo": 0.3}
    assert (
        presets("ppo", "top:1")["policy_kwargs"]["lm_lr_scale"]
        == presets("a2c", "top:1")["policy_kwargs"]["lm_lr_scale"]
    )


def test_ppo_ends_an_update_that_goes_far() -> None:
    assert [presets(name).get("target_kl") for name in ALGORITHMS] == [0.02, None, 0.03, 0.02]


def test_ppo_goes_over_its_data_once() -> None:
    assert [presets(name).get("n_epochs") for name in ALGORITHMS] == [1, None, None, 1]


def test_a_preset_is_a_dict_of_ones_own() -> None:
    presets("ppo")["policy_kwargs"]["finetune"] = "head"
    presets("ppo")["n_steps"] = 1
    assert presets("ppo")["policy_kwargs"]["finetune"] == "full"
    assert presets("ppo")["n_steps"] > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dqn",), "one of ppo, a2c, trpo, maskable_ppo"),
        (("ppo", "lorra"), '"lora" for low-rank adapters'),
        (("ppo", "full", "huge"), "one of small, large"),
    ],
)
def test_unknown_presets_list_the_known_ones(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        presets(*arguments)
