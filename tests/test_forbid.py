"""Forbidden phrases: probability exactly 0 whoever asks, whatever the text says; and how often they were wanted."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, SafetyLog, TextObservation, make_env, make_vec_env
from sb3_llm.errors import SetupError
from sb3_llm.forbid import Rules
from sb3_llm.instruct.playing import Speaker

PHRASES = ["go", "open", "drop it"]
ALGORITHMS = {"ppo": PPO, "a2c": A2C, "trpo": TRPO, "maskable": MaskablePPO}


class Words(gym.Env[Any, Any]):
    """Says one of some texts at random; every action is worth as much as its number."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(len(PHRASES))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 8
        return int(self.np_random.integers(3)), {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return int(self.np_random.integers(3)), float(action), self.left == 0, False, {}

    def action_masks(self) -> Any:
        return np.ones(len(PHRASES), bool)


TEXTS = ["A door.", "Lava ahead.", "Nothing."]


def worlds(**options: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: TextObservation(Words(), describe=TEXTS.__getitem__, phrases=PHRASES, **options)] * 4)


# --- rules


@pytest.mark.parametrize(
    ("rule", "text", "left"),
    [
        ("drop it", "A door.", [True, True, False]),
        ("DROP.*", "A door.", [True, True, False]),
        ("drop", "A door.", None),  # of no phrase the whole
        ({"phrase": "go|open", "when": "lava"}, "Lava ahead.", [False, False, True]),
        ({"phrase": "go|open", "when": "lava"}, "A door.", [True, True, True]),
        ({"phrase": "go", "when": r"^lava\b"}, "No lava.", [True, True, True]),
        ({"phrase": "go", "when": "lava"}, "La\u200bva ahead.", [False, True, True]),  # with a blank of no width
        ({"phrase": "go", "when": "lava"}, "\uff2c\uff41\uff56\uff41", [False, True, True]),  # in full-width letters
        ({"phrase": "go", "when": "lava"}, "l\x07ava é", [False, True, True]),
        ({"phrase": "go", "when": None}, "A door.", [False, True, True]),
    ],
)
def test_what_a_rule_leaves(rule: Any, text: str, left: list[bool] | None) -> None:
    if left is None:
        with pytest.raises(SetupError, match="a phrase, or a pattern, of"):
            Rules([rule], PHRASES)
    else:
        assert Rules([rule], PHRASES).may([text], [PHRASES]) == [left]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("drop it", ["forbid='drop it'", "a list of phrases", 'forbid=["drop"']),
        (["("], ["'(' in forbid", "regular expressions"]),
        ([3], ["forbid=[3]", "a list of phrases"]),
        ([{"when": "lava"}], ["forbid=[{'when': 'lava'}]"]),
        ([{"phrase": "go", "if": "lava"}], ["'if'"]),
        ([{"phrase": ["go"]}], ["['go'] in forbid"]),
        (["opne"], ["forbid='opne'", "['go', 'open', 'drop it']", "spelling"]),
        ([".*"], ["forbid= of all phrases", "one that is allowed"]),
    ],
)
def test_bad_rules_are_told_before_training(given: Any, parts: list[str], llama_folder: Path) -> None:
    with pytest.raises(SetupError) as caught:
        PPO(LLMPolicy, worlds(), policy_kwargs={"model": str(llama_folder), "forbid": given})
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_state_in_which_nothing_is_left_is_told(llama_folder: Path) -> None:
    rules = [{"phrase": ".*", "when": "lava"}]
    model = PPO(LLMPolicy, worlds(), policy_kwargs={"model": str(llama_folder), "forbid": rules})
    with pytest.raises(SetupError, match=r"'Lava ahead\.', in which forbid= leaves none"):
        model.policy.action_log_probs(model.policy.render(model.env.envs[0].text_space.encode("Lava ahead.")[None]))  # type: ignore[union-attr]


