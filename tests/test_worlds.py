"""Every MiniGrid and BabyAI id: made, told, acted in by the phrases that mean something there, and trained in."""

import copy
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal
from minigrid.envs.babyai.core import verifier
from minigrid.envs.gotodoor import GoToDoorEnv
from minigrid.envs.memory import MemoryEnv
from minigrid.envs.wfc.config import WFC_PRESETS, WFCConfig
from minigrid.minigrid_env import MiniGridEnv
from stable_baselines3 import PPO

import sb3_llm.envs  # noqa: F401  # registers the project's own
from sb3_llm import LLMPolicy, TextObservation, make_env
from sb3_llm.describe.actions import KEYS, meanings
from sb3_llm.errors import SetupError
from sb3_llm.numeric import make_numeric_env
from sb3_llm.spaces import DEFAULT_MAX_BYTES
from tests.walks import random_actions, wander

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")

GRID_IDS = sorted(i for i in gymnasium.registry if re.match(r"MiniGrid-(?!WFC)|BabyAI-", i))
WFC_IDS = sorted(i for i in gymnasium.registry if i.startswith("MiniGrid-WFC"))

SIX = (("turn left", 0), ("turn right", 1), ("go forward", 2), ("pick up", 3), ("drop", 4), ("open", 5))
#: Families whose actions are others, by how their ids begin.
EXCEPTIONS = {
    "MiniGrid-Dynamic-Obstacles-": SIX[:3],
    "MiniGrid-GoToDoor-": (*SIX, ("done", 6)),
    "MiniGrid-GoToObject-": (*SIX, ("done", 6)),
    "MiniGrid-Memory": (*SIX[:3], ("drop", 4), ("open", 5)),
}


def expected(env_id: str) -> tuple[tuple[str, int], ...]:
    return next((actions for start, actions in EXCEPTIONS.items() if env_id.startswith(start)), SIX)


# --- all ids


def test_ids_are_all_there() -> None:
    assert (len(GRID_IDS), len(WFC_IDS)) == (172, 6)
    assert {len([i for i in GRID_IDS if i.startswith(start)]) for start in EXCEPTIONS} == {6, 3, 2}


@pytest.mark.parametrize("env_id", GRID_IDS)
def test_every_world_is_made_told_and_walked_in(env_id: str) -> None:
    env: Any = make_env(env_id)
    assert env.phrases == tuple(phrase for phrase, _ in expected(env_id))
    assert env.action_space.n == env.n_actions == len(env.phrases)
    texts: list[str] = []
    for observation in wander(env, 20):
        texts.append(env.observation_space.decode(observation))
        assert texts[-1].startswith("Facing ")
        assert texts[-1].endswith(f". Goal: {env.unwrapped.mission}.")
    assert len(texts) >= 20
    assert len(set(texts)) > 1
    assert max(len(text.encode()) for text in texts) <= DEFAULT_MAX_BYTES
    assert bool(env.unwrapped.mission) is (env_id != "MiniGrid-Playground-v0")  # which has no reward either


@pytest.mark.parametrize("env_id", GRID_IDS)
def test_what_is_not_offered_does_nothing_that_is_not(env_id: str) -> None:
    env: Any = make_env(env_id)
    world, offered = env.unwrapped, dict(expected(env_id)).values()
    left_out = set(range(int(world.action_space.n))) - set(offered)
    for _ in zip(range(4 if left_out else 0), every_fifth(wander(env, 20)), strict=False):
        outcomes = {action: outcome(world, action) for action in offered}
        assert all(outcome(world, action) in outcomes.values() for action in left_out)


def every_fifth(states: Iterator[Any]) -> Iterator[Any]:
    return (state for number, state in enumerate(states) if number % 5 == 0)


def outcome(world: MiniGridEnv, action: int) -> tuple[Any, ...]:
    """All that a step does, on a copy."""
    twin = copy.deepcopy(world)
    _, *ends, _ = twin.step(action)
    place = (tuple(map(int, twin.agent_pos)), int(twin.agent_dir))
    carried = None if twin.carrying is None else twin.carrying.encode()
    return *ends, *place, carried, twin.grid.encode().tobytes()


