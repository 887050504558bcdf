"""Parts of rewards: each pays what it says, shaping keeps the optimal policy, and the report adds up."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env as plain_vec_env
from stable_baselines3.common.logger import configure

from sb3_llm import LLMPolicy, make_env, make_vec_env
from sb3_llm.envs.layout import distances_to, generate_maze, neighbour, open_directions
from sb3_llm.errors import SetupError
from sb3_llm.numeric import make_numeric_env
from sb3_llm.rewards import Forbidden, Goal, Own, Potential, Quality, RewardSum, StepCost
from sb3_llm.rewards.judge import JudgedVecEnv
from sb3_llm.rewards.report import RewardReport

WON = {"is_success": True, "terminated": True, "own_reward": 0.9, "phrase": "go forward"}
ON = {"terminated": False, "own_reward": 0.0, "phrase": "turn left"}


def _nearness(obs: Any) -> float:
    return -float(np.abs(obs["goal"] - obs["position"]).sum())


def test_each_part_pays_what_it_says() -> None:
    assert [Goal(2.0)(None, 0, None, info) for info in (WON, ON)] == [2.0, 0.0]
    assert [Own(0.5)(None, 0, None, info) for info in (WON, ON)] == [0.45, 0.0]
    assert [StepCost(0.1)(None, 0, None, info) for info in (WON, ON)] == [-0.1, -0.1]
    assert [StepCost(0.1, but_success=True)(None, 0, None, info) for info in (WON, ON)] == [0.0, -0.1]
    assert [Forbidden({3}, 0.5)(None, act, None, ON) for act in (3, 2)] == [-0.5, 0.0]
    assert Forbidden(lambda state, act: state == act)(1, 1, None, ON) == -1.0
    assert [Quality(len, 0.1)(None, 0, None, info) for info in (WON, ON)] == pytest.approx([1.0, 0.9])
    shaped = Potential(float, gamma=0.5, weight=2.0)
    assert shaped(3, 0, 8, ON) == 2 * (0.5 * 8 - 3)
    assert shaped(3, 0, 8, WON) == 2 * (0 - 3)  # where the task has ended the potential is 0
    assert shaped(3, 0, 8, ON | {"TimeLimit.truncated": True}) == 2 * (0.5 * 8 - 3)  # a time limit ends no task


def test_parts_add_up() -> None:
    reward = Goal() + StepCost(0.1) + Potential(float, name="nearness")
    assert [part.name for part in reward.parts] == ["goal", "step cost", "nearness"]
    assert reward(0, 0, 1, WON) == pytest.approx(1.0 - 0.1)
    assert reward.breakdown == {"goal": 1.0, "step cost": -0.1, "nearness": 0.0}
    both = Goal() + RewardSum((StepCost(),))
    assert both == RewardSum((Goal(), StepCost()))
    assert pickle.loads(pickle.dumps(both)) == both
    with pytest.raises(SetupError, match="two parts of a reward named 'goal'"):
        Goal() + Goal(2.0)
    with pytest.raises(SetupError, match="a reward plus 3"):
        Goal() + 3


def test_the_mazes_reward_is_made_of_parts() -> None:
    """+1 at the goal, -0.1 otherwise: composed, it is what the maze itself pays."""
    composed = make_env(
        "sb3_llm/Maze-v0", reward=Goal() + StepCost(0.1, but_success=True) + Own(name="itself", weight=0.0)
    )
    plain, rng = make_env("sb3_llm/Maze-v0"), np.random.default_rng(0)
    for seed in range(3):
        composed.reset(seed=seed)
        plain.reset(seed=seed)
        ended = False
        while not ended:
            action = int(rng.integers(4))
            _, mine, ended, cut, info = composed.step(action)
            assert mine == pytest.approx(plain.step(action)[1])
            assert sum(info["reward_parts"].values()) == pytest.approx(mine)
            ended = ended or cut


def test_numbers_get_the_same_reward() -> None:
    worlds = [
        make("sb3_llm/Maze-v0", reward=Goal() + Potential(_nearness) + Quality(len))
        for make in (make_env, make_numeric_env)
    ]
    for world in worlds:
        world.reset(seed=1)
    for action in (1, 2, 1, 0, 3, 2, 2):
        paid = [world.step(action)[1] for world in worlds]
        assert paid[0] == paid[1]


@pytest.mark.parametrize("seed", range(5))
def test_shaping_keeps_the_optimal_policy(seed: int) -> None:
    """Value iteration over a maze with loops, with a potential that lures away from the goal: the same best moves."""
    rng, size, gamma = np.random.default_rng(seed), 4, 0.9
    walls = generate_maze(size, "dfs", rng)
    goal = (size - 1, size - 1)
    lure = rng.normal(size=(size, size)) * 5
    plain = Goal() + StepCost(0.1)
    shaped = plain + Potential(lambda cell: lure[cell], gamma=gamma)
    wrong = plain + Potential(lambda cell: lure[cell], gamma=0.5)
    best = [_best_moves(walls, goal, reward, gamma) for reward in (plain, shaped, wrong)]
    assert best[0] == best[1]
    assert best[0] != best[2]  # another gamma than the algorithm's does change it
    assert all(moves for cell, moves in best[0].items() if cell != goal)
    assert int(distances_to(walls, goal)[0, 0]) > 0


def _best_moves(walls: Any, goal: tuple[int, int], reward: Any, gamma: float) -> dict[tuple[int, int], set[int]]:
    cells = [(row, column) for row in range(goal[0] + 1) for column in range(goal[1] + 1)]
    values = dict.fromkeys(cells, 0.0)

    def worth(cell: tuple[int, int], action: int) -> float:
        after = neighbour(cell, action) if action in open_directions(walls, cell) else cell
        won = after == goal
        paid = reward(cell, action, after, {"is_success": won, "terminated": won})
        return float(paid + (0.0 if won else gamma * values[after]))

    for _ in range(300):
        values.update({cell: max(worth(cell, action) for action in range(4)) for cell in cells if cell != goal})
    found = {}
    for cell in cells:
        worths = [worth(cell, action) for action in range(4)]
        found[cell] = {action for action in range(4) if worths[action] > max(worths) - 1e-6}
    return found | {goal: set()}


def test_the_report_adds_up(tmp_path: Path) -> None:
    reward = Goal() + StepCost(0.1) + Forbidden({3}, 0.5)
    report = RewardReport()
    model = PPO("MlpPolicy", _as_numbers(reward), n_steps=32, batch_size=64, n_epochs=1, seed=0)
    model.set_logger(configure(str(tmp_path), ["json"]))
    model.learn(256, callback=report)
    assert report.steps == 256
    assert report.totals["step cost"] == pytest.approx(-25.6)
    assert report.totals["forbidden"] == pytest.approx(-0.5 * report.paid["forbidden"])
    assert report.totals["goal"] == report.paid["goal"]
    logged = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8").splitlines()[-1])
    assert logged["reward/step cost"] == pytest.approx(-0.1)
    assert 0 < logged["reward/forbidden_paid"] < 1
    console = Console(record=True, width=100)
    console.print(report.table())
    assert "step cost" in console.export_text()


def _as_numbers(reward: Any) -> Any:
    return plain_vec_env(lambda: make_numeric_env("sb3_llm/Maze-v0", size=3, reward=reward), 4, seed=0)


def test_a_judge_is_asked_once_for_all() -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def judge(texts: list[str], phrases: list[str]) -> list[float]:
        asked.append((texts, phrases))
        return [float(phrase == "north") for phrase in phrases]

    plain, judged = (make_vec_env("sb3_llm/Maze-v0", n_envs=3, seed=0) for _ in range(2))
    envs = JudgedVecEnv(judged, judge, weight=0.5)
    texts = [envs.observation_space.decode(row) for row in envs.reset()]
    plain.reset()
    actions = np.array([0, 1, 2])
    rewards, infos = envs.step(actions)[1::2]
    np.testing.assert_allclose(rewards, plain.step(actions)[1] + 0.5 * np.array([info["judged"] for info in infos]))
    assert len(asked) == 1
    assert asked[0] == (texts, ["north", "south", "east"])
    PPO(LLMPolicy, envs, n_steps=8, batch_size=24, n_epochs=1).learn(24)
    assert len(asked) == 1 + 8


def test_judges_that_can_not_be() -> None:
    with pytest.raises(SetupError, match="observations in Box"):
        JudgedVecEnv(_as_numbers(None), lambda texts, phrases: [])
    envs = JudgedVecEnv(make_vec_env("sb3_llm/Maze-v0", n_envs=2, seed=0), lambda texts, phrases: [float("nan")])
    envs.reset()
    with pytest.raises(SetupError, match=r"the judge returned \[nan\] for 2 steps"):
        envs.step(np.array([0, 0]))