# --- the guarantee


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_never_in_training_nor_after(algorithm: str, llama_folder: Path, tmp_path: Path) -> None:
    """The forbidden phrase pays most, so that every update wants it more; and the rule travels with the zip."""
    rules: list[Any] = ["drop it", {"phrase": "open", "when": "lava"}]
    kind = MaskableLLMPolicy if algorithm == "maskable" else LLMPolicy
    kwargs = {"model": str(llama_folder), "forbid": rules, "normalization": "token"}
    model: Any = ALGORITHMS[algorithm](kind, worlds(), n_steps=32, policy_kwargs=kwargs, learning_rate=1e-3, seed=0)
    taken: list[tuple[str, int]] = []

    def note(local: dict[str, Any], _: Any) -> bool:
        space = model.observation_space
        obs = local["self"]._last_obs
        taken.extend((space.decode(row), int(act)) for row, act in zip(obs, local["actions"], strict=True))
        return True

    model.learn(512, callback=note)
    assert len(taken) == 512
    seen = {"Lava ahead.": {0}, "A door.": {0, 1}, "Nothing.": {0, 1}}
    assert {text: {act for said, act in taken if said == text} for text in TEXTS} == seen
    model.save(tmp_path / "model")
    again: Any = ALGORITHMS[algorithm].load(tmp_path / "model", env=model.env)
    obs = np.stack([model.observation_space.encode(text) for text in TEXTS])
    probabilities = again.policy.action_log_probs(again.policy.render(obs)).exp()
    assert (probabilities[:, 2] == 0).all()
    assert probabilities[1].tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(again.policy.get_distribution(torch.as_tensor(obs)).distribution.probs[:, 2], torch.zeros(3))
    for greedy in (False, True):
        actions = np.concatenate([again.predict(obs, deterministic=greedy)[0] for _ in range(50)])
        assert 2 not in actions


def test_ten_thousand_sampled_steps(llama_folder: Path) -> None:
    """Even where the model is surest of what is forbidden."""
    kwargs = {"model": str(llama_folder), "forbid": ["go"], "temperature": 0.01}  # its likeliest phrase
    model = PPO(LLMPolicy, worlds(), policy_kwargs=kwargs, seed=0)
    obs = np.stack([model.observation_space.encode(TEXTS[place % 3]) for place in range(500)])  # type: ignore[attr-defined]
    counts = np.bincount(np.concatenate([model.predict(obs)[0] for _ in range(20)]), minlength=3)
    assert counts.sum() == 10_000
    assert counts[0] == 0


def test_the_first_ratio_is_one_and_gradients_are_finite(llama_folder: Path) -> None:
    kwargs = {"model": str(llama_folder), "forbid": ["drop it"], "prior_kl": True}
    model = PPO(LLMPolicy, worlds(), n_steps=16, batch_size=64, policy_kwargs=kwargs, seed=0)
    obs = torch.as_tensor(model.env.reset())  # type: ignore[union-attr, arg-type]
    policy: Any = model.policy
    with torch.no_grad():
        actions, _, acted = policy.forward(obs)
    policy.set_training_mode(True)
    _, asked, bonus = policy.evaluate_actions(obs, actions)
    assert torch.allclose(asked, acted, atol=1e-6)
    (asked.sum() + bonus.sum()).backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)


def test_rules_for_phrases_that_come_with_each_observation(llama_folder: Path) -> None:
    offers = {0: ["take lamp", "go"], 1: ["take lamp", "wait", "take sword"], 2: ["go"]}

    def make() -> TextObservation:
        offered: Any = lambda obs, info: {phrase: 0 for phrase in offers[obs]}  # noqa: E731
        return TextObservation(Words(), describe=TEXTS.__getitem__, candidates=offered, slots=4)

    kwargs = {"model": str(llama_folder), "forbid": [{"phrase": "take .*"}]}
    model = PPO(LLMPolicy, DummyVecEnv([make] * 2), n_steps=16, batch_size=8, policy_kwargs=kwargs, seed=0)
    model.learn(64)
    space: Any = model.observation_space
    obs = np.stack([space.encode(TEXTS[place], offers[place]) for place in range(3)])
    policy: Any = model.policy
    probabilities = policy.action_log_probs(policy.render(obs), policy.offered(obs)).exp()
    assert (probabilities > 0).tolist() == [
        [False, True, False, False],
        [False, True, False, False],
        [True] + 3 * [False],
    ]
    assert policy.allowed(obs) == [[False, True], [False, True, False], [True]]


def test_masks_and_rules_together(llama_folder: Path) -> None:
    kwargs = {"model": str(llama_folder), "forbid": ["drop it"]}
    model = MaskablePPO(MaskableLLMPolicy, worlds(), policy_kwargs=kwargs, seed=0)
    obs = np.stack([model.observation_space.encode(TEXTS[0])] * 200)  # type: ignore[attr-defined]
    masks = np.tile([False, True, True], (200, 1))
    assert set(model.predict(obs, action_masks=masks)[0].tolist()) == {1}
    with pytest.raises(SetupError, match=r"no valid action.*forbid less"):
        model.predict(obs, action_masks=np.tile([False, False, True], (200, 1)))


