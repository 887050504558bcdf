"""The maze: the walk, rewards, drawings, errors, the contracts of Gymnasium and Stable-Baselines3."""

import copy
import importlib
import math
import pickle
import warnings
from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_llm.envs
from sb3_llm.envs import layout
from sb3_llm.envs.layout import GENERATORS, layout_hash
from sb3_llm.envs.maze import DIRECTIONS, Code, MazeEnv, optimal_actions, view_grid
from sb3_llm.errors import SetupError
from tests.walks import flood

NORTH, SOUTH, EAST, WEST = range(4)
ENV_IDS = {"sb3_llm/Maze-v0": 5} | {f"sb3_llm/Maze{n}x{n}-v0": n for n in (3, 4, 5, 6, 8, 10)}
generators = pytest.mark.parametrize("generator", list(GENERATORS))
views = pytest.mark.parametrize("view", ["partial", "full"])


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


# --- the walk


def test_walls_stop_the_agent_and_passages_let_it_through() -> None:
    env = MazeEnv(size=4, split="all")
    moves = {NORTH: (-1, 0), SOUTH: (1, 0), EAST: (0, 1), WEST: (0, -1)}
    seen: Counter[bool] = Counter()
    for action in np.random.default_rng(0).integers(4, size=1000):
        if sum(seen.values()) % 50 == 0:
            env.reset(seed=sum(seen.values()))
        before, move = np.array(env.position), np.array(moves[int(action)])
        blocked = bool(env.walls[tuple(2 * before + 1 + move)])
        assert env.step(action)[0]["position"].tolist() == (before if blocked else before + move).tolist()
        seen[blocked] += 1
    assert min(seen[True], seen[False]) > 100


@generators
@views
def test_optimal_actions_reach_the_goal_in_optimal_length(generator: str, view: str) -> None:
    env = MazeEnv(size=6, generator=generator, view=view, split="test")
    for number in range(15):
        _, info = env.reset(options={"layout": number})
        length = int(flood(env.walls, 1, 1)[-2, -2]) // 2
        assert info == {"optimal_length": length, "layout": layout_hash(env.walls)[:16]}
        for step in range(1, length + 1):
            action = optimal_actions(env.walls, env.position, env.goal)[0]
            observation, reward, terminated, truncated, after = env.step(action)
            assert (terminated, truncated) == (step == length, False)
            assert after == info | {"is_success": terminated}
            assert reward == (1.0 if terminated else -0.1)
            assert type(terminated) is bool
            assert type(reward) is float
        assert observation["position"].tolist() == observation["goal"].tolist() == [5, 5]


@pytest.mark.parametrize("trail", [True, False])
def test_partial_view_is_the_window_around_the_agent(trail: bool) -> None:
    env = MazeEnv(size=4, split="all", trail=trail)
    observation, _ = env.reset(seed=0)
    whole = np.zeros((15, 15), np.uint8)
    whole[3:12, 3:12] = np.where(env.walls == 1, 2, 1)
    whole[10, 10] = 3
    for action in [SOUTH, EAST, SOUTH, EAST, NORTH] * 8:
        row, column = 2 * observation["position"]
        expected = whole[row + 1 : row + 8, column + 1 : column + 8].copy()
        expected[3, 3] = 4
        assert (view_grid(observation["view"]) == expected).all()
        observation = env.step(action)[0]
        if trail and (2 * observation["position"] != (row, column)).any():
            whole[row + 4, column + 4] = 5


def test_full_view_is_the_whole_grid() -> None:
    env = MazeEnv(size=3, view="full", split="all")
    view = view_grid(env.reset(seed=0)[0]["view"])
    assert (view[1, 1], view[5, 5]) == (Code.AGENT, Code.GOAL)
    assert (view_grid(view) == view).all()
    assert ((view == Code.WALL) == (env.walls == 1)).all()


