"""The SB3 contract: what acted is what is optimised, nothing else moves, and saved models come back the same."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation, make_env, make_vec_env
from sb3_llm.errors import SetupError
from sb3_llm.language_model import load_language_model

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "seed": 0}


class Follow(gym.Env[np.ndarray, int]):
    """Do as you are told: the text names the action that pays, in texts of very different lengths."""

    phrases = ("turn left", "go forward", "drop")

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 2, (2,), np.int64)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn, self.wanted = 0, self.np_random.integers(0, 3, size=2)
        return self.wanted, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, self.turn = float(action == self.wanted[0]), self.turn + 1
        self.wanted = self.np_random.integers(0, 3, size=2)
        return self.wanted, reward, False, self.turn == 8, {}

    def action_masks(self) -> np.ndarray:
        return np.arange(3) != self.wanted[1]  # a mask that never says which action pays


def say(obs: np.ndarray) -> str:
    return f"Do: {Follow.phrases[obs[0]]}." + " A wall." * int(obs[1] * 6)


def follow_env() -> gym.Env[Any, Any]:
    return Monitor(TextObservation(Follow(), describe=say, history=1))


class FirstEpochRatio(BaseCallback):
    """Before each update: log-probabilities of the whole rollout, in odd minibatches, as PPO.train computes them."""

    def __init__(self) -> None:
        super().__init__()
        self.worst = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.model.policy.set_training_mode(True)
        for batch in self.model.rollout_buffer.get(batch_size=7):
            values, log_prob, _ = self.model.policy.evaluate_actions(batch.observations, batch.actions.long())
            assert log_prob.shape == batch.old_log_prob.shape
            ratio = (log_prob - batch.old_log_prob).exp()
            self.worst = max(self.worst, (ratio - 1).abs().max().item())
            torch.testing.assert_close(values.flatten(), batch.old_values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("model", ["gpt2", "llama", "embedded"])
def test_first_epoch_ratio_is_one(
    algorithm: type[PPO] | type[A2C], model: str, gpt2_folder: Path, llama_folder: Path
) -> None:
    """GPT-2 has learned positions, padding from texts of different lengths, and dropout 0.5 in its config."""
    folder = {"gpt2": str(gpt2_folder), "llama": str(llama_folder), "embedded": "embedded"}[model]
    env = DummyVecEnv([follow_env] * 3)
    settings = SMALL if algorithm is PPO else {"n_steps": 16, "seed": 0}
    trained = algorithm(LLMPolicy, env, policy_kwargs={"model": folder}, **settings)
    ratio = FirstEpochRatio()
    trained.learn(144, callback=ratio)
    assert trained.policy.scoring_route == "packed"
    assert ratio.worst <= 1e-5


def test_learns_to_follow(llama_folder: Path) -> None:
    """A toy task with a threshold, as SB3's test_identity: a random model reads the text and learns what it says."""
    env = DummyVecEnv([follow_env] * 8)
    model = PPO(
        LLMPolicy,
        env,
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        learning_rate=2e-3,
        gamma=0.0,
        seed=0,
        policy_kwargs={"model": str(llama_folder), "normalization": "token"},
    )
    model.learn(6000)
    returns = [info["r"] for info in model.ep_info_buffer]
    assert np.mean(returns[-50:]) > 6.5, "of 8 wanted actions; random play gets 2.7"


