"""The maze: layouts and their splits, the Gymnasium contract, rewards, drawings, errors."""

import copy
import importlib
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_llm.envs
from sb3_llm.envs import layout
from sb3_llm.envs.layout import GENERATORS, generate_maze, layout_hash, numbered_layout
from sb3_llm.envs.maze import DIRECTIONS, Code, MazeEnv, optimal_actions, view_grid
from sb3_llm.errors import SetupError

NORTH, SOUTH, EAST, WEST = range(4)
ENV_IDS = {"sb3_llm/Maze-v0": 5} | {f"sb3_llm/Maze{n}x{n}-v0": n for n in (3, 4, 5, 6, 8, 10)}
generators = pytest.mark.parametrize("generator", list(GENERATORS))
views = pytest.mark.parametrize("view", ["partial", "full"])


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def flood(walls: NDArray[np.uint8], row: int, column: int) -> NDArray[np.int64]:
    """Squares walked from one square of the wall grid to every other: no cells, no directions, no queue."""
    steps = np.full(walls.shape, -1)
    steps[row, column] = 0
    for step in range(1, walls.size):
        near = np.zeros(walls.shape, dtype=bool)
        near[1:] |= steps[:-1] >= 0
        near[:-1] |= steps[1:] >= 0
        near[:, 1:] |= steps[:, :-1] >= 0
        near[:, :-1] |= steps[:, 1:] >= 0
        fresh = near & (walls == 0) & (steps < 0)
        if not fresh.any():
            break
        steps[fresh] = step
    return steps


def hashes(seed: int, count: int, split: str = "train", **options: Any) -> list[str]:
    env = MazeEnv(split=split, **options)
    drawn = [env.reset(seed=None if number else seed)[1]["layout"] for number in range(count)]
    assert layout.layout_split(env.walls) == split
    return drawn


# --- layouts


@generators
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_mazes_are_spanning_trees(generator: str, size: int) -> None:
    for seed in range(60):
        walls = generate_maze(size, generator, np.random.default_rng(seed))
        assert walls.dtype == np.uint8
        assert walls.shape == (2 * size + 1, 2 * size + 1)
        assert not walls[1::2, 1::2].any()
        assert walls[::2, ::2].all()
        assert walls[[0, -1]].all()
        assert walls[:, [0, -1]].all()
        passages = (walls == 0).sum() - size * size
        assert passages == size * size - 1
        assert (flood(walls, 1, 1)[walls == 0] >= 0).all()


def chi_square(generator: str, draws: int) -> float:
    """Against all 192 spanning trees of 3x3 cells being equally likely; mean 191, standard deviation 19.5."""
    rng = np.random.default_rng(0)
    counts = Counter(layout_hash(generate_maze(3, generator, rng)) for _ in range(draws))
    assert len(counts) <= 192
    expected = draws / 192
    seen = sum((count - expected) ** 2 / expected for count in counts.values())
    return seen + (192 - len(counts)) * expected


def test_wilson_is_uniform_and_the_bound_can_fail() -> None:
    assert chi_square("wilson", 80 * 192) < 191 + 5 * 19.5
    assert chi_square("kruskal", 80 * 192) > 191 + 5 * 19.5


def test_dfs_starts_anywhere() -> None:
    rng = np.random.default_rng(0)
    assert len({layout_hash(generate_maze(3, "dfs", rng)) for _ in range(1500)}) == 88  # 14 from a fixed corner


def test_paths_of_known_mazes() -> None:
    walls = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], np.uint8)
    assert layout.distances_to(walls, (1, 1)).tolist() == [[2, 1], [3, 0]]
    assert [layout.open_directions(walls, cell) for cell in [(0, 0), (0, 1), (1, 1)]] == [[1, 2], [1, 3], [0]]
    assert optimal_actions(walls, (1, 0), (1, 1)) == [NORTH]
    assert optimal_actions(walls, (1, 1), (1, 1)) == []
    walls[2, 2] = walls[3, 2] = 0
    assert optimal_actions(walls, (0, 0), (1, 1)) == [SOUTH, EAST]  # a loop has two shortest paths
    walls[2] = 1
    assert layout.distances_to(walls, (1, 1)).tolist() == [[-1, -1], [1, 0]]
    assert optimal_actions(walls, (0, 0), (1, 1)) == []