@views
def test_footprints_are_the_cells_left_and_gone_at_reset(view: str) -> None:
    env = MazeEnv(size=4, view=view)
    first, _ = env.reset(seed=0)
    kept = first["view"].copy()
    path = [env.position]
    for _ in range(5):
        observation = env.step(optimal_actions(env.walls, env.position, env.goal)[0])[0]
        path.append(env.position)
    assert (first["view"] == kept).all()  # an observation given away never changes
    footprints = {(int(row), int(column)) for row, column in np.argwhere(view_grid(observation["view"]) == Code.TRAIL)}
    if view == "full":
        assert footprints == {(2 * row + 1, 2 * column + 1) for row, column in path[:-1]}
    else:
        assert 0 < len(footprints) <= 5
    assert Code.TRAIL not in env.reset()[0]["view"]


# --- rewards


def test_reward_function_sees_both_states_and_the_finished_info() -> None:
    calls: list[tuple[Any, ...]] = []

    def reward(state: Any, action: int, next_state: Any, info: dict[str, Any]) -> float:
        calls.append((state["position"].tolist(), action, next_state["position"].tolist(), dict(info)))
        return np.float32(2.5)

    env = gymnasium.make("sb3_llm/Maze3x3-v0", reward=reward)
    observation, _ = env.reset(seed=0)
    action = optimal_actions(env.unwrapped.walls, (0, 0), (2, 2))[0]
    after, value, _, _, info = env.step(action)
    assert (value, type(value)) == (2.5, float)
    assert calls == [(observation["position"].tolist(), action, after["position"].tolist(), info)]
    assert calls[0][0] != calls[0][2]
    assert info["is_success"] is False


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1.0"])
def test_reward_that_is_no_number_raises(value: Any) -> None:
    env = MazeEnv(reward=lambda *_: value)
    env.reset(seed=0)
    with pytest.raises(SetupError, match="reward"):
        env.step(SOUTH)


# --- drawings


def test_ansi_names_the_last_action_and_draws_every_square() -> None:
    env = MazeEnv(size=3, render_mode="ansi")
    env.reset(seed=0)
    lines = env.render().split("\n")
    assert lines[0] == ""
    assert (lines[2][1], lines[6][5]) == ("A", "G")
    assert [[letter == "#" for letter in line] for line in lines[1:8]] == (env.walls == 1).tolist()
    assert lines[8:] == [""]
    for action, phrase in enumerate(DIRECTIONS):
        env.step(action)
        assert env.render().startswith(f"  ({phrase})\n")


def test_rgb_array_shows_walls_agent_and_goal() -> None:
    env = MazeEnv(size=3, render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)
    middles = image[16::32, 16::32]
    wall, agent, goal = middles[0, 0], middles[1, 1], middles[5, 5]
    assert ((middles == wall).all(-1) == (env.walls == 1)).all()
    assert len({tuple(colour) for colour in (wall, agent, goal, image[33, 33])}) == 4
    env.position = env.goal
    assert (env.render()[16::32, 16::32][5, 5] == agent).all()
    assert (env.render()[161, 161] == goal).all()
    assert MazeEnv(size=100, render_mode="rgb_array").render().shape == (804, 804, 3)


def test_human_window_shows_the_rgb_array_and_closes_twice() -> None:
    import pygame

    env = gymnasium.make("sb3_llm/Maze3x3-v0", render_mode="human")
    env.reset(seed=0)
    env.step(SOUTH)
    assert env.render() is None
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    twin = MazeEnv(size=3, render_mode="rgb_array")
    twin.reset(seed=0)
    twin.step(SOUTH)
    assert (shown == twin.render()).all()
    assert copy.deepcopy(env.unwrapped).position == env.unwrapped.position
    env.close()
    env.close()
    assert pygame.display.get_surface() is None


def test_render_without_a_mode_warns() -> None:
    env = MazeEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert env.render() is None


