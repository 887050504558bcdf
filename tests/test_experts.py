"""The experts: they succeed in every world that stories are told of or tested in, from what is seen alone."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import gymnasium
import minigrid  # noqa: F401  # registers the ids
import pytest

import sb3_llm.envs  # noqa: F401  # registers the ids
from sb3_llm.describe.actions import KEYS
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.envs.rooms_kinds import KINDS
from sb3_llm.errors import SetupError
from sb3_llm.pretrain.experts import BotExpert, Expert, MazeExpert, PlanningExpert, ends_by_done, make_expert
from tests.drawn import DrawnWorld
from tests.walks import random_actions

SEEDS, ENOUGH = 25, 0.95
#: Nothing has to be picked up or put down more often; a planner that undoes its own deeds does so without end.
MAX_HANDS = 24

TARGETS = (
    *("Empty-8x8", "Unlock", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "GoToDoor-5x5", "GoToObject-6x6-N2"),
    *("Fetch-5x5-N2", "UnlockPickup", "KeyCorridorS3R1", "SimpleCrossingS9N3", "FourRooms", "LavaCrossingS9N1"),
    *("RedBlueDoors-6x6", "PutNear-6x6-N2", "LockedRoom"),
)
LEVELS = (
    *("GoToRedBallGrey", "GoToRedBall", "GoToObj", "GoToRedBlueBall", "GoToLocal", "GoToDoor", "GoToObjDoor"),
    *("PickupDist", "OneRoomS8", "PickupLoc", "PutNextLocal", "OpenRedDoor", "OpenDoor", "OpenDoorLoc"),
    *("OpenTwoDoors", "UnlockLocal", "UnlockLocalDist", "GoTo", "Open", "GoToObjMazeS4", "FindObjS5"),
    *("UnlockPickup", "BlockedUnlockPickup", "KeyCorridorS3R2", "GoToSeqS5R2", "UnlockToUnlock"),
)
MAZES = [
    ("sb3_llm/Maze-v0", {"size": size, "generator": generator, "split": "test"})
    for generator in ("wilson", "kruskal")
    for size in (5, 8)
]
WORLDS = [
    *((f"MiniGrid-{name}-v0", {}) for name in TARGETS),
    ("MiniGrid-MultiRoom-N4-S5-v1", {}),
    *MAZES,
    ("sb3_llm/MiniGridMaze-v0", {"size": 5, "split": "test"}),
    *(("sb3_llm/Rooms-v0", {"kind": kind}) for kind in KINDS),
    *((f"BabyAI-{name}-v0", {}) for name in LEVELS),
]


def played(env: gymnasium.Env[Any, Any], seed: int, use_bot: bool = False) -> tuple[bool, list[str]]:
    """Whether an episode ends in success, and what was done; every episode ends by the environment's own limit."""
    with contextlib.redirect_stdout(io.StringIO()):
        obs, _ = env.reset(seed=seed)
    expert, done = make_expert(env, obs, use_bot), []
    for _ in range(5000):
        done.append(expert.advice()[0])
        action = numbered(expert, done[-1])
        obs, reward, terminated, truncated, info = env.step(action)
        expert.note(action, obs)
        if terminated or truncated:
            return bool(info.get("is_success", reward > 0)), done
    raise AssertionError("the environment has no limit")


def numbered(expert: Expert, key: str) -> int:
    return DIRECTIONS.index(key) if isinstance(expert, MazeExpert) else KEYS.index(key)


