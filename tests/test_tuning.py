"""Learning rates by group, warm-up, KL to the base model, checkpoints of another base, export, wrong algorithms."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from sb3_contrib import ARS, QRDQN, TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from transformers import AutoModelForCausalLM

from sb3_llm import LLMPolicy, MaskableLLMPolicy, export
from sb3_llm.base import kl_divergence
from sb3_llm.errors import SetupError
from sb3_llm.finetune import read_tuning
from tests.test_policy import SMALL, follow_env
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm

PROMPTS = ["Do: drop.\nAction:", "Do: turn left. A wall.\nAction:"]


def make(folder: Path, algorithm: Any = PPO, policy: Any = LLMPolicy, settings: Any = SMALL, **options: Any) -> Any:
    env = DummyVecEnv([follow_env] * 2)
    return algorithm(policy, env, policy_kwargs={"model": str(folder), **options}, **settings)


def snapshot(module: torch.nn.Module) -> list[torch.Tensor]:
    return [each.detach().clone() for each in module.parameters()]


def moved(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(each, old) for each, old in zip(module.parameters(), before, strict=True))


# -- learning rates ----------------------------------------------------------------------------------------------------


class Rates(BaseCallback):
    """What the optimizer's groups hold between steps, and what they held within one."""

    def __init__(self) -> None:
        super().__init__()
        self.within: list[list[float]] = []

    def _on_training_start(self) -> None:
        self.model.policy.optimizer.register_step_pre_hook(
            lambda optimizer, args, kwargs: self.within.append([group["lr"] for group in optimizer.param_groups])
        )

    def _on_step(self) -> bool:
        return True


def test_each_group_has_its_rate_also_after_loading(llama_folder: Path, tmp_path: Path) -> None:
    model = make(llama_folder, settings={**SMALL, "learning_rate": lambda left: 1e-3 * (1 + left)}, lm_lr_scale=0.1)
    model.learn(64, callback=(rates := Rates()))
    assert rates.within[0] == pytest.approx([1.5e-4, 1.5e-3])
    assert rates.within[-1] == pytest.approx([1e-4, 1e-3]), "SB3's schedule goes on working"
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", env=model.env)
    loaded.learn(64, callback=(rates := Rates()))
    assert rates.within[0] == pytest.approx([1.5e-4, 1.5e-3])
    assert {group["lr"] for group in loaded.policy.optimizer.param_groups} == {1e-3}, "given back after each step"


def test_a_step_is_scaled(llama_folder: Path) -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    model = make(llama_folder, settings={**SMALL, "learning_rate": 1e-3}, lm_lr_scale=0.01)
    twin = copy.deepcopy(model.policy)  # torch drops the hooks of a copied optimizer
    for policy in (model.policy, twin):
        before = snapshot(policy.lm)
        for each in policy.parameters():
            each.grad = torch.ones_like(each)
        policy.optimizer.step()
        step = max((each - old).abs().max().item() for each, old in zip(policy.lm.parameters(), before, strict=True))
        assert step == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_in_the_warm_up_only_the_value_head_moves(llama_folder: Path, algorithm: Any) -> None:
    settings = {"n_steps": 16, "seed": 0} if algorithm is A2C else SMALL
    policy = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    model = make(llama_folder, algorithm, policy, settings, value_warmup=2)
    for update in (1, 2, 3):
        lm, value = snapshot(model.policy.lm), snapshot(model.policy.value_net)
        model.learn(32, reset_num_timesteps=False)
        assert moved(model.policy.value_net, value)
        assert moved(model.policy.lm, lm) == (update == 3), f"update {update}"


def test_the_warm_up_counts_on_after_loading(llama_folder: Path, tmp_path: Path) -> None:
    model = make(llama_folder, value_warmup=2).learn(32)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", env=model.env)
    lm = snapshot(loaded.policy.lm)
    loaded.learn(32, reset_num_timesteps=False)
    assert not moved(loaded.policy.lm, lm)
    loaded.learn(32, reset_num_timesteps=False)
    assert moved(loaded.policy.lm, lm)


