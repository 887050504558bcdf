"""make_env and make_vec_env: both checkers content, seeds that repeat, texts that fit, errors that say what to do."""

import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.maze import describe_maze
from sb3_llm.describe.minigrid import RoomDescriber, describe_minigrid
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env, make_vec_env
from sb3_llm.numeric import make_numeric_env
from sb3_llm.prompt import DEFAULT_TEMPLATE, Template
from sb3_llm.spaces import DEFAULT_MAX_BYTES, PhraseSpace, TextSpace
from sb3_llm.wrappers import TextObservation
from tests.walks import random_actions, wander

OWN_IDS = sorted(env_id for env_id in gymnasium.registry if env_id.startswith("sb3_llm/"))
WRAPPED_IDS = [
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "BabyAI-GoToLocal-v0",
    "BabyAI-BossLevel-v0",
    "CartPole-v1",
    "FrozenLake-v1",
]
# WFC needs packages of its own.
GRID_IDS = sorted(i for i in gymnasium.registry if re.match(r"MiniGrid-(?!WFC)|BabyAI-", i))
DRAWN_IDS = random.Random(0).sample(GRID_IDS, 20)


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gymnasium says so of every wrapper there is.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        yield


# --- the contracts of Gymnasium and Stable-Baselines3


@pytest.mark.parametrize("env_id", [*OWN_IDS, *WRAPPED_IDS])
def test_checkers_find_nothing_to_warn_about(env_id: str) -> None:
    with no_warnings():
        env = make_env(env_id)
        sb3_check_env(env)
        gymnasium_check_env(env, skip_render_check=True)
        sb3_check_env(make_env(env_id, history=3, max_bytes=4096))


def test_the_projects_ids_are_among_them() -> None:
    assert {"sb3_llm/Maze-v0", "sb3_llm/MiniGridMaze-v0", "sb3_llm/Maze10x10-v0"} <= set(OWN_IDS)
    assert len(set(DRAWN_IDS)) == 20


def test_every_render_mode_passes_gymnasiums_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with no_warnings():
        gymnasium_check_env(make_env("sb3_llm/Maze3x3-v0", render_mode="rgb_array"))


# --- what suits an environment


@pytest.mark.parametrize(
    ("env_id", "phrases", "start", "end"),
    [
        (
            "MiniGrid-Empty-5x5-v0",
            ("turn left", "turn right", "go forward", "pick up", "drop", "open"),
            "Facing east, carrying nothing. Ahead 2 free then wall",
            "Goal: get to the green goal square.",
        ),
        (
            "MiniGrid-Dynamic-Obstacles-6x6-v0",
            ("turn left", "turn right", "go forward"),
            "Facing east, carrying nothing. Ahead 1 free then blue ball",
            "Goal: get to the green goal square.",
        ),
        ("sb3_llm/MiniGridMaze-v0", None, "Facing ", "Goal: reach the goal."),
        (
            "sb3_llm/Maze-v0",
            ("north", "south", "east", "west"),
            "At row 1 column 1. ",
            "Goal: reach the goal, 4 south 4 east.",
        ),
        ("FrozenLake-v1", ("left", "down", "right", "up"), "Observation: 0.", ""),
        ("CartPole-v1", ("action 0", "action 1"), "Observation: ", ""),
    ],
)
def test_describer_and_phrases_suit_the_environment(
    env_id: str, phrases: tuple[str, ...] | None, start: str, end: str
) -> None:
    env = make_env(env_id)
    env.reset(seed=0)
    assert env.text.startswith(start)
    assert env.text.endswith(end)
    assert env.phrases == (phrases or make_env("MiniGrid-Empty-5x5-v0").phrases)
    told = "Here 1 time. Last actions: none. Goal: "
    assert (told in env.text) is ("Last action" in env.text) is env_id.startswith(("MiniGrid", "sb3_llm"))
    assert env.observation_space == TextSpace(DEFAULT_MAX_BYTES)


