"""PolicyWatch: figures that agree with plain computations, warnings on planted faults alone, training undisturbed."""

import json
import math
import pickle
import random
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from torch.distributions import kl_divergence

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation, make_vec_env
from sb3_llm.alarms import Limits, complaints
from sb3_llm.callbacks import PolicyWatch
from sb3_llm.decisions import Decisions, entropy
from sb3_llm.errors import SetupError
from sb3_llm.fluency import encode_texts, perplexity
from sb3_llm.language_model import load_language_model
from sb3_llm.probes import LABEL, labels
from tests.test_policy import Follow, follow_env, say
from tests.tiny import byte_level_tokenizer, tiny_lm

pytestmark = pytest.mark.filterwarnings(r"ignore:after \d+ steps")  # where a test is about something else

TEXTS = ["You see a red key.", "Goal: open the door. You carry a blue ball."]
ALWAYS = {"watch/entropy", "watch/entropy_share", "watch/perplexity", "watch/perplexity_base", "train/kl_to_base"}
BEFORE_AN_UPDATE = {"watch/top_action_share", "watch/first_epoch_ratio_error"}


class Paths(Follow):
    """The phrases come with each observation, two or three of them, the first one always the same."""

    def offer(self, obs: np.ndarray, info: dict[str, Any]) -> dict[str, int]:
        return {"turn left": 0, f"go to {obs[1]}": 1} | ({"drop": 2} if obs[0] else {})


class Forced(Follow):
    """Two states of three leave no choice."""

    def action_masks(self) -> np.ndarray:
        return np.arange(3) == self.wanted[1] if self.wanted[1] else np.ones(3, dtype=bool)


def forced_env() -> gym.Env[Any, Any]:
    return TextObservation(Forced(), describe=say)


def paths_env() -> gym.Env[Any, Any]:
    env = Paths()
    return TextObservation(env, describe=say, candidates=env.offer, slots=4)


def train(
    folder: Path | str,
    *callbacks: BaseCallback,
    algorithm: Any = PPO,
    steps: int = 32,
    env: Callable[[], gym.Env[Any, Any]] = follow_env,
    policy_kwargs: dict[str, Any] | None = None,
    change: Callable[[Any], None] = lambda policy: None,
    logged: Path | None = None,
    **settings: Any,
) -> Any:
    """A short training of a tiny model in two environments, 32 decisions in each rollout."""
    kind = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    own = {PPO: {"n_epochs": 2}, MaskablePPO: {"n_epochs": 2}, TRPO: {"cg_max_steps": 2, "n_critic_updates": 1}}
    chosen = {"n_steps": 16, "seed": 0, **own.get(algorithm, {}), **settings}
    if algorithm is not A2C:
        chosen = {"batch_size": 16, **chosen}
    kwargs = {"model": str(folder), **(policy_kwargs or {})}
    model = algorithm(kind, DummyVecEnv([env] * 2), policy_kwargs=kwargs, **chosen)
    change(model.policy)
    if logged is not None:
        model.set_logger(configure(str(logged), ["csv", "json", "tensorboard", "log"]))
    return model.learn(steps, callback=list(callbacks), log_interval=1)


def scale(factor: float) -> Callable[[Any], None]:
    """Tune a model by hand: another policy than the base model's."""

    def change(policy: Any) -> None:
        with torch.no_grad():
            policy.lm.get_input_embeddings().weight.mul_(factor)

    return change


def drop(policy: Any) -> None:
    """Switch on, by hand, the dropout that loading a model switches off."""
    for module in policy.lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5