def test_the_value_gradient_stops_at_the_trunk(llama_folder: Path) -> None:
    for stop in (False, True):
        policy = make(llama_folder, stop_value_gradient=stop).policy
        torch.nn.init.ones_(policy.value_net[-1].weight)  # zero at first, when nothing flows below it anyway
        values = policy.predict_values(torch.as_tensor(make(llama_folder).env.reset()))
        values.sum().backward()
        assert (policy.lm.get_input_embeddings().weight.grad is None) == stop
        assert all(each.grad is not None for each in policy.value_net.parameters())


def test_a_gradient_that_is_not_finite_stops_before_the_step(llama_folder: Path) -> None:
    model = make(llama_folder).learn(32)
    before = snapshot(model.policy)
    for each in model.policy.parameters():
        each.grad = torch.full_like(each, float("nan"))
    model.policy.set_training_mode(True)
    with pytest.raises(FloatingPointError, match="update 2: the gradient is NaN"):
        model.policy.optimizer.step()
    assert not moved(model.policy, before)


# -- the base model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetune", ["full", "lora", "top:1", "head"])
def test_the_base_model_stays_as_it_was(llama_folder: Path, finetune: str) -> None:
    model = make(llama_folder, settings={**SMALL, "learning_rate": 1e-2}, finetune=finetune)
    before = model.policy.action_log_probs(PROMPTS).detach()
    model.learn(64)
    torch.testing.assert_close(model.policy.base_log_probs(PROMPTS), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.policy.action_log_probs(PROMPTS), before, atol=1e-3)
    storages = {each.data_ptr() for each in model.policy.lm.parameters() if not each.requires_grad}
    shared = {each.data_ptr() for each in model.policy.base_lm().parameters()} & storages
    assert bool(shared) == (finetune != "full")


def test_each_prompt_is_scored_by_the_base_model_once(llama_folder: Path) -> None:
    model = make(llama_folder, prior_kl=True)
    passes: list[int] = []
    model.policy.base_lm().register_forward_hook(lambda *_: passes.append(1))
    obs = torch.as_tensor(model.env.reset())
    for _ in range(3):
        model.policy.set_training_mode(True)
        model.policy.evaluate_actions(obs, torch.zeros(2, dtype=torch.long))
    assert len(passes) <= 2


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_prior_kl_is_the_entropy_bonus(llama_folder: Path, algorithm: Any) -> None:
    policy_class = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    model = make(llama_folder, algorithm, policy_class, {**SMALL, "learning_rate": 1e-2}, prior_kl=True).learn(32)
    obs = torch.as_tensor(model.env.reset())
    masks = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool() if algorithm is MaskablePPO else None
    named = {} if masks is None else {"action_masks": masks}
    _, _, bonus = model.policy.evaluate_actions(obs, torch.ones(2, dtype=torch.long), **named)
    prompts = model.policy.render(obs)
    mine, base = model.policy.action_log_probs(prompts), model.policy.base_log_probs(prompts)
    if masks is not None:
        mine, base = (each.masked_fill(~masks, -torch.inf).log_softmax(-1) for each in (mine, base))
    kl = torch.where(mine.exp() > 0, mine.exp() * (mine - base), 0.0).sum(-1)
    torch.testing.assert_close(-bonus, kl, atol=1e-5, rtol=1e-4)
    assert (kl > 1e-4).all()
    bonus.sum().backward()
    assert all(each.grad.isfinite().all() for each in model.policy.parameters() if each.grad is not None)


def test_kl_where_an_action_can_not_be_and_where_the_base_model_never_would() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    impossible = torch.tensor([[False, False, True], [False, False, False]])
    mine = logits.masked_fill(impossible, -torch.inf).log_softmax(-1)
    base = torch.tensor([[0.0, 0.0, -torch.inf], [-200.0, -200.0, 0.0]]).log_softmax(-1)
    kl = kl_divergence(mine, base)
    share = torch.tensor([1.0, 2.0]).softmax(-1)
    assert kl[0].item() == pytest.approx((share * (2 * share).log()).sum().item(), rel=1e-5)
    assert kl[1].item() == pytest.approx(400 / 3 - torch.tensor(3.0).log().item(), rel=1e-5), "0 in float32, and not 0"
    kl.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_prior_kl_holds_the_policy_near_the_base_model(llama_folder: Path) -> None:
    """With a heavy weight and the same seed, the policy ends nearer to where it began."""
    ends = []
    for prior_kl in (False, True):
        settings = {**SMALL, "learning_rate": 3e-3, "ent_coef": 1.0}
        model = make(llama_folder, settings=settings, prior_kl=prior_kl).learn(256)
        mine, base = model.policy.action_log_probs(PROMPTS), model.policy.base_log_probs(PROMPTS)
        ends.append((mine.exp() * (mine - base)).sum(-1).mean().item())
    assert ends[1] < ends[0] / 2