@pytest.mark.parametrize(("env_id", "env_kwargs"), WORLDS)
def test_expert_succeeds(env_id: str, env_kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    episodes = [played(env, seed) for seed in range(SEEDS)]
    assert sum(success for success, _ in episodes) / SEEDS >= ENOUGH, [i for i, e in enumerate(episodes) if not e[0]]
    hands = [sum(key in ("pick up", "drop") for key in done) for success, done in episodes if success]
    assert max(hands) <= MAX_HANDS


def test_bot_succeeds_and_plans_on_from_what_was_really_done() -> None:
    env = gymnasium.make("BabyAI-GoToLocal-v0", disable_env_checker=True)
    assert all(played(env, seed, use_bot=True)[0] for seed in range(10))
    obs, _ = env.reset(seed=0)
    expert = make_expert(env, obs, use_bot=True)
    for number, action in enumerate(random_actions(3, 12)):
        expert.advice()
        assert isinstance(expert, BotExpert)
        obs, _, terminated, _, _ = env.step(action)
        expert.note(action, obs)
        assert expert.taken == action
        assert not terminated, number
    for _ in range(60):
        key, purpose = expert.advice()
        assert purpose == ""
        obs, reward, terminated, _, _ = env.step(KEYS.index(key))
        expert.note(KEYS.index(key), obs)
        if terminated:
            break
    assert reward > 0


# --- from observations alone


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("MiniGrid-DoorKey-8x8-v0", {}),
        ("MiniGrid-BlockedUnlockPickup-v0", {}),
        ("BabyAI-GoToObjMazeS4-v0", {}),
        ("sb3_llm/Rooms-v0", {"kind": "gotodone"}),
        ("sb3_llm/Maze-v0", {}),
    ],
)
def test_a_recording_gives_the_same_advice_without_a_world(env_id: str, env_kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    recording = list(recorded(env, steps=60))
    env.reset(seed=99)  # the world goes on to something else
    first = recording[0][1]
    expert: Expert = MazeExpert(first) if "view" in first else PlanningExpert(first, says_done=False)
    for number, (action, obs, advice) in enumerate(recording):
        if number:
            expert.note(action, {key: obs[key] for key in obs if key in ("image", "direction", "mission")} or obs)
        assert expert.advice() == advice
    assert len({advice for _, _, advice in recording}) > 2


def recorded(env: gymnasium.Env[Any, Any], steps: int) -> Iterator[tuple[int, Any, tuple[str, str]]]:
    """Of an episode in which every fourth step is a random one: the actions, what was seen, and the advice."""
    obs, _ = env.reset(seed=5)
    expert, action = make_expert(env, obs), 0
    for number, other in enumerate(random_actions(3, steps)):
        advice = expert.advice()
        yield action, obs, advice
        action = numbered(expert, advice[0]) if number % 4 else other
        obs, _, terminated, truncated, _ = env.step(action)
        expert.note(action, obs)
        if terminated or truncated:
            break


# --- which expert, and what has none


@pytest.mark.parametrize(
    ("env_id", "use_bot", "expected"),
    [
        ("sb3_llm/Maze-v0", False, MazeExpert),
        ("sb3_llm/MiniGridMaze-v0", False, PlanningExpert),
        ("sb3_llm/Rooms-v0", False, PlanningExpert),
        ("BabyAI-GoToLocal-v0", False, PlanningExpert),
        ("BabyAI-GoToLocal-v0", True, BotExpert),
    ],
)
def test_expert_that_suits_a_world(env_id: str, use_bot: bool, expected: type[Expert]) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True)
    assert type(make_expert(env, env.reset(seed=0)[0], use_bot)) is expected


def test_mission_that_nobody_understands() -> None:
    env = DrawnWorld("####", "#>.#", "####", mission="water the plants")
    with pytest.raises(SetupError, match=r"water the plants.*a mission of MiniGrid"):
        make_expert(env, env.reset()[0])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1"])
def test_worlds_that_have_no_expert(env_id: str) -> None:
    env = gymnasium.make(env_id)
    with pytest.raises(SetupError, match="a MiniGrid or BabyAI world, or a maze"):
        make_expert(env, env.reset()[0])


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("MiniGrid-GoToDoor-5x5-v0", True),
        ("MiniGrid-GoToObject-6x6-N2-v0", True),
        ("MiniGrid-Fetch-5x5-N2-v0", False),
        ("BabyAI-GoToLocal-v0", False),
    ],
)
def test_worlds_that_end_by_saying_done(env_id: str, expected: bool) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True)
    assert ends_by_done(env.unwrapped) is expected
    assert played(env, 0)[1].count("done") == expected