class Plainly(BaseCallback):
    """The same figures at the first rollout's end, decision by decision, from SB3's distributions of two policies."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base, self.found = base, dict[str, float]()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.found:
            return
        policy, buffer = self.model.policy, self.model.rollout_buffer
        parts: dict[str, list[float]] = {"entropy": [], "most": [], "kl": []}
        actions = []
        for step, place in np.ndindex(buffer.buffer_size, buffer.n_envs):
            obs = torch.as_tensor(buffer.observations[step, place])[None]
            masks = (buffer.action_masks[step, place][None],) if hasattr(buffer, "action_masks") else ()
            with torch.no_grad():
                mine, base = (each.get_distribution(obs, *masks).distribution for each in (policy, self.base))
            phrases = policy._read_phrases(obs)[0] if policy._read_phrases else policy.phrases
            allowed = int((mine.probs > 0).sum())
            parts["entropy"].append(mine.entropy().item())
            parts["most"].append(math.log(allowed))
            parts["kl"].append(kl_divergence(*(torch.distributions.Categorical(d.probs) for d in (mine, base))).item())
            actions += [phrases[int(buffer.actions[step, place].item())]] * (allowed > 1)
        means = {name: float(np.mean(each)) for name, each in parts.items()}
        self.found = {
            "watch/entropy": means["entropy"],
            "watch/entropy_share": means["entropy"] / means["most"],
            "watch/top_action_share": Counter(actions).most_common(1)[0][1] / len(actions),
            "train/kl_to_base": means["kl"],
        }
        policy.clear_memo()


# --- figures


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (PPO, follow_env),
        (A2C, follow_env),
        (TRPO, follow_env),
        (MaskablePPO, follow_env),
        (MaskablePPO, forced_env),
        (MaskablePPO, paths_env),
    ],
)
def test_figures_agree_with_plain_ones_and_are_logged(
    algorithm: Any, env: Callable[[], gym.Env[Any, Any]], gpt2_folder: Path, tmp_path: Path
) -> None:
    """The policy differs from its base model from the start, so that no figure is trivially zero."""
    watch = PolicyWatch(every=1, probes=2, texts=TEXTS, max_kl=math.inf, max_perplexity=math.inf)
    first: dict[str, float] = {}

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            first.update(watch.values if not first else {})

    kind = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    vec_env = DummyVecEnv([env])
    base = kind(vec_env.observation_space, vec_env.action_space, lambda _: 0.0, model=str(gpt2_folder))
    plainly = Plainly(base)
    trained = train(
        gpt2_folder, watch, Keep(), plainly, algorithm=algorithm, env=env, change=scale(0.5), logged=tmp_path, steps=64
    )
    assert plainly.found["train/kl_to_base"] > 0.01
    assert {name: first[name] for name in plainly.found} == pytest.approx(plainly.found, rel=1e-4)
    assert first["watch/first_epoch_ratio_error"] <= 1e-5
    assert first["watch/perplexity_base"] == pytest.approx(
        perplexity(base.lm, encode_texts(TEXTS, base.tokenizer, base.lm))
    )
    assert first["watch/perplexity"] != pytest.approx(first["watch/perplexity_base"], rel=0.01)
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert len(rows) == 3, "two rollouts, and what the last update has done"
    assert {name: rows[0][name] for name in first} == pytest.approx(first)
    assert set(first) >= ALWAYS | BEFORE_AN_UPDATE
    assert {name: rows[-1][name] for name in watch.values} == pytest.approx(watch.values)
    assert set(watch.values) >= ALWAYS
    assert watch.values["watch/entropy"] != first["watch/entropy"]
    assert {name.split("/")[1] for name in first if name.startswith("probe/")} == {"0", "1"}
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert set(first) <= set(header)
    assert "kl_to_base" in (tmp_path / "log.txt").read_text()
    assert trained.policy.scoring_route == "packed"


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_the_ratio_is_computed_as_the_update_does(algorithm: Any, gpt2_folder: Path) -> None:
    calls: list[tuple[bool, bool, int]] = []

    def spy(policy: Any) -> None:
        evaluate = policy.evaluate_actions

        def evaluate_actions(obs: torch.Tensor, actions: torch.Tensor, **masks: Any) -> Any:
            calls.append((torch.is_grad_enabled(), policy.training, len(actions)))
            assert not policy._scorer.memo._answers
            return evaluate(obs, actions, **masks)

        policy.evaluate_actions = evaluate_actions

    train(gpt2_folder, PolicyWatch(texts=TEXTS, samples=24), algorithm=algorithm, change=spy)
    sizes = [24] if algorithm is A2C else [16, 8]
    assert calls[: len(sizes)] == [(True, True, size) for size in sizes]


def test_entropy_of_known_distributions() -> None:
    """Three decisions between three of four actions, evenly; one that is sure; one that has no choice."""
    even, none = math.log(1 / 3), -math.inf
    log_probs = torch.tensor([[even, even, even, none], [0.0, -1e4, none, none], [none, 0.0, none, none]]).double()
    counts = {("a", None, None): 3, ("b", None, None): 1, ("c", None, None): 1}
    found = entropy([Decisions(counts, Counter(), log_probs)])
    assert found["watch/entropy"] == pytest.approx(3 * math.log(3) / 5)
    assert found["watch/entropy_share"] == pytest.approx(3 * math.log(3) / (3 * math.log(3) + math.log(2)))
    alone = Decisions({("c", None, None): 7}, Counter(), log_probs[2:])
    assert entropy([alone]) == {"watch/entropy": 0.0}


def test_the_base_model_is_asked_about_some_prompts(gpt2_folder: Path) -> None:
    asked: list[int] = []

    def spy(policy: Any) -> None:
        ask_base = policy.base_log_probs
        policy.base_log_probs = lambda prompts, phrases: asked.append(len(prompts)) or ask_base(prompts, phrases)
        scale(0.5)(policy)

    watches = [PolicyWatch(texts=TEXTS, compared=most) for most in (8, 128)]
    train(gpt2_folder, *watches, change=spy)
    assert (asked[0], asked[2]) == (8, 8)
    assert 8 < asked[1] <= 32
    few, all_of_them = (watch.values["train/kl_to_base"] for watch in watches)
    assert few == pytest.approx(all_of_them, rel=0.5)
    assert few != all_of_them


def test_perplexity_is_that_of_transformers(llama_folder: Path) -> None:
    lm, tokenizer = load_language_model(str(llama_folder))
    losses, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        losses += lm(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert perplexity(lm, encode_texts(TEXTS, tokenizer, lm)) == pytest.approx(math.exp(losses / tokens), rel=1e-5)


def test_long_texts_are_cut_to_the_context() -> None:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm("gpt2", len(tokenizer), n_positions=16)
    parts = encode_texts([TEXTS[1] * 3, "A wall."], tokenizer, lm)
    assert max(map(len, parts)) == 16
    assert list(chain(*parts[:-1])) == tokenizer(TEXTS[1] * 3)["input_ids"]
    with pytest.raises(SetupError, match="two tokens or more"):
        encode_texts(["A", ""], tokenizer, lm)


def test_probes(gpt2_folder: Path, tmp_path: Path) -> None:
    given = PolicyWatch(probes=["Do: drop.\nAction:"])
    taken = PolicyWatch(probes=2)
    model = train(gpt2_folder, given, taken, logged=tmp_path)
    assert given.probes == [("Do: drop.\nAction:", None, None)]
    assert len({prompt for prompt, *_ in taken.probes}) == 2
    with torch.no_grad():
        for watch in (given, taken):
            expected = model.policy.action_log_probs([prompt for prompt, *_ in watch.probes]).exp()
            for place, row in enumerate(expected.tolist()):
                found = {phrase: watch.values[f"probe/{place}/{phrase}"] for phrase in Follow.phrases}
                assert found == pytest.approx(dict(zip(Follow.phrases, row, strict=True)), rel=1e-5)
    assert "Do: " in json.loads((tmp_path / "progress.json").read_text().splitlines()[0])["probe/0"]


def test_names_of_probes_suit_tables_and_csv() -> None:
    long = "take the golden key from the wooden "
    phrases = ["turn left", f"{long}chest", f"{long}box", "say, \"hi\"/\n'bye'", "a b", "a  b"]
    names = labels(phrases)
    assert names[0] == "turn left"
    assert len(set(names)) == len(names)
    assert not any(set(name) & set(',"/\n') or len(name) > LABEL for name in names)


def test_many_long_phrases_do_not_break_the_table(gpt2_folder: Path, tmp_path: Path) -> None:
    class Many(Follow):
        def offer(self, obs: np.ndarray, info: dict[str, Any]) -> dict[str, int]:
            return {f"take the very same golden key from the big chest number {n}": n % 3 for n in range(9)}

    def env() -> gym.Env[Any, Any]:
        return TextObservation(env := Many(), describe=say, candidates=env.offer, slots=9)

    watch = PolicyWatch(texts=TEXTS)
    train(gpt2_folder, watch, env=env, logged=tmp_path)
    assert sum(name.startswith("probe/") for name in watch.values) == 27
    assert "probe" not in (tmp_path / "log.txt").read_text()


# --- when it looks


def test_looks_as_often_as_asked(gpt2_folder: Path) -> None:
    class Count(PolicyWatch):
        def _report(self, values: dict[str, float], ended: bool = False) -> None:
            super()._report(values, ended)
            looks.append(self.num_timesteps)

    looks: list[int] = []
    train(gpt2_folder, Count(texts=TEXTS, every=2), steps=128)
    assert looks == [32, 96, 128]
    looks.clear()
    train(gpt2_folder, Count(texts=TEXTS), algorithm=A2C, n_steps=4, steps=600)  # 8 decisions in a rollout
    assert looks == [8, 520, 600]


def test_small_rollouts_count_together(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS, every=1)
    train(gpt2_folder, watch, algorithm=A2C, n_steps=5, steps=100)
    assert sum(map(len, watch._window)) == 40
    assert len(watch._window) == 4


def test_another_callback_may_have_read_the_buffer(gpt2_folder: Path) -> None:
    """RolloutBuffer.get flattens its arrays for good."""

    class Read(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            state = np.random.get_state()
            next(self.model.rollout_buffer.get(7))
            np.random.set_state(state)

    before, after = PolicyWatch(texts=TEXTS), PolicyWatch(texts=TEXTS)
    train(gpt2_folder, before, Read(), after)
    assert before.values == after.values


# --- training goes on as without it


@pytest.mark.parametrize(
    ("algorithm", "policy_kwargs"),
    [
        (PPO, {}),
        (PPO, {"dropout": True}),
        (A2C, {}),
        (MaskablePPO, {}),
        (TRPO, {}),
        (PPO, {"finetune": "top:1"}),
        (PPO, {"value_warmup": 2}),
        (A2C, {"finetune": "lora"}),
    ],
)
def test_training_is_the_same_to_the_bit(algorithm: Any, policy_kwargs: dict[str, Any], gpt2_folder: Path) -> None:
    """With dropout, a look draws random numbers."""
    change = drop if policy_kwargs == {"dropout": True} else lambda policy: None
    policy_kwargs = {} if policy_kwargs == {"dropout": True} else policy_kwargs
    after = []
    for callbacks in ((), (PolicyWatch(every=1, max_kl=math.inf),)):
        random.seed(0)
        size = {"n_steps": 8, "steps": 32} if algorithm is TRPO else {"steps": 128}
        model = train(gpt2_folder, *callbacks, algorithm=algorithm, policy_kwargs=policy_kwargs, change=change, **size)
        states = torch.random.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))
        weights = [*model.policy.lm.state_dict().values(), *model.policy.value_net.state_dict().values()]
        after.append((weights, states, random.random(), model.policy.training))
    (plain, states, drawn, mode), (watched, watched_states, watched_drawn, watched_mode) = after
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(states, watched_states, strict=True))
    assert (drawn, mode) == (watched_drawn, watched_mode)


def test_leaves_no_gradient_and_no_mode_behind(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            assert not any(module.training for module in self.model.policy.modules())
            assert all(parameter.grad is None for parameter in self.model.policy.parameters())
            assert all(parameter.grad is None for parameter in self.model.policy.base_lm().parameters())
            assert not self.model.policy._scorer.memo._answers

    model = train(gpt2_folder, watch, Look())
    assert not model.policy._scorer.memo._answers


# --- warnings

LEVELS = Limits(0.05, 0.5, 0.95, 3.0, 1.5, None)
GOOD = {
    "watch/entropy_share": 0.4,
    "watch/top_action_share": 0.95,
    "train/kl_to_base": 3.0,
    "watch/perplexity": 14.9,
    "watch/perplexity_base": 10.0,
    "watch/first_epoch_ratio_error": 1e-3,
}


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("entropy", {"watch/entropy_share": 0.049}, "entropy is 0.049 of its maximum, below the limit of 0.05"),
        ("entropy", {"watch/entropy_share": 0.19}, "entropy fell by 52% between two looks, from 0.4 to 0.19"),
        ("entropy", {"watch/entropy_share": math.nan}, "entropy is nan"),
        ("top_action", {"watch/top_action_share": 0.96}, "one action is 0.96 of all choices, above the limit of 0.95"),
        ("kl", {"train/kl_to_base": 3.1}, "3.1 nats from the base model, above the limit of 3"),
        ("kl", {"train/kl_to_base": math.inf}, "inf nats"),
        ("perplexity", {"watch/perplexity": 15.1}, "1.51 times the base model's, above the limit of 1.5"),
        ("ratio", {"watch/first_epoch_ratio_error": 2e-3}, "0.002 off 1, above the limit of 0.001"),
        ("non_finite", {"probe/0/drop": math.nan}, "probe/0/drop came out as nan"),
    ],
)
def test_levels(kind: str, change: dict[str, float], told: str) -> None:
    def judge(values: dict[str, float], dtype: torch.dtype = torch.float32) -> dict[str, str | None]:
        return dict(complaints(values, LEVELS, dtype, share_before=0.4))

    kinds = {"entropy", "top_action", "kl", "perplexity", "ratio", "non_finite"}
    assert judge(GOOD) == dict.fromkeys(kinds)
    found = judge(GOOD | change)
    assert told in (found[kind] or "")
    finite = all(map(math.isfinite, change.values()))
    assert {each for each in found if found[each]} == ({kind} if finite else {kind, "non_finite"})
    if kind == "entropy" and told.endswith("of 0.05"):
        assert dict(complaints(GOOD | change, LEVELS, torch.float32, None, share_base=0.08))["entropy"] is None
        assert dict(complaints(GOOD | change, LEVELS, torch.float32, None, share_base=0.12))["entropy"]
    if kind == "ratio":
        assert judge(GOOD | change, torch.bfloat16)["ratio"] is None


def watched(*args: Any, **settings: Any) -> dict[str, str]:
    """Train, and return the texts of PolicyWatch's warnings by kind, after checking that each was said once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(*args, **settings)
    bad: dict[str, str] = args[1].bad
    said = [str(each.message) for each in caught]
    for text in bad.values():
        assert len([each for each in said if each.startswith(text)]) == 1
    assert bool(bad) == any("Likely cause" in each for each in said)
    return bad