HISTORIES: list[tuple[str, dict[str, Any], History]] = [
    ("MiniGrid-Empty-5x5-v0", {}, SUMMARY),
    ("BabyAI-GoToLocal-v0", {}, SUMMARY),
    ("sb3_llm/MiniGridMaze-v0", {}, SUMMARY),
    ("sb3_llm/Rooms-v0", {"kind": "goal"}, SUMMARY),
    ("sb3_llm/Maze-v0", {}, SUMMARY),
    ("sb3_llm/Maze-v0", {"language": "zh"}, SUMMARY),
    ("MiniGrid-Empty-5x5-v0", {"phrases": list("abcdef")}, SUMMARY),
    ("MiniGrid-Empty-5x5-v0", {"wording": "drawn"}, SUMMARY),
    ("sb3_llm/Maze-v0", {"view": "full"}, 1),  # its describer has no memory
    ("MiniGrid-Empty-5x5-v0", {"describe": describe_minigrid}, 1),
    ("BabyAI-GoToLocal-v0", {"describe": lambda obs: obs["mission"]}, 1),
    ("sb3_llm/Maze-v0", {"describe": describe_maze}, 1),
    ("MiniGrid-Empty-5x5-v0", {"describe": RoomDescriber({"go": 2}, history=3)}, 3),
    ("sb3_llm/Dialogue-v0", {}, 0),
    ("CartPole-v1", {}, 0),
    ("FrozenLake-v1", {}, 0),
    ("FrozenLake-v1", {"describe": str}, 0),
]


@pytest.mark.parametrize(("env_id", "options", "history"), HISTORIES)
def test_what_is_told_of_the_past_by_default(env_id: str, options: dict[str, Any], history: History) -> None:
    assert make_env(env_id, **options).history == history
    if "describe" not in options:  # else the user may choose another for the text
        kwargs = {name: value for name, value in options.items() if name in ("view", "kind")}
        assert make_numeric_env(env_id, **kwargs).history == history


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-5x5-v0", "BabyAI-GoToLocal-v0", "sb3_llm/MiniGridMaze-v0"])
def test_the_floor_is_told_by_default_where_no_summary_tells_the_ways_over_it(env_id: str) -> None:
    def told(**options: Any) -> bool:
        env = make_env(env_id, **options)
        env.reset(seed=0)
        return bool(re.search(r" Floor: \d", env.text)) or "地面：" in env.text  # noqa: RUF001

    assert [told(), told(history="summary"), told(language="zh")] == [False] * 3
    assert [told(history=turns) for turns in (0, 1, 4)] == [True] * 3
    assert told(history=1, language="zh")
    assert told(describe=describe_minigrid)
    actions = {"turn left": 0, "turn right": 1, "go forward": 2}
    for floor in (True, False):
        for history in (SUMMARY, 1):
            assert told(describe=RoomDescriber(actions, history, floor=floor), phrases=actions) is floor


def test_maze_view_and_sizes_are_passed_on() -> None:
    env = make_env("sb3_llm/Maze-v0", size=4, view="full", generator="wilson", split="test")
    assert (env.unwrapped.size, env.unwrapped.generator, env.unwrapped.split) == (4, "wilson", "test")
    env.reset(seed=0)
    assert " Exits. Row 1: " in env.text
    assert "Row 4: " in env.text


def test_phrases_do_what_they_say() -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0")
    env.reset(seed=0)
    texts = []
    for phrase in ("turn left", "turn right", "turn right"):
        env.step(env.phrases.index(phrase))
        texts.append(re.search(r"Facing (\w+)", env.text)[1])
    compass = ["east", "south", "west", "north"]
    assert [(compass.index(b) - compass.index(a)) % 4 for a, b in pairwise(texts)] == [1, 1]
    assert "Last actions: turn right, turn right. Goal: " in env.text
    brief = make_env("MiniGrid-DoorKey-5x5-v0", history=1)
    brief.reset(seed=0)
    brief.step(1)
    assert "Last action: turn right. Goal: " in brief.text


def test_options_of_the_user_win() -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", describe=lambda obs: obs["mission"], phrases=list("abcdefg"), history=0)
    env.reset()
    assert (env.text, env.phrases) == ("get to the green goal square", tuple("abcdefg"))


# --- several side by side


def rollout(env: VecEnv, steps: int) -> list[str]:
    """All texts of all environments, step by step."""
    texts = list(map(env.observation_space.decode, env.reset()))
    for action in random_actions(env.action_space.n, steps):
        observations = env.step(np.full(env.num_envs, action))[0]
        texts += map(env.observation_space.decode, observations)
    return texts


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-6x6-v0", "sb3_llm/Maze-v0"])
def test_seeded_vec_envs_repeat_and_differ_side_by_side(env_id: str) -> None:
    first, again, other = (rollout(make_vec_env(env_id, 3, seed=seed), 60) for seed in (5, 5, 50))
    assert first == again
    assert first != other
    starts = first[:3]
    assert len(set(starts)) == 3
    assert rollout(make_vec_env(env_id, 1, seed=6), 0) == [starts[1]]  # seed, seed + 1, ...


