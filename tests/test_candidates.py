"""Phrases that come with each observation: each is acted on as what it says, in every state."""

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.wrappers import TimeLimit
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_llm import TextObservation, TextSpace, make_env, make_vec_env
from sb3_llm.errors import SetupError
from sb3_llm.observations import phrase_reader
from tests.test_make_env import no_warnings
from tests.test_policy import Follow
from tests.test_wrappers import Corridor

TO_THE_END = ["take key", "go cellar", "open chest"]


class Cottage(gym.Env[str, str]):
    """A text game: take the key in the hall, then open the chest in the cellar. Two commands in every state."""

    observation_space = spaces.Text(60, charset=string.printable)
    action_space = spaces.Text(20, charset=string.printable + "☾")

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.room, self.key, self.opened = "hall", False, False
        return self.look()

    def look(self) -> tuple[str, dict[str, Any]]:
        hall = ["drop key" if self.key else "take key", "go cellar"]
        cellar = ["go hall", "open chest" if self.key else "wait in the dark ☾"]
        commands = [] if self.opened else hall if self.room == "hall" else cellar
        return f"You are in the {self.room}", {"commands": commands}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        assert action in self.look()[1]["commands"]
        verb, thing = action.split()[:2]
        if verb == "go":
            self.room = thing
        self.key ^= thing == "key"
        self.opened = verb == "open"
        return self.look()[0], float(self.opened), self.opened, False, self.look()[1]


def commands(obs: str, info: dict[str, Any]) -> list[str]:
    return info["commands"]


def say(obs: str) -> str:
    return f"{obs}."


def cottage(**options: Any) -> TextObservation:
    return TextObservation(Cottage(), describe=say, candidates=commands, **{"slots": 4, **options})


def ways(obs: np.int64, info: dict[str, Any]) -> dict[str, int]:
    """In a Corridor: the same words at another place in other cells."""
    return {1: {"on": 1, "back": 0}, 2: {"back": 0, "on": 1, "on, please": 1}}.get(int(obs), {"on": 1})


def corridor(**options: Any) -> TextObservation:
    return TextObservation(Corridor(), candidates=ways, **options)


gym.register("test_candidates/Cottage-v0", Cottage)


# --- the text game


def test_the_game_is_won_by_phrases_that_change() -> None:
    env = cottage(history=2)
    assert (env.action_space, env.observation_space) == (spaces.Discrete(4), TextSpace(2048, slots=4))
    observation, _ = env.reset()
    seen = []
    for command in TO_THE_END:
        assert env.phrases == tuple(env.text_space.decode_phrases(observation))
        assert env.action_masks().tolist() == [True, True, False, False]
        assert env.action_masks().dtype == np.bool_
        observation, *rest = env.step(np.int64(env.phrases.index(command)))
        seen.append((env.text_space.decode(observation), env.phrases, *rest[:3]))
    assert seen == [
        ("You are in the hall. Last actions: take key.", ("drop key", "go cellar"), 0.0, False, False),
        ("You are in the cellar. Last actions: take key, go cellar.", ("go hall", "open chest"), 0.0, False, False),
        # Nothing is possible any more, but the last observation has to travel as well.
        ("You are in the cellar. Last actions: go cellar, open chest.", ("nothing",), 1.0, True, False),
    ]
    with pytest.raises(SetupError, match=r"0 phrases.*reset\(\)"):
        env.step(0)
    assert env.text_space.decode(env.reset()[0]).endswith("Last actions: none.")
    assert env.phrases == ("take key", "go cellar")


def test_numbered_actions_are_found_by_their_words() -> None:
    env = corridor(history=1)
    env.reset()
    assert env.action_space == spaces.Discrete(64)
    for phrase, text in (("on", "Observation: 2."), ("back", "Observation: 1."), ("on", "Observation: 2.")):
        env.step(env.phrases.index(phrase))
        assert env.text == f"{text} Last action: {phrase}."
    assert env.step(env.phrases.index("on, please"))[1:3] == (1.0, True)


def test_candidates_get_observation_and_info_of_the_environment() -> None:
    seen: list[tuple[Any, dict[str, Any]]] = []

    def note(obs: Any, info: dict[str, Any]) -> dict[str, int]:
        seen.append((obs, dict(info)))
        return ways(obs, info)

    env = TextObservation(Corridor(own={"steps": 1}), candidates=note, slots=3)
    env.reset()
    env.step(0)
    assert seen == [(1, {"start": True}), (2, {"steps": 1})]


def test_reward_function_sees_the_environments_action() -> None:
    calls: list[tuple[Any, ...]] = []
    env = cottage(reward=lambda *call: calls.append(call) or 0.5)
    env.reset()
    assert env.step(1)[1] == 0.5
    state, action, next_state, info = calls[0]
    assert (state, action, next_state) == ("You are in the hall", "go cellar", "You are in the cellar")
    assert info == {"commands": ["go hall", "wait in the dark ☾"]}