# --- what is written


@pytest.fixture(scope="module")
def careful() -> Any:
    kwargs = {"forbid": ["open", {"phrase": "go forward", "when": "Carrying|carrying a"}]}
    return PPO(LLMPolicy, make_vec_env("MiniGrid-DoorKey-5x5-v0", 2, seed=0), policy_kwargs=kwargs).policy


@pytest.mark.parametrize("constrained", [False, True])
def test_what_is_written_keeps_the_rules(careful: Any, constrained: bool) -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0")
    speaker, obs, found = Speaker(careful, constrained), env.reset(seed=3)[0], set()
    opening = env.phrases.index("open")
    for _ in range(40):
        action = int(speaker.predict(obs[None])[0][0])
        found.add(action)
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            obs = env.reset()[0]
    assert opening not in found
    assert len(found) > 1
    if not constrained:
        assert speaker.understood["forbidden"] > 0  # it does want to open the door


@pytest.mark.parametrize("constrained", [False, True])
def test_what_is_written_keeps_the_masks(careful: Any, constrained: bool) -> None:
    env = make_vec_env("MiniGrid-DoorKey-5x5-v0", 8, seed=0)
    obs, masks = env.reset(), np.tile([False, True, False, True, False, False], (8, 1))
    assert careful.allowed(obs, masks) == [[False, True, False, True, False, False]] * 8
    for _ in range(5):
        found = careful.instruct(obs, constrained=constrained, action_masks=masks)
        assert {each.action for each in found} <= {1, 3} | (set() if constrained else {None})
        assert all(set(each.plan) <= {1, 3} for each in found)
    speaker = Speaker(careful, constrained)
    assert set(speaker.predict(obs, action_masks=masks)[0].tolist()) <= {1, 3}


def test_an_explanation_where_a_clause_lifts_or_brings_a_rule(llama_folder: Path) -> None:
    rules: list[Any] = [{"phrase": "open", "when": r"^(?!.*calm)"}]  # where the text says no calm
    model = PPO(LLMPolicy, worlds(), policy_kwargs={"model": str(llama_folder), "forbid": rules}, seed=0)
    policy: Any = model.policy
    (why,) = policy.explain(["A door, calm. Nothing."], actions=[1], attribution=("deletion",))
    scores = {part.text.strip(): part.score for part in why.clauses}
    assert all(np.isfinite(score) for score in scores.values())
    assert max(scores, key=scores.__getitem__) == "calm."
    with pytest.raises(SetupError, match=r"action 1, 'open', which forbid= or the action mask forbids here"):
        policy.explain(["A door."], actions=[1])


def test_explanations_say_zero(careful: Any) -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0")
    why = careful.explain(env.reset(seed=0)[0][None])[0]
    by_text = {phrase.text: phrase.probability for phrase in why.phrases}
    assert by_text["open"] == 0.0
    assert sum(by_text.values()) == pytest.approx(1.0)


# --- the count


def test_wanting_is_counted_and_logged(llama_folder: Path) -> None:
    rules: list[Any] = [{"phrase": "go", "when": "lava"}]
    model = PPO(LLMPolicy, worlds(), n_steps=16, policy_kwargs={"model": str(llama_folder), "forbid": rules}, seed=0)
    policy: Any = model.policy
    free = PPO(LLMPolicy, worlds(), policy_kwargs={"model": str(llama_folder)}, seed=0).policy
    obs = torch.as_tensor(np.stack([model.observation_space.encode(text) for text in TEXTS]))  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = free.action_log_probs(free.render(obs)).exp()  # type: ignore[operator, union-attr]
        policy.forward(obs)
    counted = policy.wanting
    assert (counted.decisions, counted.restricted) == (3, 1)
    assert counted.probability == pytest.approx(expected[1, 0].item(), abs=1e-6)
    assert counted.wanted == int(expected[1].argmax() == 0)
    logged: dict[str, float] = {}

    class Spy(SafetyLog):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            logged.update(self.logger.name_to_value)

    model.learn(64, callback=Spy())
    assert logged["safety/forbidden_probability"] == pytest.approx(
        (counted.probability - expected[1, 0].item()) / 64, abs=1e-5
    )
    assert logged["safety/forbidden_wanted"] == (counted.wanted - int(expected[1].argmax() == 0)) / 64
    assert copy.deepcopy(model.policy).wanting.decisions == counted.decisions
