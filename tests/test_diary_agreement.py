"""Agreement with experts: the shortest path, the planner, the BabyAI bot, one of the user; maps of mazes."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation, make_env
from sb3_llm.diary import Diary
from sb3_llm.diary.figures import draw_maze
from sb3_llm.diary.guides import Advice, Companion, Guide, ShortestPath
from sb3_llm.diary.maps import MazeMap, Shares, map_maze
from sb3_llm.diary.mazes import spot_of
from sb3_llm.diary.playing import Decision, agreement, play
from sb3_llm.envs.layout import distances_to, optimal_actions
from tests.test_diary import DOOR, MAZE, SMALL

SURE = {"model": "embedded"}
UNSURE = {"model": "embedded", "temperature": 1e6}  # every phrase as likely as the others


def told_maze() -> TextObservation:
    """A maze whose masks leave nothing but the shortest path."""
    world = make_env(MAZE)
    inner: Any = world.unwrapped
    inner.action_masks = lambda: np.isin(range(4), optimal_actions(inner.walls, inner.position, inner.goal))
    return world


def fresh(make: Callable[[], TextObservation] | str, policy_kwargs: dict[str, Any], masked: bool = False) -> Any:
    env = DummyVecEnv([(lambda: make_env(make)) if isinstance(make, str) else make])
    kinds: Any = (MaskablePPO, MaskableLLMPolicy) if masked else (PPO, LLMPolicy)
    return kinds[0](kinds[1], env, policy_kwargs=policy_kwargs, **SMALL)


# --- agreement


def test_agreement_is_about_the_likeliest_action_and_all_right_ones() -> None:
    """Whatever was drawn; where nobody knows, a decision does not count."""

    def decide(probabilities: tuple[float, ...], *right: int) -> Decision:
        return Decision(("", None, None), "", ("a", "b", "c"), probabilities, 2, frozenset(right), 0.0)

    one, other, unknown = decide((0.5, 0.3, 0.2), 0, 1), decide((0.2, 0.7, 0.1), 0), decide((1.0, 0.0, 0.0))
    assert agreement([one, other, unknown]) == pytest.approx((1 / 2, (0.8 + 0.2) / 2))
    assert agreement([unknown]) is None


def test_agreement_of_a_policy_that_is_the_expert(tmp_path: Path) -> None:
    model = fresh(told_maze, UNSURE, masked=True)
    model.learn(16, callback=(diary := Diary(told_maze, every=1, folder=tmp_path)))
    names = "diary/agreement", "diary/agreement_probability", "diary/maze_agreement", "diary/maze_probability"
    assert diary.values == dict.fromkeys(names, 1.0)
    for episode in diary.played:
        assert (episode.success, len(episode.decisions)) == (True, optimal_length(episode.seed))
    assert diary.shares is not None
    assert all(share == 1 or math.isnan(share) for share in diary.shares.likeliest.flat)


def optimal_length(seed: int) -> int:
    return int(make_env(MAZE).reset(seed=seed)[1]["optimal_length"])


@pytest.mark.parametrize(("env_id", "chance"), [(MAZE, 1 / 4), (DOOR, 1 / 6)])
def test_agreement_of_a_policy_that_knows_nothing(env_id: str, chance: float, tmp_path: Path) -> None:
    model = fresh(env_id, UNSURE)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.policy.lm.parameters():
            weight.normal_(std=0.1)
    diary = Diary(env_id, folder=tmp_path, max_steps=20, figures=False)
    model.learn(8, callback=diary)
    assert diary.values["diary/agreement_probability"] == pytest.approx(chance, abs=0.01)
    assert diary.values["diary/agreement"] < 0.7
    if env_id == MAZE:
        assert diary.values["diary/maze_probability"] == pytest.approx(chance, abs=0.01)


def test_agreement_of_the_embedded_model_with_the_planner(tmp_path: Path) -> None:
    """It read such a planner's stories."""
    model = fresh(DOOR, SURE)
    model.learn(8, callback=(diary := Diary(DOOR, folder=tmp_path, episodes=3)))
    assert diary.values["diary/agreement"] > 0.7
    assert "Expert: " in (tmp_path / "000000008.md").read_text()
    assert not list(tmp_path.glob("*maze.png"))
    again = make_env(DOOR)
    for episode in diary.played:  # a seed and its actions say it all
        again.reset(seed=episode.seed)
        for decision in episode.decisions:
            assert decision.text == again.text
            again.step(decision.action)


