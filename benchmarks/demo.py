"""The main job in a few minutes: a language model and an MLP learn a maze and a MiniGrid task, side by side."""

import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.benchmarks.controls.fresh import fresh_weights
from sb3_llm.benchmarks.curves import WINDOW, Point, SuccessCurve, draw_curves, first_at
from sb3_llm.evaluation import Evaluation, evaluate
from sb3_llm.training import Run, RunFolder

METHODS = {"PPO(LLMPolicy)": {"policy": "llm"}, "PPO(MlpPolicy)": {"policy": "mlp"}}
TEST_SEED = 10_000  # far from the seeds of training
READ = (
    "The embedded model had read stories of experts in other worlds, and no MiniGrid-* task, test maze or their twins "
    "(sb3_llm/embedded/README.md). The MLP starts from nothing, and sees at least the same information. Both get the "
    "same number of steps, which cost the MLP far fewer seconds."
)


@dataclass(frozen=True)
class Task:
    """What is trained and what it is tested on."""

    env_id: str
    steps: int
    time_limit: int  # steps of the longest episode
    test_kwargs: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One method on one task. Success is that of the sampled policy, as it is trained."""

    task: str
    method: str
    before: Evaluation
    after: Evaluation
    steps: int
    seconds: float
    curve: list[Point]


def tasks(maze_steps: int, minigrid_steps: int) -> list[Task]:
    """:return: the demo's tasks; mazes are tested on layouts that are never trained on."""
    return [
        Task("sb3_llm/Maze-v0", maze_steps, 100, {"split": "test"}),
        Task("MiniGrid-PutNear-6x6-N2-v0", minigrid_steps, 30, {}),
    ]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, table and figure.")] = Path("runs/demo"),
    maze_steps: Annotated[int, typer.Option(min=1)] = 4_096,
    minigrid_steps: Annotated[int, typer.Option(min=1)] = 8_192,
    episodes: Annotated[int, typer.Option(help="Test episodes before and after.", min=1)] = 200,
    seed: int = 0,
    control: Annotated[bool, typer.Option("--control", help="Train the same network without pretraining too.")] = False,
) -> None:
    """Train PPO(LLMPolicy) and PPO(MlpPolicy) on a maze and on PutNear-6x6-N2; print a table, draw the curves."""
    console, rows = Console(), []
    methods = dict(METHODS)
    if control:
        fresh = fresh_weights("embedded", out / "fresh", seed)
        methods["PPO(LLMPolicy), no pretraining"] = {"policy": "llm", "model": fresh}
    for task in tasks(maze_steps, minigrid_steps):
        rows.append(random_row(task, episodes, seed))
        for name, settings in methods.items():
            console.print(f"{task.env_id}: {name}")
            rows.append(train_row(task, name, Run(task.env_id, seed=seed, **settings), episodes, out))
    curves = {task: {row.method: row.curve for row in rows if row.task == task and row.curve} for task in _names(rows)}
    draw_curves(curves, out / "curves.png")
    (out / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    console.print(table(rows))
    console.print(READ)
    console.print(f"Models, table.json and curves.png are in {out}", soft_wrap=True)


def train_row(task: Task, name: str, run: Run, episodes: int, out: Path) -> Row:
    """:return: one method trained on one task; its model is saved under ``out``."""
    test_env = replace(run, env_kwargs=task.test_kwargs).make_env()
    model = run.make_model(run.make_env(), stats_window_size=WINDOW)
    before = evaluate(model, seeded(test_env), episodes, greedy=False)
    curve, start = SuccessCurve(task.time_limit), time.monotonic()
    model.learn(task.steps, callback=curve, progress_bar=True)
    seconds = time.monotonic() - start
    after = evaluate(model, seeded(test_env), episodes, greedy=False)
    RunFolder(out / f"{task.env_id.split('/')[-1]}-{slug(name)}").save(run, model)
    return Row(task.env_id, name, before, after, model.num_timesteps, seconds, curve.points)


def random_row(task: Task, episodes: int, seed: int) -> Row:
    """:return: what uniformly random actions reach, the floor that every success is to be held against."""
    env = Run(task.env_id, policy="mlp", env_kwargs=task.test_kwargs).make_env()
    found = evaluate(RandomPolicy(env, seed), seeded(env), episodes, greedy=False)
    return Row(task.env_id, "random actions", found, found, 0, 0.0, [])


class RandomPolicy:
    """Uniformly random actions, in the form SB3's ``evaluate_policy`` takes."""

    def __init__(self, env: VecEnv, seed: int) -> None:
        self._n_actions = int(env.action_space.n)  # type: ignore[attr-defined]
        self._rng = np.random.default_rng(seed)

    def predict(self, observation: np.ndarray, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        """:return: an action for each environment, and the state unchanged."""
        return self._rng.integers(self._n_actions, size=len(observation)), state


def seeded(env: VecEnv) -> VecEnv:
    """:return: the environments, about to play the same test episodes as for every other method."""
    env.seed(TEST_SEED)
    return env


def table(rows: list[Row]) -> Table:
    """:return: a block for each task with a line for each method, narrow enough for 80 columns."""
    shown = Table(title="Success of the sampled policy on test episodes, before and after training")
    shown.add_column("policy", no_wrap=True)
    for name in ("before", "after", "95 %", "steps to 90 %", "seconds to 90 %"):
        shown.add_column(name, justify="right")
    for task in _names(rows):
        mine = [row for row in rows if row.task == task]
        shown.add_section()
        shown.add_row(f"[bold]{task}[/bold]")
        for row in mine:
            shown.add_row(f"  {row.method}", *_figures(row))
    return shown


def _figures(row: Row) -> list[str]:
    before = f"{row.before.success:.2f}"
    if not row.steps:
        return [before]
    interval = "{:.2f}-{:.2f}".format(*(row.after.success_interval or (0, 1)))
    ninety = first_at(row.curve, 0.9)
    steps = f"{ninety.steps:,}" if ninety else f"> {row.steps:,}"
    seconds = f"{ninety.seconds:.0f}" if ninety else f"> {row.seconds:.0f}"
    return [before, f"{row.after.success:.2f}", interval, steps, seconds]


def slug(name: str) -> str:
    """:return: the name in lower-case letters and hyphens, for a folder."""
    return re.sub("[^a-z]+", "-", name.lower()).strip("-")


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.task for row in rows))