def test_success_and_truncation_as_ever() -> None:
    env = cottage(sparse=True)
    env.reset()
    assert [env.step(env.phrases.index(word))[4].get("is_success") for word in TO_THE_END] == [None, None, True]
    env = TextObservation(TimeLimit(Cottage(), 2), say, candidates=commands, sparse=True)
    env.reset()
    env.step(0)
    _, _, terminated, truncated, info = env.step(1)
    assert (terminated, truncated, info["is_success"]) == (False, True, False)
    assert env.phrases == ("go hall", "open chest")  # for SB3's bootstrap at the time limit


# --- what can go wrong


@pytest.mark.parametrize("action", [2, 3, -1, np.int64(2)])
def test_an_absent_slot_raises(action: int) -> None:
    env = cottage()
    env.reset()
    with pytest.raises(SetupError) as caught:
        env.step(action)
    for part in (f"action {action} ", "2 phrases ['take key', 'go cellar']", "from 0 to 1", "action_masks()"):
        assert part in str(caught.value)
    assert env.step(1)[0] is not None


def test_before_the_first_reset_nothing_is_offered() -> None:
    with pytest.raises(SetupError, match=r"action 0 .*reset\(\)"):
        cottage().step(0)


def test_an_action_without_a_phrase_raises_where_phrases_are_fixed() -> None:
    env = TextObservation(Corridor())
    env.reset()
    for action in (-1, 2):
        with pytest.raises(SetupError, match=rf"action {action} .*2 phrases .*action_space"):
            env.step(action)


@pytest.mark.parametrize(
    ("env", "found", "parts"),
    [
        (Corridor, ["back", "on"], ["['back', 'on'] for the actions Discrete(2)", "a mapping", "{'go north': 2}"]),
        (Corridor, {}, ["{}, no phrases, where the episode goes on", "at least one", "'wait'"]),
        (Cottage, [], ["[], no phrases", "at least one"]),
        (Cottage, None, ["None (NoneType)", "a list of phrases", "return a dict or a list"]),
        (Cottage, "go", ["'go' (str)", "a list of phrases"]),
        (Cottage, {"go", "up"}, ["(set)", "a list of phrases"]),
        (Cottage, ["go", "go"], ["phrases 0 and 1 are both 'go'"]),
        (Cottage, ["go", ["up"]], ["phrase 1 is ['up']"]),
        (Cottage, {"go": 1, "": 2}, ["phrase 1 is ''"]),
        (Cottage, list("abcde"), ["5 phrases ['a', 'b', 'c'", "1 to 4 phrases", "slots="]),
        (Cottage, ["x" * 3000], ["with 1 phrases of 3020 bytes", "max_bytes=3020"]),
    ],
)
def test_bad_candidates_raise_at_reset(env: type[gym.Env[Any, Any]], found: Any, parts: list[str]) -> None:
    wrapped = TextObservation(env(), lambda obs: "You are in the hall", candidates=lambda *_: found, slots=4)
    with pytest.raises(SetupError) as caught:
        wrapped.reset()
    for part in [*parts, "To mend it: "]:
        assert part in str(caught.value)


def test_nothing_to_do_is_an_error_at_the_start_of_the_next_episode_too() -> None:
    env = TextObservation(Corridor(), candidates=lambda obs, info: {} if obs == 3 else {"on": 1}, slots=1)
    env.reset()
    assert [env.step(0)[2] for _ in range(2)] == [False, True]
    env.candidates = lambda obs, info: {}
    with pytest.raises(SetupError, match="no phrases, where the episode goes on"):
        env.reset()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"candidates": ["go"]}, "candidates=['go'] with slots=64. Expected: candidates= as a callable"),
        ({"slots": 8}, "candidates=None with slots=8"),
        ({"candidates": ways, "phrases": ["back", "on"]}, "phrases=['back', 'on'] together with candidates="),
        ({"candidates": ways, "slots": 0}, "slots=0. Expected: the most phrases that one state offers, 1 to 64"),
        ({"candidates": ways, "slots": 65}, "slots=65"),
        ({"candidates": ways, "slots": "4"}, "slots='4'"),
        ({"candidates": ways, "max_bytes": 128}, "max_bytes=128 with slots=64"),
    ],
)
def test_bad_options_raise_at_construction(options: dict[str, Any], part: str) -> None:
    with pytest.raises(SetupError) as caught:
        TextObservation(Corridor(), **options)
    assert part in str(caught.value)


# --- masks


def test_without_candidates_the_masks_are_the_environments_own() -> None:
    env, bare = TextObservation(Follow()), TextObservation(Corridor())
    env.reset()
    assert not hasattr(env, "action_masks")
    assert env.get_wrapper_attr("action_masks")() is not None
    vec_env = DummyVecEnv([lambda: env])
    assert (vec_env.env_method("action_masks")[0] == env.unwrapped.action_masks()).all()
    assert (is_masking_supported(env), is_masking_supported(bare)) == (True, False)
    assert is_masking_supported(vec_env)
    with pytest.raises(AttributeError):
        bare.get_wrapper_attr("action_masks")


