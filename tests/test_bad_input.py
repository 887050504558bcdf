"""Every bad input: one clear error before any training, that says what was given, what was expected and the mend."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.core.mission import MissionSpace
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, TextObservation, TextSpace, make_env
from sb3_llm.errors import SetupError
from tests.test_policy import SMALL, Follow, follow_env, say


class Blank(gym.Env[np.ndarray, Any]):
    """An environment of given spaces that is never stepped."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


NUMBERS = spaces.Box(-1, 1, (2,), np.float32)
TWO = spaces.Discrete(2)


def policy(observation_space: spaces.Space = NUMBERS, action_space: spaces.Space = TWO, **kwargs: Any) -> Any:
    return LLMPolicy(observation_space, action_space, lambda _: 1e-4, **kwargs)


def wrapped(phrases: Any = None, **options: Any) -> TextObservation:
    return TextObservation(Blank(NUMBERS, TWO), phrases=phrases, **options)


BAD: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "continuous actions": (lambda: policy(action_space=spaces.Box(-1, 1, (2,))), ["Box(-1.0, 1.0, (2,)", "Discrete"]),
    "several choices": (lambda: policy(action_space=spaces.MultiDiscrete([2, 3])), ["MultiDiscrete([2 3])", "wrap"]),
    "yes or no choices": (lambda: wrapped_space(spaces.MultiBinary(2)), ["MultiBinary", "Discrete"]),
    "phrases of the wrong count": (lambda: wrapped(["left"]), ["1 phrases ['left'] for 2 actions", "exactly 2"]),
    "phrases missing": (lambda: wrapped([]), ["phrases=[]", "one for each action"]),
    "phrases in one string": (lambda: wrapped("left"), ["phrases='left'", "a list of strings"]),
    "phrase empty": (lambda: wrapped(["left", " "]), ["phrase 1 is ' '", "words"]),
    "phrase doubled": (lambda: wrapped(["left", "left"]), ["phrases 0 and 1 are both 'left'"]),
    "raw text space": (lambda: policy(spaces.Text(20)), ["Text(", "make_env"]),
    "mission space": (
        lambda: policy(spaces.Dict({"mission": MissionSpace(lambda: "go")})),
        ["MissionSpace", "make_env", "TextObservation"],
    ),
    "image": (lambda: policy(spaces.Box(0, 255, (64, 64, 3), np.uint8)), ["12288 numbers", "describe="]),
    "observation text too long": (lambda: TextSpace(10).encode("é" * 6), ["12 bytes", "at most 10 bytes", "max_bytes"]),
    "template without observation": (lambda: policy(template="Act:"), ["'Act:'", "{observation}"]),
    "template ends in a blank": (lambda: policy(template="{observation} "), ["ends in a blank", "take the blank away"]),
    "unknown normalization": (lambda: policy(normalization="mean"), ["'mean'", "'token'"]),
    "temperature 0": (lambda: policy(temperature=0.0), ["temperature=0.0", "above 0"]),
    "folder that does not exist": (
        lambda: policy(model="./no/such/folder"),
        ["./no/such/folder", "no existing folder"],
    ),
    "unknown dtype": (lambda: policy(dtype="int8"), ["dtype='int8'", "float32"]),
    "use_sde": (lambda: policy(use_sde=True), ["use_sde=True", "discrete"]),
    "history below 0": (lambda: wrapped(history=-1), ["history=-1", "0 or more"]),
    "reward that is no function": (lambda: wrapped(reward=1.0), ["reward=1.0", "(state, action, next_state, info)"]),
    "unknown environment": (lambda: make_env("MiniGrid-DoorKee-5x5-v0"), ["MiniGrid-DoorKee-5x5-v0", "spelling"]),
}


def wrapped_space(action_space: spaces.Space) -> TextObservation:
    return TextObservation(Blank(NUMBERS, action_space))


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    make, expected = BAD[name]
    with pytest.raises(SetupError) as error:
        make()
    for part in [*expected, "Expected: ", "To mend it: "]:
        assert part in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "1", np.array([1.0, 2.0])])
def test_reward_that_is_no_number(value: Any) -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", reward=lambda state, action, next_state, info: value)
    env.reset(seed=0)
    with pytest.raises(SetupError, match="finite number from reward"):
        env.step(0)


def test_prompt_over_the_context(gpt2_folder: Path) -> None:
    """The tiny GPT-2 reads 256 tokens."""
    env = DummyVecEnv([lambda: TextObservation(Follow(), describe=lambda obs: "A wall. " * 200)])
    model = PPO(LLMPolicy, env, policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    with pytest.raises(SetupError, match=r"tokens.*at most 256 tokens together") as error:
        model.learn(16)
    assert "A wall." in str(error.value)
    assert "shorten the observation text" in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "t5"})), "encoder-decoder"),
    ],
)
def test_model_folder_with_a_part_missing(
    change: Callable[[Path], Any], expected: str, gpt2_folder: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(gpt2_folder, folder)
    change(folder)
    with pytest.raises(SetupError, match=expected):
        policy(model=str(folder))


def test_hub_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match=r'model="embedded" or a local folder'):
        policy(model="nobody/no-such-model")


def test_zip_whose_model_folder_is_gone(gpt2_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(gpt2_folder, folder)
    env = DummyVecEnv([follow_env])
    PPO(LLMPolicy, env, policy_kwargs={"model": str(folder)}, **SMALL).save(tmp_path / "saved.zip")
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="no existing folder") as error:
        PPO.load(tmp_path / "saved.zip")
    assert str(folder) in str(error.value)
    assert "custom_objects" in str(error.value)
    moved = {"policy_kwargs": {"model": str(tmp_path / "elsewhere")}}
    assert PPO.load(tmp_path / "saved.zip", custom_objects=moved).policy.scoring_route == "packed"


def test_one_phrase_that_begins_another_gets_an_end_mark(gpt2_folder: Path) -> None:
    """Without one, "go" could never be less probable than "go back"."""

    def env() -> TextObservation:
        return TextObservation(Follow(), describe=say, phrases=["go", "go back", "wait"])

    model = PPO(LLMPolicy, DummyVecEnv([env]), policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    assert model.policy.continuations == [" go\n", " go back\n", " wait\n"]
    model.learn(16)


def test_nothing_is_lost_when_a_load_fails(tmp_path: Path) -> None:
    """A bad argument must not leave a half-built class behind: the next policy is made as usual."""
    with pytest.raises(SetupError):
        policy(temperature=-1.0)
    assert isinstance(policy(), ActorCriticPolicy)