@pytest.mark.parametrize(("option", "value"), [("prior_kl", True), ("value_warmup", 1), ("micro_batch", 4)])
def test_what_trpo_has_no_place_for(llama_folder: Path, option: str, value: Any) -> None:
    model = make(llama_folder, TRPO, settings={"n_steps": 8, "batch_size": 16}, **{option: value})
    before = snapshot(model.policy)
    with pytest.raises(SetupError, match=rf"{option}={value}.* with TRPO"):
        model.learn(16)
    assert not moved(model.policy, before)


def test_trpo_moves_attention_that_is_called_value(tmp_path: Path) -> None:
    """GPT-NeoX's query_key_value: SB3-Contrib leaves names with "value" to the critic, outside of the constraint."""
    from transformers import GPTNeoXConfig

    tokenizer = byte_level_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = GPTNeoXConfig(vocab_size=len(tokenizer) + 8, max_position_embeddings=256, **sizes)
    folder = save_language_model(tmp_path / "neox", AutoModelForCausalLM.from_config(config), tokenizer)
    model = make(Path(folder), TRPO, settings={"n_steps": 16, "batch_size": 32, "seed": 0, "n_critic_updates": 1})
    names = [name for name, _ in model.policy.named_parameters()]
    attention = model.policy.lm.gpt_neox.layers[0].attention.query_key_value.weight
    before, step = attention.detach().clone(), []
    model.policy.optimizer.register_step_pre_hook(lambda *_: step.append(attention.grad))
    model.learn(32)
    assert any("query_key_val." in name for name in names)
    assert not torch.equal(attention, before)
    assert all(gradient is None for gradient in step), "the critic's loss has no say in it"


# -- checkpoints and export --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetune", ["full", "lora", "head"])
def test_a_checkpoint_of_another_base_model_names_both(llama_folder: Path, tmp_path: Path, finetune: str) -> None:
    tokenizer = byte_level_tokenizer(bos=True)
    other = save_language_model(tmp_path / "other", tiny_lm("llama", len(tokenizer), torch.float32, seed=1), tokenizer)
    model, stranger = (make(Path(folder), finetune=finetune) for folder in (str(llama_folder), other))
    before = snapshot(model.policy)
    with pytest.raises(SetupError) as caught:
        model.set_parameters(stranger.get_parameters())
    assert str(llama_folder) in str(caught.value)
    assert other in str(caught.value)
    assert not moved(model.policy, before)


def test_a_checkpoint_of_another_mode_names_both(llama_folder: Path) -> None:
    lora, top = make(llama_folder, finetune="lora"), make(llama_folder, finetune="top:1")
    with pytest.raises(SetupError, match=r"finetune='lora', for a policy of finetune='top:1'"):
        top.set_parameters(lora.get_parameters())


def test_weights_of_another_shape_are_refused(llama_folder: Path) -> None:
    policy = make(llama_folder).policy
    state = policy.state_dict()
    state.pop("value_net.0.bias")
    with pytest.raises(SetupError, match="lack 1 tensors"):
        policy.load_state_dict(state)


