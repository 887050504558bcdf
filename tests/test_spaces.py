"""Text and phrases through Stable-Baselines3: byte-exact, in every copy, and errors that quote what was given."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_llm.errors import SetupError
from sb3_llm.make import make_env, make_vec_env
from sb3_llm.spaces import DEFAULT_MAX_BYTES, PhraseSpace, TextSpace, check_phrases

LIMIT = 32  # bytes, of the small spaces below
TEXTS = [
    "",
    "Goal: open the red door. Facing east.",
    "向前走!然后左转",
    "\U0001f5dd\ufe0f 🚪 \U0001f469\u200d\U0001f467",  # a variation selector, and a zero-width joiner
    "e\u0301 a\u030a",  # combining marks must not be composed
    "\u00e9 \u00e5",
    "  blanks at both ends \t\n",
    "\x01\x7f\u200b\ufeff",
    "\U0010ffff",
]
COPIES = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "cloudpickle": lambda thing: pickle.loads(cloudpickle.dumps(thing)),
    "deepcopy": copy.deepcopy,
}
copies = pytest.mark.parametrize("copied", list(COPIES.values()), ids=list(COPIES))


# --- TextSpace: the round trip


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_byte_for_byte(text: str) -> None:
    space = TextSpace(64)
    array = space.encode(text)
    assert (array.shape, array.dtype) == ((64,), np.uint8)
    assert space.contains(array)
    assert space.decode(array).encode() == text.encode()
    assert array.tobytes() == text.encode().ljust(64, b"\0")


@pytest.mark.parametrize("numbers", [np.float32, np.int64, np.float64])
def test_whole_numbers_of_another_type_are_read_as_well(numbers: type) -> None:
    # SB3 turns observations into float32 on their way to the policy.
    space = TextSpace(64)
    assert space.decode(space.encode("向前走 🚪").astype(numbers)) == "向前走 🚪"


def test_an_array_of_another_memory_order_is_read_as_well() -> None:
    space = TextSpace(8)
    columns = np.stack([space.encode("left"), space.encode("右转")], axis=1)
    assert [space.decode(columns[:, 0]), space.decode(columns[:, 1])] == ["left", "右转"]


@pytest.mark.parametrize("text", ["x" * LIMIT, "界" * 10 + "ab", "x" * (LIMIT - 4) + "🚪"])
def test_text_exactly_at_the_limit_fits(text: str) -> None:
    space = TextSpace(LIMIT)
    assert len(text.encode()) == LIMIT
    assert space.decode(space.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "x" * (LIMIT + 1),
        "x" * (LIMIT - 1) + "é",  # fits as characters; its second byte crosses the limit
        "x" * (LIMIT - 2) + "界",
        "x" * (LIMIT - 3) + "🚪",
        "界" * LIMIT,
    ],
)
def test_text_over_the_limit_raises_and_is_never_cut(text: str) -> None:
    with pytest.raises(SetupError) as caught:
        TextSpace(LIMIT).encode(text)
    assert f"{len(text.encode())} bytes" in str(caught.value)
    assert f"at most {LIMIT} bytes" in str(caught.value)
    assert f"max_bytes={len(text.encode())}" in str(caught.value)
    assert text[:20] in str(caught.value)


@pytest.mark.parametrize("text", ["a\0b", "\0", "ends in \0", "\ud800", "half \udc00 a pair"])
def test_text_that_would_not_come_back_raises(text: str) -> None:
    with pytest.raises(SetupError, match=r"NUL|surrogate"):
        TextSpace(LIMIT).encode(text)


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_what_is_no_text_raises(text: Any) -> None:
    with pytest.raises(SetupError, match=f"type {type(text).__name__}.*describe"):
        TextSpace(LIMIT).encode(text)


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_space_without_room_raises(max_bytes: int) -> None:
    with pytest.raises(SetupError, match=f"max_bytes={max_bytes}"):
        TextSpace(max_bytes)


# --- TextSpace: bytes that are no text


def no_texts() -> dict[str, Any]:
    space = TextSpace(LIMIT)
    left, right = space.encode("turn left"), space.encode("turn right")
    return {
        "glued": np.concatenate([left, right]),
        "glued before the first": np.concatenate([space.encode(""), right]),
        "byte 255": np.full(LIMIT, 255, np.uint8),
        "a cut character": space.encode("界")[:2],
        "a lone surrogate": np.frombuffer("\ud800".encode("utf-8", "surrogatepass"), np.uint8),
        "other bytes": space.encode("turn left") + np.uint8(100),
    }


@pytest.mark.parametrize("name", list(no_texts()))
def test_bytes_that_are_no_text_raise_and_name_the_wrappers(name: str) -> None:
    with pytest.raises(SetupError) as caught:
        TextSpace(2 * LIMIT).decode(no_texts()[name])
    assert "VecNormalize" in str(caught.value)
    assert "VecFrameStack" in str(caught.value)


def test_frames_stacked_by_sb3_raise() -> None:
    env = VecFrameStack(make_vec_env("FrozenLake-v1", 1, seed=0), 3)
    observation = env.reset()
    for _ in range(3):
        with pytest.raises(SetupError, match="VecFrameStack"):
            TextSpace(3 * DEFAULT_MAX_BYTES).decode(observation[0])
        observation = env.step(np.array([0]))[0]


@pytest.mark.parametrize(
    ("env_id", "n_envs"),
    [("FrozenLake-v1", 1), ("FrozenLake-v1", 2), ("CartPole-v1", 1), ("MiniGrid-DoorKey-5x5-v0", 1)],
)
def test_texts_normalised_by_sb3_raise(env_id: str, n_envs: int) -> None:
    env = VecNormalize(make_vec_env(env_id, n_envs, seed=0))
    observations = env.reset()
    for step in range(20):
        for observation in observations:
            with pytest.raises(SetupError, match="VecNormalize"):
                env.observation_space.decode(observation)
        observations = env.step(np.full(n_envs, step % 2))[0]


# --- TextSpace: a space among spaces


def test_samples_are_texts() -> None:
    space = TextSpace(LIMIT)
    space.seed(0)
    samples = [space.decode(space.sample()) for _ in range(20)]
    assert all(text.isalpha() and text.isascii() for text in samples)
    assert len(set(samples)) == 20
    space.seed(0)
    assert space.decode(space.sample()) == samples[0]
    assert space.contains(TextSpace(1).sample()) is False
    assert len(TextSpace(1).decode(TextSpace(1).sample())) == 1


@copies
def test_text_space_survives_copying(copied: Callable[[Any], Any]) -> None:
    space = TextSpace(LIMIT)
    twin = copied(space)
    assert type(twin) is TextSpace
    assert (twin, twin.max_bytes, twin.dtype) == (space, LIMIT, np.uint8)
    assert twin.decode(space.encode("向前走")) == "向前走"


def test_sb3_takes_text_for_no_image() -> None:
    assert not is_image_space(TextSpace(DEFAULT_MAX_BYTES))
    assert not is_image_space(TextSpace(DEFAULT_MAX_BYTES), check_channels=True)


def test_rollout_buffer_keeps_texts_and_actions() -> None:
    space, n_steps, n_envs = TextSpace(LIMIT), 5, 2
    buffer = RolloutBuffer(n_steps, space, PhraseSpace(["left", "right"]), device="cpu", n_envs=n_envs)
    said: dict[str, int] = {}
    for step in range(n_steps):
        texts = [f"step {step} of {'左右'[number]} 🚪" for number in range(n_envs)]
        said |= {text: (step + number) % 2 for number, text in enumerate(texts)}
        observations = np.stack([space.encode(text) for text in texts])
        actions = np.array([said[text] for text in texts])
        zeros = np.zeros(n_envs)
        buffer.add(observations, actions, zeros, zeros, torch.zeros(n_envs), torch.zeros(n_envs))
    assert buffer.observations.dtype == np.uint8
    buffer.compute_returns_and_advantage(torch.zeros(n_envs), np.zeros(n_envs))
    (batch,) = buffer.get()
    assert len(said) == n_steps * n_envs
    pairs = zip(batch.observations.numpy(), batch.actions.flatten().tolist(), strict=True)
    assert {space.decode(row): int(action) for row, action in pairs} == said


# --- PhraseSpace


@pytest.mark.parametrize(
    ("phrases", "text"),
    [
        (None, "phrases=None"),
        ([], "phrases=[]"),
        ("go", "phrases='go'"),
        (["left", ""], "phrase 1 is ''"),
        (["left", " \t"], r"phrase 1 is ' \t'"),
        (["left", "go", "left"], "phrases 0 and 2 are both 'left'"),
        ([" left", "go"], "phrase 0 is ' left', with blanks"),
        (["left", "go\n"], r"phrase 1 is 'go\n', with blanks"),
        (["left", 3], "phrase 1 is 3"),
        (["left", None], "phrase 1 is None"),
        (["left", b"go"], "phrase 1 is b'go'"),
    ],
)
def test_bad_phrases_raise_and_are_quoted(phrases: Any, text: str) -> None:
    with pytest.raises(SetupError) as caught:
        PhraseSpace(phrases)
    assert text in str(caught.value)
    assert "To mend it: " in str(caught.value)


@pytest.mark.parametrize("phrase", ["go\0on", "go \ud800"])
def test_phrases_that_cannot_travel_raise(phrase: str) -> None:
    with pytest.raises(SetupError, match=r"NUL|surrogate"):
        PhraseSpace(["left", phrase])


@pytest.mark.parametrize("phrase", ["go\0on", "go \ud800"])
def test_phrases_that_cannot_travel_are_quoted(phrase: str) -> None:
    with pytest.raises(SetupError) as caught:
        PhraseSpace(["left", phrase])
    assert f"phrase 1 is {phrase!r}" in str(caught.value)


@pytest.mark.parametrize("phrases", [5, {"left", "right"}, {"left": 0}, (phrase for phrase in ["left"])])
def test_what_is_no_list_of_phrases_raises(phrases: Any) -> None:
    with pytest.raises(SetupError, match="phrases="):
        PhraseSpace(phrases)


@pytest.mark.parametrize("n_actions", [1, 3])
def test_wrong_count_of_phrases_raises(n_actions: int) -> None:
    with pytest.raises(SetupError, match=rf"2 phrases \['left', '右转'\] for {n_actions} actions"):
        check_phrases(["left", "右转"], n_actions)
    assert check_phrases(["left", "右转"], 2) == ("left", "右转")


def test_equal_only_with_the_same_phrases_in_order() -> None:
    space = PhraseSpace(["left", "right"])
    assert space == PhraseSpace(("left", "right"))
    assert hash(space) == hash(PhraseSpace(("left", "right")))
    for other in (
        PhraseSpace(["right", "left"]),
        PhraseSpace(["left", "Right"]),
        PhraseSpace(["left", "right", "go"]),
        spaces.Discrete(2),
        ("left", "right"),
    ):
        assert (space == other, other == space, space != other) == (False, False, True)
    assert isinstance(space, spaces.Discrete)
    assert (space.n, space.start, space.contains(1), space.contains(2)) == (2, 0, True, False)


@copies
def test_phrase_space_survives_copying(copied: Callable[[Any], Any]) -> None:
    space = PhraseSpace(["向左", "turn right 🔄"])
    twin = copied(space)
    assert (twin, twin.phrases, twin.n) == (space, ("向左", "turn right 🔄"), 2)


@pytest.mark.parametrize("vec_env", [DummyVecEnv, partial(SubprocVecEnv, start_method="fork")])
def test_spaces_survive_vec_envs(vec_env: Callable[[list[Callable[[], gymnasium.Env]]], Any]) -> None:
    phrases = ("向左", "down", "right", "up")
    env = vec_env([partial(make_env, "FrozenLake-v1", phrases=phrases)] * 2)
    try:
        assert env.action_space == PhraseSpace(phrases)
        assert env.observation_space == TextSpace(DEFAULT_MAX_BYTES)
        assert isinstance(env.observation_space, TextSpace)
        assert [env.observation_space.decode(row) for row in env.reset()] == ["Observation: 0."] * 2
    finally:
        env.close()


def test_sb3_refuses_to_load_into_other_words(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    env = partial(make_env, "FrozenLake-v1", max_bytes=LIMIT)
    PPO("MlpPolicy", env(), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "model")
    model = PPO.load(tmp_path / "model", env=env(), device="cpu")
    assert model.action_space.phrases == ("left", "down", "right", "up")
    for other in (env(phrases=("down", "left", "right", "up")), gymnasium.make("FrozenLake-v1")):
        with pytest.raises(ValueError, match="spaces do not match"):
            PPO.load(tmp_path / "model", env=other, device="cpu")
    with pytest.raises(ValueError, match="Action spaces do not match"):
        check_for_correct_spaces(env(), TextSpace(LIMIT), PhraseSpace(["a", "b", "c", "d"]))


# --- the error itself


@copies
def test_setup_error_crosses_process_borders(copied: Callable[[Any], Any]) -> None:
    error = SetupError("size=1.", "2 or more", "pass size=5")
    twin = copied(error)
    assert isinstance(twin, ValueError)
    assert str(twin) == str(error) == "size=1. Expected: 2 or more. To mend it: pass size=5."