@pytest.fixture
def trained(gpt2_folder: Path) -> PPO:
    model = PPO(LLMPolicy, DummyVecEnv([follow_env]), policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    return model.learn(32)


def probabilities(policy: LLMPolicy) -> torch.Tensor:
    with torch.no_grad():
        return policy.action_log_probs(["Do: drop.\nAction:", "Do: turn left. A wall. A wall.\nAction:"])


def test_shapes_and_dtypes(gpt2_folder: Path) -> None:
    env = DummyVecEnv([follow_env] * 3)
    for dtype in ("float32", "bfloat16", "float64"):
        policy = PPO(LLMPolicy, env, policy_kwargs={"model": str(gpt2_folder), "dtype": dtype}, **SMALL).policy
        obs = torch.as_tensor(env.reset())
        with torch.no_grad():
            actions, values, log_prob = policy(obs)
        assert (actions.shape, values.shape, log_prob.shape) == ((3,), (3, 1), (3,))
        assert values.dtype == log_prob.dtype == torch.float32
        values, log_prob, entropy = policy.evaluate_actions(obs, actions[:, None])
        assert (values.shape, log_prob.shape, entropy.shape) == ((3, 1), (3,), (3,))
        assert policy.lm.dtype == getattr(torch, dtype)


def test_public_parts(trained: PPO) -> None:
    policy = trained.policy
    assert policy.phrases == list(Follow.phrases)
    assert policy.continuations == [" turn left", " go forward", " drop"]
    prompts = policy.render(trained.env.reset())
    assert prompts[0].startswith("Do: ")
    assert prompts[0].endswith("Last action: none.\nAction:")
    scores = policy.sequence_log_probs(prompts)
    assert scores.shape == (1, 3)
    assert (scores < 0).all()
    torch.testing.assert_close(policy.action_log_probs(prompts), scores.log_softmax(-1))
    scores.sum().backward()
    assert policy.lm.get_input_embeddings().weight.grad.abs().sum() > 0


def test_base_model_is_untouched_until_trained(gpt2_folder: Path) -> None:
    """ActorCriticPolicy's orthogonal initialisation overwrites a language model that it can reach."""
    base, _ = load_language_model(str(gpt2_folder))
    model = PPO(LLMPolicy, DummyVecEnv([follow_env]), policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    before = {name: tensor.clone() for name, tensor in model.policy.lm.state_dict().items()}
    for name, tensor in base.state_dict().items():
        assert torch.equal(before[name], tensor), name
    in_optimizer = [id(p) for group in model.policy.optimizer.param_groups for p in group["params"]]
    assert sorted(in_optimizer) == sorted(id(p) for p in model.policy.parameters() if p.requires_grad)
    model.learn(32)
    moved = [name for name, tensor in model.policy.lm.state_dict().items() if not torch.equal(before[name], tensor)]
    assert set(moved) >= {name for name, _ in model.policy.lm.named_parameters()}


def test_save_and_load_in_a_new_process(trained: PPO, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.zip")
    code = (
        "import json, sys, torch; torch.set_num_threads(1)\n"
        "from stable_baselines3 import PPO\n"
        "model = PPO.load(sys.argv[1])\n"
        "prompts = ['Do: drop.\\nAction:', 'Do: turn left. A wall. A wall.\\nAction:']\n"
        "with torch.no_grad(): print(json.dumps(model.policy.action_log_probs(prompts).tolist()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.zip")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed.splitlines()[-1]) == probabilities(trained.policy).tolist()


def test_load_goes_on_training(trained: PPO, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", env=DummyVecEnv([follow_env]))
    old, new = trained.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert old["param_groups"] == new["param_groups"]
    assert all(torch.equal(old["state"][i]["exp_avg"], new["state"][i]["exp_avg"]) for i in old["state"])
    loaded.learn(32, reset_num_timesteps=False)
    assert loaded.num_timesteps == 64
    assert not torch.equal(probabilities(loaded.policy), probabilities(trained.policy))


def test_policy_save_and_load(trained: PPO, tmp_path: Path) -> None:
    trained.policy.save(tmp_path / "policy.pth")
    loaded = LLMPolicy.load(tmp_path / "policy.pth")
    assert torch.equal(probabilities(loaded), probabilities(trained.policy))
    assert loaded.phrases == trained.policy.phrases
    assert loaded.observation_space == trained.policy.observation_space


def test_a_model_refuses_other_phrases(trained: PPO, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.zip")
    other = DummyVecEnv([lambda: TextObservation(Follow(), describe=say, phrases=["a", "b", "c"])])
    with pytest.raises(ValueError, match="Action spaces do not match"):
        PPO.load(tmp_path / "model.zip", env=other)


def test_policy_kwargs_stay_readable(trained: PPO, tmp_path: Path) -> None:
    """Plain values are stored as JSON; a module among them would be pickled into every checkpoint."""
    trained.save(tmp_path / "model.zip")
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
    assert set(data["policy_kwargs"]) == {"model"}


def test_memo_follows_the_weights(trained: PPO) -> None:
    """Remembered scores must equal fresh ones after every way of changing weights."""
    policy, optimizer = trained.policy, trained.policy.optimizer

    def step() -> None:
        policy.action_log_probs(["Do: drop.\nAction:"]).square().sum().backward()
        optimizer.step()

    def in_place() -> None:
        with torch.no_grad():
            policy.lm.get_input_embeddings().weight.mul_(1.5)

    def behind_the_counters() -> None:
        policy.lm.get_input_embeddings().weight.data.mul_(0.5)

    def load() -> None:
        policy.load_state_dict({name: tensor * 0.9 for name, tensor in policy.state_dict().items()})

    def fused() -> None:
        policy.action_log_probs(["Do: drop.\nAction:"]).square().sum().backward()
        torch.optim.Adam(policy.lm.parameters(), fused=True).step()

    def polyak() -> None:
        twin = copy.deepcopy(policy.lm)
        for parameter in twin.parameters():
            parameter.data.mul_(0.9)
        polyak_update(twin.parameters(), policy.lm.parameters(), tau=0.5)

    for change in (step, in_place, behind_the_counters, load, fused, polyak):
        before = probabilities(policy)
        assert torch.equal(probabilities(policy), before)
        change()
        after = probabilities(policy)
        assert not torch.equal(after, before), change.__name__
        with torch.enable_grad():
            fresh = policy.action_log_probs(["Do: drop.\nAction:", "Do: turn left. A wall. A wall.\nAction:"])
        torch.testing.assert_close(after, fresh.detach(), atol=1e-5, rtol=1e-5)


def test_memo_spares_forward_passes_and_stays_small(trained: PPO) -> None:
    policy, rows = trained.policy, []
    policy.lm.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    probabilities(policy)
    probabilities(policy)
    assert rows == [2]
    policy._scorer.memo.max_bytes = 1
    probabilities(policy)
    assert rows == [2, 2]


def test_deepcopy_of_a_policy_is_independent(trained: PPO) -> None:
    twin = copy.deepcopy(trained.policy)
    before = probabilities(twin)
    trained.learn(32, reset_num_timesteps=False)
    assert torch.equal(probabilities(twin), before)
    assert not torch.equal(probabilities(trained.policy), before)


def test_callbacks_and_logs_of_sb3(gpt2_folder: Path, tmp_path: Path) -> None:
    eval_env = make_vec_env("sb3_llm/Maze3x3-v0", 1, seed=1)
    callbacks = [
        EvalCallback(eval_env, n_eval_episodes=1, eval_freq=16, best_model_save_path=str(tmp_path), verbose=0),
        CheckpointCallback(16, str(tmp_path), name_prefix="step"),
    ]
    env = make_vec_env("sb3_llm/Maze3x3-v0", 2, seed=0)
    log = str(tmp_path / "log")
    model = PPO(LLMPolicy, env, policy_kwargs={"model": str(gpt2_folder)}, tensorboard_log=log, **SMALL)
    model.learn(128, callback=callbacks, progress_bar=True)
    assert (tmp_path / "best_model.zip").exists()
    assert len(list(tmp_path.glob("step_*.zip"))) == 4
    assert list((tmp_path / "log").rglob("events*"))
    assert "rollout/success_rate" in model.logger.name_to_value or model.ep_success_buffer


def test_subprocess_environments(gpt2_folder: Path) -> None:
    env = make_vec_env("MiniGrid-Empty-5x5-v0", 2, seed=0, vec_env_cls=SubprocVecEnv)
    model = PPO(LLMPolicy, env, policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    model.learn(32)
    env.close()


def test_masked_actions_have_no_probability(gpt2_folder: Path) -> None:
    model = MaskablePPO(
        MaskableLLMPolicy, DummyVecEnv([follow_env] * 2), policy_kwargs={"model": str(gpt2_folder)}, **SMALL
    )
    model.learn(64)
    obs, masks = torch.as_tensor(model.env.reset()), np.array([[True, False, True], [False, True, False]])
    probs = model.policy.get_distribution(obs, masks).distribution.probs
    assert (probs[torch.as_tensor(~masks)] == 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(2))
    with pytest.raises(SetupError, match="no valid action"):
        model.policy.get_distribution(obs, np.zeros((2, 3), dtype=bool))


def test_weights_pass_from_ppo_to_maskable_ppo(trained: PPO, gpt2_folder: Path) -> None:
    masked = MaskablePPO(
        MaskableLLMPolicy, DummyVecEnv([follow_env]), policy_kwargs={"model": str(gpt2_folder)}, **SMALL
    )
    masked.set_parameters({"policy": trained.get_parameters()["policy"]}, exact_match=False)
    assert torch.equal(probabilities(masked.policy), probabilities(trained.policy))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "sb3_llm:sb3_llm/Maze-v0"])
def test_numbers_need_no_options(env_id: str) -> None:
    """SB3 makes the environment itself, and the policy tells its numbers as text."""
    model = PPO(LLMPolicy, env_id, **SMALL).learn(16)
    assert model.policy.phrases[:2] == ["action 0", "action 1"]
    action, _ = model.predict(model.env.observation_space.sample())
    assert model.action_space.contains(action)


def test_predict_on_one_observation() -> None:
    env = make_env("MiniGrid-Empty-5x5-v0")
    model = PPO(LLMPolicy, env, **SMALL)
    obs, _ = env.reset(seed=0)
    action, _ = model.predict(obs, deterministic=True)
    assert env.phrases[int(action)] in env.phrases


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["BabyAI-GoToLocal-v0", "CartPole-v1", "FrozenLake-v1"])
def test_512_steps_without_an_option(env_id: str) -> None:
    """SB3's own defaults: PPO rounds 512 up to one rollout of 2048 steps and ten epochs of it."""
    if env_id == "BabyAI-GoToLocal-v0":
        assert PPO(LLMPolicy, make_env(env_id)).learn(512).num_timesteps == 2048
    elif env_id == "CartPole-v1":
        assert PPO(LLMPolicy, env_id).learn(512).num_timesteps == 2048
    else:
        assert A2C(LLMPolicy, env_id).learn(512).num_timesteps >= 512