@pytest.mark.parametrize("finetune", ["full", "lora", "top:1", "head"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_export_is_a_plain_model_that_scores_the_same(
    kind: str, finetune: str, llama_folder: Path, gpt2_folder: Path, tmp_path: Path
) -> None:
    folder = llama_folder if kind == "llama" else gpt2_folder
    model = make(folder, settings={**SMALL, "learning_rate": 1e-2}, finetune=finetune).learn(64)
    mine = model.policy.action_log_probs(PROMPTS)
    exported = export(model, tmp_path / "exported")
    lm = AutoModelForCausalLM.from_pretrained(exported)
    assert not any("lora" in name for name, _ in lm.named_parameters())
    again = make(exported).policy.action_log_probs(PROMPTS)
    torch.testing.assert_close(mine, again, atol=1e-4, rtol=1e-4)
    assert torch.equal(mine, model.policy.action_log_probs(PROMPTS)), "the policy itself is left as it was"
    assert {path.suffix for path in exported.iterdir()} <= {".safetensors", ".json", ".jinja", ".txt"}


def test_export_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="whose policy is a ActorCriticPolicy"):
        export(PPO("MlpPolicy", "CartPole-v1"), tmp_path)


# -- modes and algorithms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetune", ["top:1", "head"])
def test_frozen_layers_are_kept_and_not_computed_again(llama_folder: Path, finetune: str) -> None:
    policy = make(llama_folder, finetune=finetune).policy
    assert policy._scorer.scorer.frozen is not None
    obs = torch.as_tensor(make(llama_folder).env.reset())
    policy.evaluate_actions(obs, torch.zeros(2, dtype=torch.long))
    computed: list[int] = []
    policy.lm.model.layers[0].self_attn.register_forward_hook(lambda *_: computed.append(1))
    policy.set_training_mode(True)
    policy.evaluate_actions(obs, torch.zeros(2, dtype=torch.long))
    assert computed == []


def test_what_trains_is_told(llama_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sb3_llm"):
        policy = make(llama_folder, finetune={"mode": "lora", "rank": 2, "target_modules": ["q_proj"]}).policy
    adapters = 2 * 2 * (32 + 32)  # two layers, rank 2, from 32 to 32
    assert f"trains language model {adapters} of " in policy.what_trains()
    assert policy.what_trains() in caplog.text
    assert {group["name"]: len(group["params"]) for group in policy.optimizer.param_groups} == {
        "language model": 4,
        "value head": 4,
    }


@pytest.mark.parametrize(
    ("finetune", "words"),
    [
        ("lorra", '"lora" for low-rank adapters'),
        ({"mode": "lora", "rnk": 4}, "rank"),
        ({"mode": "lora", "rank": 0}, "1 or more"),
        ({"mode": "lora", "target_modules": []}, "target_modules"),
        ({"mode": "lora", "target_modules": ["q_prj"]}, "among .*q_proj"),
        ({"mode": "head", "rank": 4}, '"head" for the output head'),
        (["lora"], '"full" for the whole model'),
    ],
)
def test_unknown_modes(llama_folder: Path, finetune: Any, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        make(llama_folder, finetune=finetune)


def test_lora_by_default_doubles_its_rank() -> None:
    assert read_tuning({"mode": "lora", "rank": 4}).alpha == 8
    assert read_tuning("lora").rank == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lm_lr_scale": -1}, "0 or more"),
        ({"value_warmup": 1.5}, "number of updates"),
        ({"prior_kl": "yes"}, "True or False"),
        ({"lm_lr_scal": 0.1}, "write 'lm_lr_scale'"),
        ({"net_arch": [64]}, "take it out of policy_kwargs"),
    ],
)
def test_bad_keywords(llama_folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        make(llama_folder, **options)


@pytest.mark.parametrize("algorithm", [RecurrentPPO, DQN, QRDQN, ARS])
def test_algorithms_that_can_not_train_it(llama_folder: Path, algorithm: Any) -> None:
    with pytest.raises(SetupError, match=r"use PPO|Use PPO") as caught:
        algorithm(LLMPolicy, follow_env(), policy_kwargs={"model": str(llama_folder)})
    assert algorithm.__name__ in str(caught.value)


def test_masks_need_maskable_ppo(llama_folder: Path) -> None:
    with pytest.raises(SetupError, match="MaskablePPO"):
        make(llama_folder, PPO, MaskableLLMPolicy)


def test_bfloat16_adapters_are_float32(llama_folder: Path) -> None:
    model = make(llama_folder, dtype="bfloat16", finetune="lora")
    assert {each.dtype for each in model.policy.parameters()} == {torch.float32}
    with pytest.warns(UserWarning, match="lost in rounding"):
        make(llama_folder, dtype="bfloat16")


def test_full_tuning_in_bfloat16_is_half_the_bytes(llama_folder: Path, tmp_path: Path) -> None:
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        model = make(llama_folder, dtype=dtype)
        sizes[dtype] = sum(tensor.nbytes for name, tensor in model.policy.state_dict().items() if name[:3] == "lm.")
    assert sizes["bfloat16"] == sizes["float32"] / 2