def test_a_healthy_run_is_not_warned_of(llama_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    policy_kwargs = {"normalization": "token"}
    assert watched(llama_folder, watch, steps=320, learning_rate=3e-4, n_steps=80, policy_kwargs=policy_kwargs) == {}
    assert watch.values["train/kl_to_base"] > 1e-4


def test_too_high_a_learning_rate_is_seen(gpt2_folder: Path) -> None:
    bad = watched(gpt2_folder, PolicyWatch(texts=TEXTS, max_kl=1.0), steps=96, learning_rate=0.1)
    assert {"entropy", "kl", "perplexity"} <= set(bad)
    for kind in ("entropy", "kl", "perplexity"):
        assert "learning rate is too high" in bad[kind]
        assert "lm_lr_scale" in bad[kind]
        assert "prior_kl=True" in bad[kind]


def test_one_action_alone_is_seen(gpt2_folder: Path) -> None:
    class Always(BaseCallback):
        """The same action wherever it was allowed, as a policy would after a collapse."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.rollout_buffer.actions[:] = 2

    watch = PolicyWatch(texts=TEXTS, max_ratio_error=math.inf)
    with pytest.warns(UserWarning, match="one action is 1 of all choices, above the limit of 0.95"):
        train(gpt2_folder, Always(), watch)


def test_dropout_is_seen(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    with pytest.warns(UserWarning, match=r"ratios of new to old probabilities are .* off 1.*dropout"):
        model = train(gpt2_folder, watch, change=drop)
    assert set(watch.bad) >= {"ratio"}
    model.policy.set_training_mode(False)
    still = perplexity(model.policy.lm, watch._token_ids)
    assert watch.values["watch/perplexity"] == pytest.approx(still), "dropout is off where it only measures"


def test_weights_changed_during_a_rollout_are_seen(gpt2_folder: Path) -> None:
    class Change(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 8:
                scale(1.1)(self.model.policy)
            return True

    bad = watched(gpt2_folder, watch := PolicyWatch(texts=TEXTS, every=1), Change())
    assert "ratio" in bad
    assert watch.stopped_by is None


def test_is_said_once_until_it_is_well_again() -> None:
    watch = PolicyWatch()
    said = []
    for wrong in ("bad", "bad", None, None, "bad"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch._complain("kl", wrong)
        said.append(len(caught))
    assert said == [1, 0, 0, 0, 1]


# --- ending training


def test_stop_ends_training_and_training_can_go_on(gpt2_folder: Path) -> None:
    watch = PolicyWatch(every=1, texts=TEXTS, max_kl=1.0, stop=["kl"])
    with pytest.warns(UserWarning, match=r"nats from the base model.*Training ends here, as stop= asks"):
        model = train(gpt2_folder, watch, steps=3200, learning_rate=0.1)
    assert watch.stopped_by == "kl"
    stopped_at = model.num_timesteps
    assert stopped_at in (66, 98), "one step into the rollout after the look"
    watch.stop = frozenset()
    model.learn(64, callback=watch, reset_num_timesteps=False)
    assert model.num_timesteps >= stopped_at + 64
    assert watch.stopped_by is None


class Broken(Follow):
    """Pays infinitely once, after the first rollout."""

    paid = 0

    def step(self, action: int) -> Any:
        Broken.paid += 1
        obs, reward, *rest = super().step(action)
        return obs, math.inf if Broken.paid == 50 else reward, *rest


def test_a_broken_reward_stops_before_it_gets_into_the_weights(gpt2_folder: Path) -> None:
    def env() -> gym.Env[Any, Any]:
        return TextObservation(Broken(), describe=say)

    Broken.paid = 0
    watch = PolicyWatch(texts=TEXTS, stop=True, min_entropy_share=0, max_entropy_fall=1, max_top_action=1)
    with pytest.warns(UserWarning, match="the rewards of a step are .*inf"):
        model = train(gpt2_folder, watch, steps=320, env=env)
    assert (watch.stopped_by, model.num_timesteps) == ("non_finite", 50)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    model.learn(64, callback=watch, reset_num_timesteps=False)
    assert (watch.stopped_by, watch.bad) == (None, {})


def test_broken_weights_at_the_end_are_told_and_not_raised(gpt2_folder: Path) -> None:
    class Break(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            scale(math.nan)(self.model.policy)

    with pytest.warns(UserWarning, match=r"the score of .* is nan.*Likely cause"):
        train(gpt2_folder, Break(), watch := PolicyWatch(texts=TEXTS))
    assert set(watch.bad) >= {"non_finite"}


# --- setup


def test_refuses_policies_without_a_language_model() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16)
    with pytest.raises(SetupError, match=r"PolicyWatch with a ActorCriticPolicy.*LLMPolicy"):
        model.learn(16, callback=PolicyWatch())
    assert model.num_timesteps == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"every": 0}, "every=0"),
        ({"samples": 1.5}, "samples=1.5"),
        ({"compared": 0}, "compared=0"),
        ({"probes": -1}, "probes=-1"),
        ({"probes": "Do: drop."}, "probes='Do: drop.'"),
        ({"probes": [("Do: drop.", [])]}, "a number from 0, or a list of prompts"),
        ({"stop": "kl"}, "stop='kl'"),
        ({"stop": ["KL"]}, "entropy, top_action, kl, perplexity, ratio, non_finite"),
        ({"max_kl": -1}, "max_kl=-1"),
        ({"max_kl": math.nan}, "max_kl=nan"),
        ({"max_perplexity": None}, "max_perplexity=None"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SetupError) as error:
        PolicyWatch(**arguments)
    assert told in str(error.value)


def test_bad_probes_and_texts_are_refused_before_training(gpt2_folder: Path) -> None:
    for env, watch in (
        (follow_env, PolicyWatch(probes=[("Do: drop.\nAction:", ["drop"])])),
        (paths_env, PolicyWatch(probes=["Do: drop.\nAction:"])),
        (follow_env, PolicyWatch(texts="A wall.")),
    ):
        with pytest.raises(SetupError):
            train(gpt2_folder, watch, env=env)


def test_without_the_base_model(gpt2_folder: Path) -> None:
    model = train(gpt2_folder, watch := PolicyWatch(texts=TEXTS, compare_to_base=False))
    assert model.policy._base is None
    assert {"watch/perplexity", "watch/entropy"} <= set(watch.values)
    assert not {"watch/perplexity_base", "train/kl_to_base"} & set(watch.values)


def test_goes_on_with_a_loaded_model(gpt2_folder: Path, tmp_path: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    model = train(gpt2_folder, watch)
    model.save(tmp_path / "model.zip")
    again: PolicyWatch = pickle.loads(pickle.dumps(watch))
    assert (again.probes, again.values, again.limits) == (watch.probes, watch.values, watch.limits)
    loaded: BaseAlgorithm = PPO.load(tmp_path / "model.zip", env=DummyVecEnv([follow_env] * 2))
    loaded.learn(32, callback=again, reset_num_timesteps=False)
    assert again.num_timesteps == 64
    assert again.probes == watch.probes
    assert again.values["train/kl_to_base"] > watch.values["train/kl_to_base"] / 10, "base is the first model, not this"


def test_embedded_model_and_numbers() -> None:
    """Its own stories; plain numbers as observations."""
    env = make_vec_env("sb3_llm/Maze3x3-v0", 2, seed=0)
    PPO(LLMPolicy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0).learn(32, callback=(watch := PolicyWatch()))
    assert 1 < watch.values["watch/perplexity_base"] < 2
    assert watch.values["watch/perplexity"] == pytest.approx(watch.values["watch/perplexity_base"], rel=0.1)
    assert "entropy" not in watch.bad, "low from the start: the base model is sure of small mazes"
    numbers = PolicyWatch(probes=1)
    PPO(LLMPolicy, "FrozenLake-v1", n_steps=16, batch_size=16, n_epochs=1, seed=0).learn(16, callback=numbers)
    assert numbers.values["probe/0/action 0"] > 0


def test_environments_in_other_processes(gpt2_folder: Path) -> None:
    env = SubprocVecEnv([follow_env] * 2, start_method="fork")  # the default imports torch anew
    model = PPO(LLMPolicy, env, n_steps=16, batch_size=16, n_epochs=1, policy_kwargs={"model": str(gpt2_folder)})
    model.learn(32, callback=(watch := PolicyWatch(texts=TEXTS)))
    env.close()
    assert set(watch.values) >= ALWAYS
    assert "ratio" not in watch.bad


def test_dict_observations(gpt2_folder: Path) -> None:
    class Two(Follow):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 2, (2,), np.int64)})

        def reset(self, **options: Any) -> Any:
            obs, info = super().reset(**options)
            return {"a": int(obs[0]), "b": obs}, info

        def step(self, action: int) -> Any:
            obs, *rest = super().step(action)
            return {"a": int(obs[0]), "b": obs}, *rest

    trained = PPO(
        LLMPolicy, DummyVecEnv([Two] * 2), n_steps=16, batch_size=16, policy_kwargs={"model": str(gpt2_folder)}
    )
    trained.learn(32, callback=(watch := PolicyWatch(texts=TEXTS)))
    assert "ratio" not in watch.bad
    assert set(watch.values) >= ALWAYS