# --- what the actions mean


@pytest.mark.parametrize("env_id", ["MiniGrid-GoToDoor-5x5-v0", "MiniGrid-GoToObject-6x6-N2-v0"])
def test_done_ends_the_episode_where_it_is_offered(env_id: str) -> None:
    env: Any = make_env(env_id)
    env.reset(seed=0)
    world, target = env.unwrapped, np.array(env.unwrapped.target_pos)
    beside = [target + step for step in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    for place, pays in ((next(tuple(p) for p in beside if free(world, p)), True), (world.agent_pos, False)):
        env.reset(seed=0)
        world.agent_pos = place
        _, reward, terminated, _, info = env.step(env.phrases.index("done"))
        assert (reward > 0, terminated, info["is_success"]) == (pays, True, pays)


def free(world: Any, place: Any) -> bool:
    inside = (place > 0).all() and (place < (world.width - 1, world.height - 1)).all()
    return bool(inside) and world.grid.get(*place) is None


def test_memory_acts_by_the_worlds_own_numbers() -> None:
    rewards: list[float] = []
    for make in (make_env, make_numeric_env):
        # The reward function is told the action that the world's step gets.
        env: Any = make("MiniGrid-MemoryS7-v0", reward=lambda state, action, next_state, info: action)
        env.reset(seed=0)
        rewards += [float(env.step(action)[1]) for action in range(5)]
    assert rewards == [0, 1, 2, 4, 5] * 2


@pytest.mark.parametrize("env_id", ["MiniGrid-MemoryS7-v0", "MiniGrid-Dynamic-Obstacles-5x5-v0", "BabyAI-GoTo-v0"])
def test_baseline_gets_the_same_actions(env_id: str) -> None:
    words: Any = make_env(env_id)
    numbers: Any = make_numeric_env(env_id)
    assert words.n_actions == numbers.action_space.n == len(expected(env_id))
    words.reset(seed=1)
    numbers.reset(seed=1)
    for action in random_actions(words.n_actions, 40):
        mine, others = words.step(action), numbers.step(action)
        assert mine[1:4] == others[1:4]
        assert (words.unwrapped.grid.encode() == numbers.unwrapped.grid.encode()).all()
        assert tuple(words.unwrapped.agent_pos) == tuple(numbers.unwrapped.agent_pos)
        if mine[2] or mine[3]:
            break
    for bad in (-1, len(expected(env_id))):
        with pytest.raises(SetupError, match=f"action {bad} where the present state offers"):
            numbers.step(bad)


def test_done_counts_in_babyai_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "use_done_actions", "1")  # what BABYAI_DONE_ACTIONS=1 sets on import
    env = make_env("BabyAI-GoToRedBall-v0")
    assert env.phrases == KEYS
    env.reset(seed=0)
    assert env.step(KEYS.index("done"))[2] is True
    assert make_env("MiniGrid-DoorKey-5x5-v0").phrases == KEYS[:6]


# --- worlds of a user's own