def test_vec_envs_are_monitored_and_report_success() -> None:
    env = make_vec_env("FrozenLake-v1", 2, seed=0, is_slippery=False)
    assert isinstance(env, DummyVecEnv)
    env.reset()
    for phrase in ["down", "down", "right", "right", "down"]:
        assert all("episode" not in info for info in env.step([env.action_space.phrases.index(phrase)] * 2)[3])
    _, rewards, dones, infos = env.step([env.action_space.phrases.index("right")] * 2)
    assert (rewards.tolist(), dones.tolist()) == ([1.0, 1.0], [True, True])
    for info in infos:
        assert (info["episode"]["r"], info["episode"]["l"], info["is_success"]) == (1.0, 6, True)
        assert env.observation_space.decode(info["terminal_observation"]) == "Observation: 15."


def test_time_limits_reach_sb3_with_the_history_in_the_last_text() -> None:
    env = make_vec_env("MiniGrid-Empty-5x5-v0", 1, seed=0, max_steps=2)
    env.reset()
    env.step([0])
    observations, _, _, infos = env.step([1])
    assert infos[0]["TimeLimit.truncated"] is True
    goal = "Goal: get to the green goal square."
    last = env.observation_space.decode(infos[0]["terminal_observation"])
    assert last.endswith(f"Here 2 times. Last actions: turn left, turn right. {goal}")
    assert env.observation_space.decode(observations[0]).endswith(f"Here 1 time. Last actions: none. {goal}")


def test_subprocess_vec_env_says_the_same() -> None:
    options: dict[str, Any] = {"seed": 4, "history": 2, "phrases": [f"动作 {number}" for number in range(7)]}
    expected = rollout(make_vec_env("BabyAI-GoToLocal-v0", 1, **options), 12)
    # One is enough: each process imports torch anew, which takes seconds.
    env = make_vec_env("BabyAI-GoToLocal-v0", 1, vec_env_cls=SubprocVecEnv, **options)
    try:
        assert isinstance(env, SubprocVecEnv)
        assert env.action_space == PhraseSpace(options["phrases"])
        assert rollout(env, 12) == expected
    finally:
        env.close()


# --- errors


@pytest.mark.parametrize(
    ("env_id", "options", "text"),
    [
        ("MiniGrid-DorKey-8x8-v0", {}, "the environment id 'MiniGrid-DorKey-8x8-v0'"),
        ("MiniGrid-Empty-5x5-v77", {}, "the environment id"),
        ("sb3_llm/Labyrinth-v0", {}, "the environment id"),
        ("nowhere/Maze-v0", {}, "the environment id"),
        ("no_such_module:Maze-v0", {}, "No module named 'no_such_module'"),
        ("", {}, "the environment id ''"),
        ("Pendulum-v1", {}, "Expected: a Discrete space that starts at 0"),
        ("CartPole-v1", {"phrases": ["left"]}, "1 phrases ['left'] for 2 actions"),
        ("CartPole-v1", {"phrases": []}, "phrases=[]"),
        ("CartPole-v1", {"history": -1}, "history=-1"),
        ("CartPole-v1", {"describe": "text"}, "describe='text'"),
        ("CartPole-v1", {"reward": 1}, "reward=1"),
        ("CartPole-v1", {"max_bytes": 0}, "max_bytes=0"),
        ("sb3_llm/Maze-v0", {"generator": "prim"}, "generator='prim'"),
        ("sb3_llm/Maze-v0", {"size": 1}, "size=1"),
    ],
)
def test_bad_ids_and_options_raise(env_id: str, options: dict[str, Any], text: str) -> None:
    for make in (make_env, make_vec_env):
        with pytest.raises(SetupError) as caught:
            make(env_id, **options)
        assert text in str(caught.value)
        assert "To mend it: " in str(caught.value)


@pytest.mark.parametrize(("env_id", "options"), [("CartPole-v1", {"histroy": 2}), (None, {})])
def test_a_mistyped_option_raises(env_id: Any, options: dict[str, Any]) -> None:
    with pytest.raises(SetupError):
        make_env(env_id, **options)


@pytest.mark.parametrize("options", [{"size": 1}, {"generator": "prim"}, {"split": "valid"}], ids=str)
def test_a_minigrid_maze_that_cannot_be_raises_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(SetupError):
        make_env("sb3_llm/MiniGridMaze-v0", **options)


# --- sizes


@pytest.mark.parametrize("env_id", DRAWN_IDS)
@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_texts_and_prompts_fit_the_default_limit(env_id: str) -> None:
    env = make_env(env_id, history=3)
    assert isinstance(env, TextObservation)
    template = Template(DEFAULT_TEMPLATE, env.phrases)
    prompts = [template.prompt(env.text_space.decode(observation)) for observation in wander(env, 300)]
    assert max(len(prompt.encode()) for prompt in prompts) < DEFAULT_MAX_BYTES
    assert len(set(prompts)) > 10
