"""The numbers that baselines see: the distinctions of the text, and the same task."""

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.envs.maze import Code, MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env
from sb3_llm.numeric import MISSION_BUCKETS, NumericObservation, make_numeric_env
from tests.walks import random_actions

#: Without footprints: the text tells those next to the agent alone.
FULL = {"view": "full", "trail": False}


def pairs(env_id: str, steps: int, **options: Any) -> list[tuple[str, bytes]]:
    """Text and numbers of the same states; rewards, ends and success are compared on the way."""
    words, numbers = make_env(env_id, **options), make_numeric_env(env_id, **options)
    found = []
    for number, action in enumerate(random_actions(words.n_actions, steps)):
        if number % 40 == 0:
            words.reset(seed=number)
            found.append((words.text, numbers.reset(seed=number)[0].tobytes()))
        _, *mine = words.step(action)
        observation, *others = numbers.step(action)
        assert mine[:3] == others[:3]
        assert mine[3].get("is_success") == others[3].get("is_success")
        assert (observation.shape, observation.dtype) == (numbers.observation_space.shape, np.float32)
        found.append((words.text, observation.tobytes()))
        if mine[1] or mine[2]:
            words.reset()
            found.append((words.text, numbers.reset()[0].tobytes()))
    return found


@pytest.mark.parametrize("history", [0, 1, 2])
@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("MiniGrid-DoorKey-8x8-v0", {}),
        ("sb3_llm/MiniGridMaze-v0", {}),
        ("sb3_llm/Maze-v0", FULL),
        ("FrozenLake-v1", {}),
    ],
    ids=["doorkey", "minigrid maze", "maze", "lake"],
)
def test_as_many_vectors_as_texts(env_id: str, options: dict[str, Any], history: int) -> None:
    found = set(pairs(env_id, 800, history=history, **options))
    assert len(found) > (5 if env_id == "FrozenLake-v1" else 100)
    assert len({text for text, _ in found}) == len({vector for _, vector in found}) == len(found)


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("sb3_llm/Maze-v0", {}),
        ("sb3_llm/Maze-v0", {"view": "full"}),
        ("BabyAI-GoToLocal-v0", {}),
        ("BabyAI-PickupLoc-v0", {}),
    ],
)
def test_no_vector_stands_for_two_texts(env_id: str, options: dict[str, Any], history: int) -> None:
    found = set(pairs(env_id, 800, history=history, **options))
    assert len({vector for _, vector in found}) == len(found)


def test_history_is_one_hot_the_oldest_first() -> None:
    env = make_numeric_env("MiniGrid-Empty-5x5-v0", history=2)
    bare = make_numeric_env("MiniGrid-Empty-5x5-v0", history=0)
    past = [env.reset(seed=0)[0][-12:]] + [env.step(action)[0][-12:] for action in (1, 2, 0)]
    eye, nothing = np.eye(6), np.zeros(6)
    expected = [(nothing, nothing), (eye[1], nothing), (eye[1], eye[2]), (eye[2], eye[0])]
    assert [row.tolist() for row in past] == [np.concatenate(two).tolist() for two in expected]
    assert env.observation_space.shape[0] == bare.observation_space.shape[0] + 12
    assert not env.reset()[0][-12:].any()


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "sb3_llm/Maze-v0", "CartPole-v1", "FrozenLake-v1"])
def test_history_is_the_texts_by_default(env_id: str) -> None:
    assert make_numeric_env(env_id).history == make_env(env_id).history


def test_sizes_are_of_one_hot_parts() -> None:
    cells = 7 * 7
    env = make_numeric_env("MiniGrid-Empty-5x5-v0", history=0)
    assert env.observation_space.shape == (cells * (11 + 6 + 3) + 4 + MISSION_BUCKETS,)
    image_and_compass = env.reset(seed=0)[0][: cells * 20 + 4]
    assert image_and_compass.sum() == 3 * cells + 1
    assert set(np.unique(image_and_compass)) == {0.0, 1.0}
    maze = make_numeric_env("sb3_llm/Maze3x3-v0", history=0)
    assert maze.observation_space.shape == (cells * len(Code) + 2 * 3 + 2 * 5,)
    assert maze.reset(seed=0)[0].sum() == cells + 4


def test_users_reward_and_success_are_as_with_text() -> None:
    def reward(state: Any, action: int, next_state: Any, info: dict[str, Any]) -> float:
        return float(next_state["image"].sum() + action)

    words, numbers = (make("MiniGrid-Empty-5x5-v0", reward=reward) for make in (make_env, make_numeric_env))
    words.reset(seed=0)
    numbers.reset(seed=0)
    for action in (2, 2, 1, 2, 2):
        mine, others = words.step(action), numbers.step(action)
        assert mine[1:4] == others[1:4]
    assert mine[4] == others[4] == {"is_success": True}
    with pytest.raises(SetupError, match="Discrete space"):
        make_numeric_env("Pendulum-v1")


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("MiniGrid-DoorKey-5x5-v0", {}),
        ("MiniGrid-Dynamic-Obstacles-6x6-v0", {}),
        ("BabyAI-BossLevel-v0", {}),
        ("sb3_llm/MiniGridMaze-v0", {}),
        ("sb3_llm/Maze3x3-v0", {}),
        ("sb3_llm/Maze10x10-v0", FULL),
        ("CartPole-v1", {}),
        ("FrozenLake-v1", {}),
    ],
)
def test_checkers_find_nothing_to_warn_about(env_id: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gymnasium says so of every wrapper there is, and of every unbounded space.
        for message in (
            "is different from the unwrapped version",
            "A Box observation space .*value is -?infinity",
        ):
            warnings.filterwarnings("ignore", message=f".*{message}")
        env = make_numeric_env(env_id, **options)
        sb3_check_env(env)
        gymnasium_check_env(env, skip_render_check=True)


def test_a_maze_with_a_summary_is_made_whatever_its_space_would_draw() -> None:
    maze = MazeEnv(size=3)
    maze.observation_space.seed(14054)
    assert Code.AGENT not in maze.observation_space.sample()["view"]  # a view that no memory can be made of
    maze.observation_space.seed(14054)
    assert (
        NumericObservation(maze, "summary").observation_space.shape
        == NumericObservation(MazeEnv(size=3), "summary").observe().shape
    )
