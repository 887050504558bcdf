"""What the policy's keywords promise: tuning of upper layers, micro-batches, phrases of each state, chat templates."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation
from sb3_llm.errors import SetupError
from sb3_llm.prior import report_prior
from sb3_llm.scoring import Continuations
from tests.test_candidates import Cottage, commands, say
from tests.test_policy import SMALL, FirstEpochRatio, follow_env
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path, algorithm: Any = PPO, policy: Any = LLMPolicy, env: Any = follow_env, **options: Any) -> Any:
    return algorithm(policy, DummyVecEnv([env] * 2), policy_kwargs={"model": str(folder), **options}, **SMALL)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


# -- tuning the upper layers alone -------------------------------------------------------------------------------------


def test_only_the_upper_layers_move(llama_folder: Path) -> None:
    model, ratio = make(llama_folder, finetune="top:1"), FirstEpochRatio()
    before = weights(model)
    model.learn(96, callback=ratio)
    moved = {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
    lm = {name for name in moved if name.startswith("lm.")}
    upper = {name for name in before if name.startswith("lm.model.layers.1.")} | {"lm.model.norm.weight"}
    assert lm == upper
    assert moved - lm == {name for name in before if name.startswith("value_net.")}
    assert ratio.worst <= 1e-5
    assert model.policy._scorer.scorer.frozen is not None


def update_gradients(model: Any) -> torch.Tensor:
    """Gradients of PPO's kind of loss on one batch, as one vector."""
    texts = ["Do: drop.", "Do: turn left. A wall.", "Do: go forward. A wall. A wall.", "Do: drop."]
    obs = torch.stack([torch.as_tensor(model.observation_space.encode(text)) for text in texts])
    model.policy.set_training_mode(True)
    values, log_prob, entropy = model.policy.evaluate_actions(obs, torch.tensor([0, 1, 2, 1]))
    (values.square().sum() + log_prob.sum() + entropy.sum()).backward()
    return torch.cat([each.grad.flatten() for each in model.policy.parameters() if each.grad is not None])


def test_upper_layers_alone_learn_as_they_would_without_the_store(llama_folder: Path) -> None:
    kept, whole = (make(llama_folder, finetune="top:1", dtype="float64") for _ in range(2))
    whole.policy._scorer.scorer.frozen = None
    mine, right = update_gradients(kept), update_gradients(whole)
    assert right.norm() > 1
    assert (mine - right).norm() / right.norm() < 1e-6  # the value head is float32


def test_lower_layers_run_once_for_each_prompt(llama_folder: Path) -> None:
    policy = make(llama_folder, finetune="top:1").policy
    prompts, rows = ["Do: drop.\nAction:", "Do: turn left.\nAction:"], []
    lower = policy.lm.model.layers[0]
    lower.self_attn.register_forward_pre_hook(lambda _, args, named: rows.append(1), with_kwargs=True)
    for training in (False, True, False, True):
        policy.set_training_mode(training)  # which forgets scores
        policy.action_log_probs(prompts).sum().backward()
        with torch.no_grad():
            policy.action_log_probs(prompts)
    assert len(rows) <= 2, "two prompts, at most a pass for each"


def test_other_lower_weights_are_noticed(llama_folder: Path) -> None:
    policy = make(llama_folder, finetune="top:1").policy
    prompts = ["Do: drop.\nAction:"]
    before = policy.action_log_probs(prompts)
    policy.lm.load_state_dict({name: tensor * 1.1 for name, tensor in policy.lm.state_dict().items()})
    after = policy.action_log_probs(prompts)
    policy._scorer.scorer.frozen = None
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, policy.action_log_probs(prompts), atol=1e-4, rtol=1e-4)


def test_a_small_store_drops_the_oldest_and_stays_right(llama_folder: Path) -> None:
    policy = make(llama_folder, finetune="top:1").policy
    store = policy._scorer.scorer.frozen
    prompts = [f"Do: drop. A wall {count}.\nAction:" for count in range(6)]
    right = policy.action_log_probs(prompts)
    store._max_bytes = 1
    for part in (prompts[:3], prompts[3:], prompts):
        mine = policy.action_log_probs(part)
        torch.testing.assert_close(mine, right[[prompts.index(each) for each in part]], atol=1e-4, rtol=1e-4)
        assert len(store._kept) == len(part)


def test_top_layers_survive_save_and_load(llama_folder: Path, tmp_path: Path) -> None:
    model = make(llama_folder, finetune="top:1").learn(32)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", env=model.env)
    assert all(torch.equal(tensor, loaded.policy.state_dict()[name]) for name, tensor in weights(model).items())
    loaded.learn(32, reset_num_timesteps=False)
    twin = copy.deepcopy(loaded.policy)
    torch.testing.assert_close(
        twin.action_log_probs(["Do: drop.\nAction:"]), loaded.policy.action_log_probs(["Do: drop.\nAction:"])
    )