# --- errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 1}, "size=1. Expected: a whole number of cells per side, 2 or more"),
        ({"size": 4.0}, "size=4.0. Expected: a whole number"),
        ({"size": "5"}, "size='5'. Expected: a whole number"),
        ({"size": True}, "size=True. Expected: a whole number"),
        ({"generator": "prim"}, "generator='prim'. Expected: one of ['dfs', 'wilson', 'kruskal']"),
        ({"generator": ["dfs"]}, "generator=['dfs']. Expected: one of"),
        ({"split": "valid"}, "split='valid'. Expected: one of ['train', 'test', 'all']"),
        ({"view": "top"}, "view='top'. Expected: one of ['partial', 'full']"),
        ({"render_mode": "svg"}, "render_mode='svg'. Expected: None or one of ['human', 'ansi', 'rgb_array']"),
        ({"reward": 1.0}, "reward=1.0. Expected: a function (state, action, next_state, info) -> float"),
    ],
)
def test_bad_arguments_raise_at_construction(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError) as caught:
        MazeEnv(**options)
    assert text in str(caught.value)
    assert "To mend it: " in str(caught.value)


@pytest.mark.parametrize(
    ("method", "argument", "text"),
    [
        ("reset", {"layout": -1}, "layout=-1. Expected: a whole number, 0 or more"),
        ("reset", {"layout": 1.5}, "layout=1.5. Expected"),
        ("reset", {"layout": None}, "layout=None. Expected"),
        ("reset", {"layout": True}, "layout=True. Expected"),
        ("reset", {"layout_id": 3}, "options with ['layout_id']. Expected: no key but 'layout'"),
        ("reset", {"layout": 3, 4: 5}, "options with ['4']. Expected"),
        ("step", -1, "action=-1. Expected: 0, 1, 2 or 3"),
        ("step", 4, "action=4. Expected"),
        ("step", 1.0, "action=1.0. Expected"),
        ("step", None, "action=None. Expected"),
    ],
)
def test_bad_options_and_actions_raise(method: str, argument: Any, text: str) -> None:
    env = MazeEnv()
    with pytest.raises(SetupError) as caught:
        env.reset(options=argument) if method == "reset" else env.step(argument)
    assert text in str(caught.value)


def test_a_split_without_layouts_raises_and_does_not_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "TEST_ONE_IN", 2**256)
    with pytest.raises(SetupError, match=r"no test layout in 1000 draws of size=2, generator='dfs'"):
        MazeEnv(size=2, split="test")
    MazeEnv(size=2, split="train")


# --- the contracts of Gymnasium and Stable-Baselines3


@pytest.mark.parametrize("env_id", list(ENV_IDS))
@views
def test_checkers_find_nothing_to_warn_about(env_id: str, view: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(env_id, view=view)
        # The window waits a quarter of a second for each frame; one id shows that its mode passes.
        gymnasium_check_env(env.unwrapped, skip_render_check=env_id != "sb3_llm/Maze3x3-v0")
        sb3_check_env(env)
        sb3_check_env(env.unwrapped)


@pytest.mark.parametrize(("env_id", "size"), ENV_IDS.items())
def test_registered_step_limit_truncates(env_id: str, size: int) -> None:
    env = gymnasium.make(env_id, split="test", generator="kruskal")
    assert (env.unwrapped.size, env.unwrapped.split, env.unwrapped.generator) == (size, "test", "kruskal")
    assert env.unwrapped.phrases == ("north", "south", "east", "west")
    env.reset(seed=0)
    ends = [env.step(NORTH)[2:4] for _ in range(4 * size * size)]
    assert ends == [(False, False)] * (4 * size * size - 1) + [(False, True)]


def test_reload_registers_nothing_twice() -> None:
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(sb3_llm.envs)
    assert dict(gymnasium.registry) == before
    assert {env_id for env_id in before if env_id.startswith("sb3_llm/Maze")} == set(ENV_IDS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_walk_on_alike(copied: Any) -> None:
    env = MazeEnv(size=4)
    env.reset(seed=5)
    env.step(SOUTH)
    twin = copied(env)
    for action in (EAST, SOUTH, WEST):
        pairs = zip(env.step(action)[0].values(), twin.step(action)[0].values(), strict=True)
        assert all((mine == theirs).all() for mine, theirs in pairs)
    assert env.reset()[1] == twin.reset()[1]


def test_ppo_learns_a_few_steps() -> None:
    model = PPO("MultiInputPolicy", "sb3_llm:sb3_llm/Maze-v0", n_steps=32, batch_size=32, n_epochs=1, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