class Room(MiniGridEnv):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(mission_space=MissionSpace(lambda: "go"), grid_size=5, max_steps=9, **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.put_obj(Goal(), 3, 3)
        self.agent_pos, self.agent_dir, self.mission = (1, 1), 0, "go"


class Ruled(Room):
    def step(self, action: Any) -> Any:
        return super().step(action)


class SaysDone(Room):
    uses_done = True


class SaysNoDone(Ruled):
    uses_done = False


class LongHall(MemoryEnv):
    pass


class OtherHall(MemoryEnv):
    def step(self, action: Any) -> Any:
        return super().step(action)


@pytest.mark.parametrize(
    ("world", "numbers"),
    [
        (Room, range(6)),
        (Ruled, range(7)),
        (SaysDone, range(7)),
        (SaysNoDone, range(6)),
        (lambda: LongHall(size=7), [0, 1, 2, 4, 5]),
        (lambda: OtherHall(size=7), range(7)),
        (GoToDoorEnv, range(7)),
    ],
)
def test_a_users_world_is_offered_what_its_rules_may_use(world: Any, numbers: Any) -> None:
    assert meanings(world()) == tuple((KEYS[number], number) for number in numbers)


@pytest.mark.parametrize(("n_actions", "keys"), [(2, KEYS[:2]), (9, (*KEYS, "action 7", "action 8"))])
def test_fewer_or_more_actions_are_named_as_far_as_they_are_known(n_actions: int, keys: tuple[str, ...]) -> None:
    env = Ruled()
    env.action_space = gymnasium.spaces.Discrete(n_actions)
    assert meanings(env) == tuple((key, number) for number, key in enumerate(keys))
    env.action_space = gymnasium.spaces.MultiDiscrete([2, 2])
    assert meanings(env) == ()
    with pytest.raises(SetupError, match="Expected: a Discrete space"):
        TextObservation(env, phrases=dict(meanings(env)))


# --- phrases of the user's


def taken_by(env: TextObservation) -> list[int]:
    """The environment's action of each phrase."""
    return [int(env.choose(action)[0]) for action in range(env.n_actions)]


def test_other_words_keep_the_actions() -> None:
    letters = "abcdefg"
    assert taken_by(make_env("MiniGrid-MemoryS7-v0", phrases=list(letters[:5]))) == [0, 1, 2, 4, 5]
    assert taken_by(make_env("MiniGrid-MemoryS7-v0", phrases=list(letters))) == list(range(7))  # all that there are
    few = make_env("MiniGrid-MemoryS7-v0", phrases={"ahead": 2, "left": 0})
    assert (few.phrases, taken_by(few)) == (("ahead", "left"), [2, 0])
    few.reset(seed=0)
    few.step(1)
    assert "Last actions: left. Goal: " in few.text
    assert "Facing north, " in few.text


@pytest.mark.parametrize(
    ("phrases", "text"),
    [
        (list("abcd"), "4 phrases ['a', 'b', 'c', 'd'] for 5 actions. Expected: exactly 5 phrases, in action order."),
        (list("aabcd"), "'a'"),
        (5, "phrases=5. Expected: a list of strings"),
        ({}, "phrases=(). Expected: a list of strings"),
        (
            {"ahead": 7},
            "phrases={'ahead': 7} for 7 actions. Expected: for each phrase the number of its action, 0 to 6;",
        ),
        ({"ahead": "2"}, "'2' is none. To mend it: correct the number, or take the phrase away."),
        ({"ahead": True}, "True is none"),
        ({" ahead": 2}, "' ahead'"),
    ],
)
def test_phrases_that_do_not_fit_raise(phrases: Any, text: str) -> None:
    with pytest.raises(SetupError) as caught:
        make_env("MiniGrid-MemoryS7-v0", phrases=phrases)
    assert text in str(caught.value)


# --- errors


@pytest.mark.parametrize(
    ("env_id", "text"),
    [
        (
            "MiniGrid-DorKey-8x8-v0",
            "Expected: an id that Gymnasium knows, of which the nearest are MiniGrid-DoorKey-8x8-v0, "
            "MiniGrid-DoorKey-6x6-v0, MiniGrid-DoorKey-5x5-v0. To mend it: check the spelling, install the package it "
            "comes from, or name its module as 'module:id'.",
        ),
        ("minigrid:MiniGrid-MemoryS7-v1", "of which the nearest are MiniGrid-MemoryS7-v0,"),
        ("babyai-gotolocal-v0", "BabyAI-GoToLocal-v0"),
        ("sb3_llm/Mase-v0", "of which the nearest are sb3_llm/Maze-v0,"),
        ("Ättestupa", "Expected: an id that Gymnasium knows, such as MiniGrid-DoorKey-8x8-v0, sb3_llm/Maze-v0. To"),
    ],
)
def test_an_unknown_id_says_the_nearest(env_id: str, text: str) -> None:
    for make in (make_env, make_numeric_env):
        with pytest.raises(SetupError) as caught:
            make(env_id)
        assert str(caught.value).startswith(f"the environment id '{env_id}': ")
        assert text in str(caught.value)
        assert re.search("doesn't exist(?!.*Did you mean)", str(caught.value))


def lacking(**kwargs: Any) -> Any:
    raise gymnasium.error.DependencyNotInstalled('run `pip install "somewhere[worlds]"`')


@pytest.mark.parametrize(
    ("missing", "said"),
    [(["networkx"], "networkx"), (["imageio"], "imageio"), (["networkx", "imageio"], "networkx and imageio")],
)
@pytest.mark.parametrize("env_id", ["MiniGrid-WFC-MazeSimple-v0", "minigrid:MiniGrid-WFC-RoomsFabric-v0"])
def test_wfc_without_its_packages_says_what_to_install(
    env_id: str, missing: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("networkx", "imageio"):  # as installed, so that one can be taken away
        monkeypatch.setitem(sys.modules, name, None if name in missing else warnings)
    for preset in ("MazeSimple", "RoomsFabric") if "networkx" in missing else ():  # minigrid's stand-in without it
        monkeypatch.setattr(f"minigrid.envs.wfc.WFC{preset}Env", lacking)
    with pytest.raises(SetupError) as caught:
        make_env(env_id)
    assert str(caught.value) == (
        f"the environment '{env_id}' without {said}. Expected: networkx and imageio, which minigrid needs for its WFC "
        'worlds alone. To mend it: pip install "minigrid[wfc]".'
    )


def test_wfc_without_its_images_says_where_they_are(tmp_path: Path) -> None:
    pytest.importorskip("networkx")
    pytest.importorskip("imageio")
    preset = copy.copy(WFC_PRESETS["MazeSimple"])
    preset.pattern_path = tmp_path / "Nowhere.png"
    with pytest.raises(SetupError) as caught:
        make_env("MiniGrid-WFC-MazeSimple-v0", wfc_config=preset)
    assert re.fullmatch(
        r"the environment 'MiniGrid-WFC-MazeSimple-v0': minigrid [\d.]+ is installed without the image Nowhere\.png\. "
        r"Expected: the pattern images, which are in minigrid's source and not in what pip installs\. To mend it: "
        r'pip install -e "\.\[wfc\]" in a clone of Farama-Foundation/Minigrid, or choose another id\.',
        str(caught.value),
    )


def test_an_id_that_lacks_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gymnasium.registry, "Lacking-v0", gymnasium.envs.registration.EnvSpec("Lacking-v0", lacking))
    with pytest.raises(SetupError) as caught:
        make_env("Lacking-v0")
    assert str(caught.value) == (
        "the environment id 'Lacking-v0': run `pip install \"somewhere[worlds]\"`. Expected: an id whose packages are "
        "installed. To mend it: install what it says, or choose another id."
    )


def test_wfc_works_with_an_image(tmp_path: Path) -> None:
    pytest.importorskip("networkx")
    image = pytest.importorskip("imageio.v3")
    pattern = np.full((9, 9, 3), 255, np.uint8)
    pattern[::2, ::2] = 0
    image.imwrite(tmp_path / "pattern.png", pattern)
    config = WFCConfig(pattern_path=tmp_path / "pattern.png", tile_size=1, pattern_width=2)
    env = make_env("MiniGrid-WFC-MazeSimple-v0", wfc_config=config, size=9)
    assert env.phrases == KEYS[:6]
    assert len(list(wander(env, 20))) >= 20
    assert env.text.startswith("Facing ")
    assert env.text.endswith(". Goal: traverse the maze to get to the goal.")


# --- training


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-MemoryS7-v0",
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
        "MiniGrid-GoToDoor-5x5-v0",
        "MiniGrid-GoToObject-6x6-N2-v0",
        "MiniGrid-KeyCorridorS3R1-v0",
        "MiniGrid-LavaCrossingS9N1-v0",
        "MiniGrid-ObstructedMaze-1Dlhb-v0",
        "MiniGrid-PutNear-6x6-N2-v0",
        "BabyAI-BossLevel-v0",
        "BabyAI-UnlockPickup-v0",
    ],
)
def test_stock_ppo_trains_the_embedded_model(env_id: str) -> None:
    # Most of these pay nothing within 64 steps, and without a reward there is nothing to learn from.
    env = make_env(env_id, reward=lambda state, action, next_state, info: float(action == 2))
    model = PPO(LLMPolicy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert model.policy.phrases == [phrase for phrase, _ in expected(env_id)]
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