@pytest.mark.parametrize(
    ("finetune", "words"),
    [
        ("top", r"finetune='top'.*\"full\".*\"top:N\""),
        ("top:0", r"finetune='top:0' for a model of 2 layers.*top:1"),
        ("top:3", r"finetune='top:3' for a model of 2 layers"),
        (2, "finetune=2"),
    ],
)
def test_unknown_tuning_modes(llama_folder: Path, finetune: Any, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        make(llama_folder, finetune=finetune)


# -- micro-batches -----------------------------------------------------------------------------------------------------


def test_micro_batches_make_the_same_update(llama_folder: Path) -> None:
    whole, split = make(llama_folder, dtype="float64"), make(llama_folder, dtype="float64", micro_batch=2)
    mine, right = update_gradients(split), update_gradients(whole)
    assert (mine - right).norm() / right.norm() < 1e-6  # the value head is float32
    split.learn(32)


def test_micro_batches_of_upper_layers_over_kept_ones(llama_folder: Path) -> None:
    whole = make(llama_folder, dtype="float64", finetune="top:1")
    split = make(llama_folder, dtype="float64", finetune="top:1", micro_batch=2)
    split.policy._scorer.scorer.frozen._max_bytes = 1  # the backward pass finds none of what the forward pass kept
    mine, right = update_gradients(split), update_gradients(whole)
    assert (mine - right).norm() / right.norm() < 1e-6


def test_checkpointed_layers_above_kept_ones(llama_folder: Path) -> None:
    whole, saving = (make(llama_folder, dtype="float64", finetune="top:1") for _ in range(2))
    saving.policy.lm.gradient_checkpointing_enable({"use_reentrant": False})
    mine, right = update_gradients(saving), update_gradients(whole)
    assert (mine - right).norm() / right.norm() < 1e-6


# -- phrases of each state ---------------------------------------------------------------------------------------------


def cottage_env() -> Any:
    def keys(state: str, action: str, next_state: str, info: dict[str, Any]) -> float:
        return float("key" in action)

    return Monitor(TextObservation(Cottage(), describe=say, candidates=commands, slots=4, reward=keys))


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, LLMPolicy), (MaskablePPO, MaskableLLMPolicy)])
def test_text_games_train(algorithm: Any, policy: Any, gpt2_folder: Path) -> None:
    """A step into a slot without a phrase would raise."""
    model = make(gpt2_folder, algorithm, policy, cottage_env)
    assert model.policy.phrases == model.policy.continuations == []
    before = weights(model)
    model.learn(64)
    after = weights(model)
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("lm."))


def test_ratio_is_one_where_phrases_change(gpt2_folder: Path) -> None:
    ratio = FirstEpochRatio()
    make(gpt2_folder, env=cottage_env).learn(96, callback=ratio)
    assert ratio.worst <= 1e-5


def test_absent_slots_have_probability_zero(gpt2_folder: Path) -> None:
    model = make(gpt2_folder, env=cottage_env)
    obs = torch.as_tensor(model.env.reset())
    distribution = model.policy.get_distribution(obs).distribution
    assert (distribution.probs[:, 2:] == 0).all()
    assert (distribution.probs[:, :2] > 0).all()
    assert distribution.entropy().isfinite().all()
    (loss := distribution.entropy().sum() + distribution.logits[:, :2].sum()).backward()
    assert loss.isfinite()
    assert all(each.grad.isfinite().all() for each in model.policy.lm.parameters() if each.grad is not None)
    prompts = model.policy.render(obs)
    lists = [("take key", "go cellar")] * 2
    log_probs = model.policy.action_log_probs(prompts, lists)
    assert (log_probs[:, 2:] == -torch.inf).all()
    torch.testing.assert_close(log_probs[:, :2].exp(), distribution.probs[:, :2])
    for call in (model.policy.action_log_probs, model.policy.sequence_log_probs):
        with pytest.raises(SetupError, match="phrases= of each prompt"):
            call(prompts)


def test_fixed_phrases_take_no_others(gpt2_folder: Path) -> None:
    with pytest.raises(SetupError, match="no phrases= for a policy that has its own"):
        make(gpt2_folder).policy.action_log_probs(["Do: drop.\nAction:"], [["wait"]])


# -- chat templates ----------------------------------------------------------------------------------------------------


def test_instruction_tuned_models_are_asked_in_their_own_form(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    folder = save_language_model(tmp_path, tiny_lm("llama", len(tokenizer), torch.float32), tokenizer)
    template = {"system": "You act.", "user": "{observation} One of: {phrases}."}
    model = make(Path(folder), template=template)
    (prompt, _) = model.policy.render(model.env.reset())
    assert prompt.startswith("<|im_start|>system\nYou act.<|im_end|>\n<|im_start|>user\nDo: ")
    assert prompt.endswith("One of: turn left, go forward, drop.<|im_end|>\n<|im_start|>assistant\n")
    assert model.policy.continuations == ["turn left", "go forward", "drop"]
    ratio = FirstEpochRatio()
    model.learn(32, callback=ratio)
    assert ratio.worst <= 1e-5
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    assert torch.equal(loaded.policy.action_log_probs([prompt]), model.policy.action_log_probs([prompt]))


# -- the policy before training ----------------------------------------------------------------------------------------

PHRASES = ["go", "turn left", "pick up it now", "wait here"]
LENGTHS = Continuations(tuple(PHRASES), ((1,), (2, 3), (4, 5, 6, 7), (8, 9)), (1, 2, 4, 2))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([-1.0, -1.1, -1.2, -0.9], None),
        ([-0.1, -9.0, -9.5, -9.1], r"nearly deterministic.*go 1\.000"),
        ([-0.5, -3.0, -8.0, -3.1], "by the length of its phrases"),
        ([-3.0, -3.1, -0.3, -3.0], None),  # the longest is the likeliest: that is no bias to short ones
    ],
)
def test_a_prior_that_can_not_explore_is_named(
    scores: list[float], words: str | None, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="sb3_llm"):
        report_prior(PHRASES, torch.tensor([scores, scores]).log_softmax(-1), LENGTHS)
    assert "initial action distribution over 2 probe prompts: go " in caplog.text
    told = " ".join(str(each.message) for each in recwarn.list)
    assert (told == "") if words is None else re.search(words, told)


def test_prompt_that_overflows_the_context_names_its_longest_part(gpt2_folder: Path) -> None:
    policy = make(gpt2_folder).policy
    with pytest.raises(SetupError, match=r"has \d+ tokens.*are the observation text.*at most 256 tokens"):
        policy.action_log_probs([policy._template.prompt("You see a wall " * 99)])
