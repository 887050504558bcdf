"""The table of all MiniGrid and BabyAI ids in envs/README.md: what a policy is told there, and what it can do."""

import re
import warnings
from pathlib import Path

import gymnasium
import numpy as np
from minigrid.minigrid_env import MiniGridEnv

import sb3_llm.envs  # noqa: F401  # registers the project's own
from sb3_llm import TextObservation, make_env
from sb3_llm.envs.dialogue import DialogueEnv
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.envs.minigrid_maze import MISSION

README = Path(__file__).parent.parent / "envs" / "README.md"
MARKERS = ("<!-- made by: python -m benchmarks worlds -->", "<!-- end -->")
HEAD = "| id | example of a mission | phrases | grid | max steps | longest text, bytes |\n|---|---|---|---|---:|---:|"
SEEDS, STEPS = 3, 50


def world_ids() -> list[str]:
    """:return: every id of MiniGrid, BabyAI and this project; MiniGrid's WFC worlds need what pip doesn't install."""
    own = re.compile(r"MiniGrid-(?!WFC-)|BabyAI-|sb3_llm/")
    return sorted((env_id for env_id in gymnasium.registry if own.match(env_id)), key=_by_number)


def _by_number(env_id: str) -> list[tuple[int, str]]:
    """Sort sizes as numbers: 5x5 before 16x16."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", env_id)]


def phrases_column(env: TextObservation) -> str:
    """:return: the phrases as the table tells them."""
    return "those of the state" if env.candidates else ", ".join(env.phrases)


def table() -> str:
    """:return: the table of all ids, in Markdown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date")  # MultiRoom-N4-S5-v0 is in the table as well
        return "\n".join([HEAD, *map(row, world_ids())])


def row(env_id: str) -> str:
    """:return: one id's row, from a random walk on each of a few seeds."""
    env, actions = make_env(env_id), np.random.default_rng(0)
    missions, limits, sizes, grids = [], [], [], []
    for seed in range(SEEDS):
        env.reset(seed=seed)
        missions.append(mission(env))
        limits.append(time_limit(env))
        grids.append(grid(env))
        for _ in range(STEPS):
            sizes.append(_size(env))
            _, _, terminated, truncated, _ = env.step(int(actions.integers(env.n_actions)))
            if terminated or truncated:
                env.reset()
    sizes.append(_size(env))
    cells = [env_id, missions[0], phrases_column(env), _same(grids), _span(limits), str(max(sizes))]
    return f"| {' | '.join(cells)} |"


def mission(env: TextObservation) -> str:
    """:return: what the agent is to do in this episode; outside grids and mazes, how the text begins."""
    inner = env.unwrapped
    if isinstance(inner, MiniGridEnv):
        return str(inner.mission) or "(none)"  # Playground
    return MISSION if isinstance(inner, MazeEnv) else env.text.split(". ")[0]


def _size(env: TextObservation) -> int:
    return len(env.text.encode())


def time_limit(env: TextObservation) -> int:
    """:return: steps of the longest episode; of most BabyAI levels it depends on the mission."""
    inner = env.unwrapped
    if isinstance(inner, MiniGridEnv):
        return int(inner.max_steps)
    if isinstance(inner, DialogueEnv):
        return inner.max_turns
    assert env.spec is not None
    return int(env.spec.max_episode_steps or 0)


def grid(env: TextObservation) -> str:
    """:return: width and height, walls counted in MiniGrid and not in mazes; empty outside grids."""
    inner = env.unwrapped
    if isinstance(inner, MiniGridEnv):
        return f"{inner.width} x {inner.height}"
    return f"{inner.size} x {inner.size} cells" if isinstance(inner, MazeEnv) else ""


def _same(grids: list[str]) -> str:
    return grids[0] if len(set(grids)) == 1 else f"drawn, such as {grids[0]}"


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)} to {max(numbers)}"


def worlds() -> None:
    """Make every MiniGrid, BabyAI and own id, walk at random, print what there is and write it to envs/README.md."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(MARKERS[0])
    found = table()
    print(found)
    README.write_text(f"{before}{MARKERS[0]}\n\n{found}\n\n{MARKERS[1]}{rest.split(MARKERS[1])[1]}", encoding="utf-8")