def test_with_candidates_the_masks_are_of_the_slots() -> None:
    env = TextObservation(Follow(), candidates=lambda obs, info: {"drop": 2}, slots=2)
    env.reset()
    assert get_action_masks(env).tolist() == [True, False]


@pytest.mark.parametrize("vec_env", [DummyVecEnv, partial(SubprocVecEnv, start_method="fork")])
def test_masks_pass_vec_envs(vec_env: Callable[..., Any]) -> None:
    env = vec_env([cottage] * 2)
    try:
        assert is_masking_supported(env)
        env.reset()
        assert get_action_masks(env).tolist() == [[True, True, False, False]] * 2
    finally:
        env.close()


def test_maskable_ppo_and_random_play_never_take_an_absent_slot() -> None:
    MaskablePPO("MlpPolicy", Monitor(cottage()), n_steps=64, batch_size=64, n_epochs=1, device="cpu").learn(64)
    env = corridor()
    env.action_space.seed(0)
    env.reset()
    for _ in range(50):
        if any(env.step(env.action_space.sample(mask=env.action_masks().astype(np.int8)))[2:4]):
            env.reset()


# --- an environment like any other


def test_checkers_find_nothing_to_warn_about() -> None:
    # The checkers take any action, so each of the slots must hold a phrase in every state.
    with no_warnings():
        sb3_check_env(cottage(slots=2))
        env = make_env("test_candidates/Cottage-v0", describe=say, candidates=commands, slots=2, history=1)
        gymnasium_check_env(env, skip_render_check=True)


def test_an_env_made_again_from_its_spec_is_the_same() -> None:
    env = make_env("test_candidates/Cottage-v0", describe=say, candidates=commands, slots=7, max_bytes=99)
    assert env.spec is not None
    twin = gym.make(env.spec)
    assert type(twin) is TextObservation
    assert (twin.observation_space, twin.action_space) == (TextSpace(99, slots=7), spaces.Discrete(7))
    assert (twin.reset(seed=0)[0] == env.reset(seed=0)[0]).all()
    assert (twin.step(1)[0] == env.step(1)[0]).all()


def test_candidates_come_before_the_phrases_that_suit_an_environment() -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", candidates=lambda obs, info: {"look back": 0, "walk": 2}, slots=2)
    env.reset(seed=0)
    env.step(env.phrases.index("walk"))
    assert env.text.endswith("Last action: walk.")
    assert env.unwrapped.agent_pos == (2, 1)


def test_sb3_refuses_to_load_into_other_slots(tmp_path: Path) -> None:
    PPO("MlpPolicy", cottage(), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "model")
    assert PPO.load(tmp_path / "model", env=cottage(), device="cpu").observation_space.slots == 4
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        PPO.load(tmp_path / "model", env=cottage(slots=5), device="cpu")


def test_rollout_buffer_keeps_phrases_and_what_was_chosen() -> None:
    env = make_vec_env("test_candidates/Cottage-v0", 2, describe=say, candidates=commands, slots=4, history=1)
    space, n_steps = env.observation_space, 40
    buffer = RolloutBuffer(n_steps, space, env.action_space, device="cpu", n_envs=2)
    observations, rng = env.reset(), np.random.default_rng(0)
    sent: list[tuple[bytes, int]] = []
    chosen: list[list[str]] = [[], []]
    ends = 0
    for _ in range(n_steps):
        actions = rng.integers(2, size=2)
        sent += [(row.tobytes(), int(action)) for row, action in zip(observations, actions, strict=True)]
        for number, (row, action) in enumerate(zip(observations, actions, strict=True)):
            chosen[number].append(space.decode_phrases(row)[action])
        zeros = np.zeros(2)
        buffer.add(observations, actions, zeros, zeros, torch.zeros(2), torch.zeros(2))
        observations, _, dones, infos = env.step(actions)
        for number, done in enumerate(dones):
            last = infos[number]["terminal_observation"] if done else observations[number]
            assert space.decode(last).endswith(f"Last action: {chosen[number][-1]}.")
            if done:
                ends += 1
                assert space.decode_phrases(last) == ["nothing"]
                assert space.decode_phrases(observations[number]) == ["take key", "go cellar"]
    assert ends > 1
    buffer.compute_returns_and_advantage(torch.zeros(2), np.zeros(2))
    (batch,) = buffer.get()
    assert batch.observations.dtype == torch.uint8
    kept = zip(batch.observations.numpy(), batch.actions.flatten().tolist(), strict=True)
    assert sorted((row.tobytes(), int(action)) for row, action in kept) == sorted(sent)
    read = phrase_reader(space)
    assert read is not None
    assert {phrases for phrases in read(batch.observations) if "open chest" in phrases} == {("go hall", "open chest")}
