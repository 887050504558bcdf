"""Maze layouts: generators, splits, hashes, and the mazes that seeds and numbers stand for."""

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sb3_llm.envs import layout
from sb3_llm.envs.layout import GENERATORS, generate_maze, layout_hash, numbered_layout
from sb3_llm.envs.maze import MazeEnv, optimal_actions
from tests.walks import flood

NORTH, SOUTH, EAST, WEST = range(4)
generators = pytest.mark.parametrize("generator", list(GENERATORS))


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
