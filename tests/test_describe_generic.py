"""The generic describer: any numbers in words, and what it refuses."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.core.mission import MissionSpace

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.describe.generic import generic_describer
from sb3_llm.errors import SetupError
from tests.walks import wander


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (spaces.Discrete(16), 7, "7"),
        (spaces.Discrete(5, start=-2), np.int64(-2), "-2"),
        (spaces.Box(-9, 9, (4,)), np.array([0.02, -1.0, 3.14159, 1234567.0], np.float32), "0.02, -1, 3.14, 1.23e+06"),
        (spaces.Box(0, 255, (2, 2), np.uint8), np.array([[0, 1], [2, 255]], np.uint8), "0, 1, 2, 255"),
        (spaces.MultiDiscrete([3, 1000]), np.array([2, 999]), "2, 999"),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), "1, 0, 1"),
        (spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,)))), (2, np.array([0.5, 1])), "2; 0.5, 1"),
        (
            spaces.Dict({"speed": spaces.Box(0, 9, (1,)), "at": spaces.Dict({"floor": spaces.Discrete(3)})}),
            {"at": {"floor": 2}, "speed": np.array([1.5], np.float32)},
            "at floor 2; speed 1.5",
        ),
    ],
)
def test_numbers_in_words(space: spaces.Space, obs: Any, text: str) -> None:
    assert generic_describer(space)(obs) == f"Observation: {text}."


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1", "Acrobot-v1", "Taxi-v4"])
def test_numbers_of_real_environments_keep_their_order(env_id: str) -> None:
    env = gymnasium.make(env_id)
    describe = generic_describer(env.observation_space)
    for obs in wander(env, 20):
        told = [float(number) for number in describe(obs)[len("Observation: ") : -1].replace(";", ",").split(",")]
        assert told == pytest.approx(np.ravel(obs).astype(float).tolist(), rel=0.006)


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), 27648),
        (spaces.Box(-1, 1, (257,)), 257),
        (spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 1), np.uint8), "step": spaces.Discrete(3)}), 257),
    ],
)
def test_images_are_refused_and_describe_is_named(space: spaces.Space, count: int) -> None:
    with pytest.raises(SetupError, match=f"{count} numbers.*pass describe=.*make_env"):
        generic_describer(space)


def test_as_many_numbers_as_can_be_read_are_told() -> None:
    assert generic_describer(spaces.Box(0, 1, (256,)))(np.zeros(256, np.float32)).count("0") == 256


TEXT = spaces.Text(20)


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (TEXT, "Text("),
        (MissionSpace(mission_func=lambda: "find it"), "MissionSpace("),
        (spaces.Dict({"size": spaces.Discrete(2), "mission": TEXT}), "Text("),
        (spaces.Tuple((spaces.Discrete(2), TEXT)), "Text("),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence("),
        (spaces.Graph(spaces.Discrete(2), None), "Graph("),
    ],
    ids=lambda part: type(part).__name__,
)
def test_text_spaces_are_refused_and_make_env_is_named(space: spaces.Space, part: str) -> None:
    with pytest.raises(SetupError, match=r"holds text or no fixed numbers.*make_env\(") as caught:
        generic_describer(space)
    assert str(caught.value).startswith(f"the observation space {part}")


def test_a_whole_minigrid_observation_is_refused_for_its_mission_not_its_size() -> None:
    with pytest.raises(SetupError, match="make_env"):
        generic_describer(gymnasium.make("MiniGrid-Empty-5x5-v0").observation_space)
