"""The best policy without memory: distances, bounds and roll-outs by hand; what the committed figures say of texts."""

import json

import gymnasium as gym
import numpy as np
import pytest
from minigrid.core.actions import Actions

from sb3_llm.benchmarks.memoryless import MOVES, RESULTS, WORLDS, Layout, Table, arrives, explored, readings, seen
from tests.drawn import DrawnWorld

HALL = ("######", "#>..G#", "######")


def hall() -> tuple[DrawnWorld, Layout]:
    env = DrawnWorld(*HALL)
    env.reset()
    return env, explored(env)


def test_distances_by_hand() -> None:
    _, layout = hall()
    assert layout.start == (1, 1, 0)
    assert [layout.far[x, 1, 0] for x in (1, 2, 3, 4)] == [3, 2, 1, 0]
    assert layout.far[1, 1, 2] == 5, "facing away: two turns first"
    assert layout.best((1, 1, 0)) == [2]
    assert layout.best((1, 1, 2)) == [0, 1], "to turn either way is as short"


def test_lava_is_no_way_and_walls_stop() -> None:
    env = DrawnWorld("#####", "#>.G#", "#.~.#", "#####")
    env.reset()
    layout = explored(env)
    assert layout.after[2, 1, 1] == [(2, 1, 0), (2, 1, 2), None]
    assert layout.after[1, 1, 3][2] == (1, 1, 3)
    assert (2, 2, 1) not in layout.after
    table, keys = Table(), {pose: pose for pose in layout.after}
    for pose in keys:
        table.add(pose, [MOVES.index(Actions.forward)])
    assert arrives(layout, keys, table, None), "straight on is the goal"
    assert not arrives(layout._replace(start=(2, 1, 1)), keys, table, None), "and here lava"


@pytest.mark.parametrize("env_id", WORLDS)
def test_a_shortest_way_arrives_in_as_many_moves_as_it_says(env_id: str) -> None:
    env = gym.make(env_id, disable_env_checker=True, **WORLDS[env_id])
    for seed in range(3):
        env.reset(seed=seed)
        layout = explored(env.unwrapped)
        env.reset(seed=seed)
        pose, terminated = layout.start, False
        for _ in range(layout.far[pose]):
            assert not terminated
            move = layout.best(pose)[0]
            pose = layout.after[pose][move]
            _, reward, terminated, _, _ = env.step(MOVES[move])
        assert terminated
        assert reward > 0


def test_the_bound_counts_the_most_frequent_move() -> None:
    table = Table()
    for best in ([0], [0], [2], [0, 1]):
        table.add("alike", best)
    table.add("alone", [1])
    assert table.right() == pytest.approx((3 + 1) / 5)
    assert table.move("alike", None) == 0
    drawn = [table.move("alike", np.random.default_rng(seed)) for seed in range(300)]
    assert np.bincount(drawn) / 300 == pytest.approx([3 / 5, 1 / 5, 1 / 5], abs=0.08)


def test_a_policy_that_tells_nothing_apart_goes_nowhere_and_one_that_does_arrives() -> None:
    env, layout = hall()
    start = layout._replace(start=(1, 1, 2))
    poses = dict(seen(env, layout))
    assert len(poses) == 12, "three cells and four headings; at the goal there is nothing to do"
    for read, there in ((lambda obs: "same", False), (readings(env)["text"], True)):
        table, keys = Table(), {pose: read(obs) for pose, obs in poses.items()}
        for pose, key in keys.items():
            table.add(key, layout.best(pose))
        assert arrives(start, keys, table, None) is there
        assert arrives(start, keys, table, np.random.default_rng(0)), "sampled, both do"


def test_the_committed_figures_are_of_these_worlds_and_texts_lose_nothing() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["worlds"]
    assert list(found) == list(WORLDS)
    for rows in found.values():
        assert rows["text"] == rows["view and compass"]
        assert rows["text"]["views_each"] == 1.0
        assert rows["view"]["right"] < rows["text"]["right"]