@generators
@pytest.mark.parametrize("size", [3, 5])
def test_train_and_test_are_disjoint(generator: str, size: int) -> None:
    rng = np.random.default_rng(1)
    train = {layout_hash(layout.draw_layout(size, generator, "train", rng)) for _ in range(2000)}
    test = {layout_hash(layout.draw_layout(size, generator, "test", rng)) for _ in range(600)}
    assert train
    assert test
    assert train.isdisjoint(test)
    if size == 3:  # few enough to see them all: nothing lies outside the two splits
        assert {layout_hash(layout.draw_layout(3, generator, "all", rng)) for _ in range(2000)} == train | test


# --- seeds and numbered layouts


def test_same_seed_same_mazes_in_a_fresh_process() -> None:
    code = (
        "from sb3_llm.envs.maze import MazeEnv; env = MazeEnv(generator='wilson');"
        "print(env.reset(seed=7)[1]['layout'], env.reset()[1]['layout'], env.reset(options={'layout': 3})[1]['layout'])"
    )
    child_env = os.environ | {"PYTHONHASHSEED": "1234"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=child_env).stdout.split()
    numbered = layout_hash(numbered_layout(5, "wilson", "train", 3))[:16]
    assert printed == [*hashes(7, 2, generator="wilson"), numbered]


@generators
@pytest.mark.parametrize("split", ["train", "test"])
def test_stream_goes_on_and_repeats_after_reseeding(generator: str, split: str) -> None:
    first = hashes(3, 6, split, generator=generator)
    assert len(set(first)) == 6
    assert hashes(3, 6, split, generator=generator) == first
    assert hashes(4, 6, split, generator=generator) != first


def test_numbered_layouts_do_not_depend_on_the_seed_nor_consume_it() -> None:
    env = MazeEnv(size=6)
    env.reset(seed=11)
    expected = env.reset()[1]["layout"]
    env.reset(seed=11)
    first = env.reset(options={"layout": 2})[1]["layout"]
    assert env.reset()[1]["layout"] == expected
    assert env.reset(seed=12, options={"layout": np.int64(2)})[1]["layout"] == first
    assert len({env.reset(options={"layout": k})[1]["layout"] for k in range(50)}) == 50


@pytest.mark.parametrize(
    ("generator", "expected"),
    [("dfs", "2fc9e523d2ba1f07"), ("wilson", "dfe12177557c6b1f"), ("kruskal", "a14837195b29966e")],
)
def test_numbered_layouts_never_change(generator: str, expected: str) -> None:
    # Reported results name layouts by number, so a change here makes old results wrong.
    assert layout_hash(numbered_layout(5, generator, "train", 0))[:16] == expected


def test_hash_and_split_are_of_the_content() -> None:
    walls = generate_maze(3, "dfs", np.random.default_rng(0))
    assert len(layout_hash(walls)) == 64
    assert layout_hash(walls) == layout_hash(walls.astype(bool))
    for row, column in [(1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3)]:
        before, walls[row, column] = layout_hash(walls), 1 - walls[row, column]
        assert layout_hash(walls) != before
        assert layout.layout_split(walls) == ("train" if int(layout_hash(walls), 16) % 5 else "test")


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


def test_partial_view_is_the_window_around_the_agent() -> None:
    env = MazeEnv(size=4, split="all")
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


def test_full_view_is_the_whole_grid() -> None:
    env = MazeEnv(size=3, view="full", split="all")
    view = view_grid(env.reset(seed=0)[0]["view"])
    assert (view[1, 1], view[5, 5]) == (Code.AGENT, Code.GOAL)
    assert (view_grid(view) == view).all()
    assert ((view == Code.WALL) == (env.walls == 1)).all()


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