def test_the_bot_and_the_planner_play_along_with_any_policy(tmp_path: Path) -> None:
    level = "BabyAI-GoToLocal-v0"
    model = fresh(level, UNSURE)
    for expert in ("bot", "planner"):
        model.learn(8, callback=(diary := Diary(level, folder=tmp_path, expert=expert, max_steps=6, figures=False)))
        known = [each.right for episode in diary.played for each in episode.decisions]
        assert all(known)
        assert len(set(known)) > 1


def test_an_expert_that_breaks_is_silent_from_there_on() -> None:
    class Breaks(Advice):
        def right(self, env: TextObservation) -> frozenset[int]:
            if env.state["position"].any():
                raise KeyError("lost")
            return super().right(env)

    model = fresh(MAZE, SURE)
    (episode,) = play(model.policy, lambda: make_env(MAZE), Breaks, [0], 10)
    known = [bool(each.right) for each in episode.decisions]
    assert known[0]
    assert not all(known)
    assert not any(known[known.index(False) :])
    assert episode.lost == "KeyError: 'lost'"
    quiet = Companion(None)
    quiet.begin(make_env(MAZE))
    assert quiet.right(make_env(MAZE)) == frozenset()


# --- mazes


class Walked:
    """Every state of a maze, and where each action leads from there, by taking it."""

    def __init__(self, env_id: str) -> None:
        self.world = make_env(env_id)
        self.world.reset(seed=1)
        self.inner = cast(Any, self.world.unwrapped)
        self.turns = env_id != MAZE
        squares = np.argwhere(self.inner.walls == 0).tolist()
        cells = [(row // 2, column // 2) for row, column in squares if row % 2 and column % 2]
        states: list[Any] = [((x, y), side) for y, x in squares for side in range(4)] if self.turns else cells
        self.won: set[Any] = set()
        actions = range(3 if self.turns else 4)
        self.after = {state: {action: self.take(state, action) for action in actions} for state in states}

    def put(self, state: Any) -> None:
        if self.turns:
            self.inner.agent_pos, self.inner.agent_dir = state
            self.inner.step_count = 0
        else:
            self.inner.position = state

    def take(self, state: Any, action: int) -> Any:
        self.put(state)
        won = self.inner.step(action)[2]
        x, y = map(int, self.inner.agent_pos if self.turns else self.inner.position)
        now = ((x, y), self.inner.agent_dir) if self.turns else (x, y)
        self.won |= {now} if won else set()
        return now

    def steps_left(self) -> dict[Any, int]:
        left, queue = dict.fromkeys(self.won, 0), deque(self.won)
        while queue:
            state = queue.popleft()
            for before in [each for each in self.after if each not in left and state in self.after[each].values()]:
                left[before] = left[state] + 1
                queue.append(before)
        return left


@pytest.mark.parametrize("env_id", [MAZE, "sb3_llm/MiniGridMaze-v0"])
def test_shortest_paths_agree_with_walking(env_id: str) -> None:
    """The actions that lead a step nearer, by trying all of them in every state."""
    walked = Walked(env_id)
    left, asked = walked.steps_left(), 0
    for state, after in walked.after.items():
        walked.put(state)
        place = spot_of(walked.world)
        assert place is not None
        assert place.moves == set(after)
        if place.cell != place.goal:
            assert place.towards(place.goal) == tuple(a for a in after if left[after[a]] == left[state] - 1), state
            asked += 1
    cells = (len(walked.inner.walls) // 2) ** 2
    # In a tree there is a passage for each cell but one; MiniGrid stops in passages too.
    assert asked == (4 * (2 * cells - 2) if walked.turns else cells - 1)


@pytest.mark.parametrize(
    ("env_id", "sides", "guide"),
    [(MAZE, 1, ShortestPath), ("sb3_llm/MiniGridMaze-v0", 4, ShortestPath), ("sb3_llm/MiniGridMaze-v0", 4, Advice)],
)
def test_map_asks_in_every_cell(env_id: str, sides: int, guide: type[Guide]) -> None:
    model = fresh(env_id, SURE)
    maze = map_maze(model.policy, lambda: make_env(env_id), guide, 3)
    assert maze is not None
    walls, size, goal = maze.start.walls, maze.start.size, maze.start.goal
    steps = distances_to(walls, (0, 0))
    beyond = {place for place in np.ndindex(size, size) if is_beyond(walls, place, goal)}
    assert len(beyond) > 1
    cells = [cell for cell, *_ in maze.states]
    assert cells == [place for place in np.ndindex(size, size) if place not in beyond for _ in range(sides)]
    for cell, (prompt, *_), right in maze.states:
        assert right
        if sides == 1:
            assert f"At row {cell[0] + 1} column {cell[1] + 1}." in prompt
            assert ("Last actions: none." in prompt) == (steps[cell] == 0)
    if sides == 4:
        assert len({question for _, question, _ in maze.states}) == len(maze.states)
    shares = maze.ask(model.policy)
    for table in shares:
        assert table.shape == (size, size)
        assert {place for place, share in np.ndenumerate(table) if math.isnan(share)} == beyond
        assert np.nanmin(table) >= 0
        assert np.nanmax(table) <= 1 + 1e-6
    with torch.no_grad():
        rows = model.policy.action_log_probs([question[0] for _, question, _ in maze.states]).exp()
    for place in sorted(set(cells)):
        own = [(row, list(right)) for (cell, _, right), row in zip(maze.states, rows, strict=True) if cell == place]
        assert shares.likeliest[place] == np.mean([int(row.argmax()) in right for row, right in own])
        assert shares.probability[place] == pytest.approx(np.mean([float(row[right].sum()) for row, right in own]))


def is_beyond(walls: Any, place: Any, goal: Any) -> bool:
    """Whether a cell is the goal or lies behind it: in a tree, the goal is on the way if the ways there add up."""
    to_goal, to_place = distances_to(walls, goal), distances_to(walls, place)
    return bool(to_goal[0, 0] + to_goal[place] == to_place[0, 0])


def test_the_figure_has_the_mazes_cells_and_walls() -> None:
    world = make_env("sb3_llm/Maze-v0")
    world.reset(seed=0)
    start = spot_of(world)
    assert start is not None
    table = np.linspace(0, 1, 25).reshape(5, 5)
    figure = draw_maze(MazeMap(start, ()), Shares(table, 1 - table))
    left, right = figure.axes[:2]
    for axis, shown in ((left, table), (right, 1 - table)):
        assert np.array_equal(np.asarray(axis.images[0].get_array()), shown)
    # Odd and even in a wall's place: one piece of wall; its two ends are half a cell from its middle.
    pieces = {(row, column) for row, column in np.argwhere(start.walls).tolist() if (row + column) % 2}
    drawn = set()
    for line in left.lines:
        x, y = (np.asarray(each, dtype=float) for each in (line.get_xdata(), line.get_ydata()))
        place = round(2 * y.mean() + 1), round(2 * x.mean() + 1)
        assert (np.ptp(x), np.ptp(y)) == ((0, 1) if place[0] % 2 else (1, 0))
        drawn.add(place)
    assert drawn == pieces
    assert len(left.lines) == len(pieces)
