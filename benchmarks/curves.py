"""Learning curves: success over the last training episodes, against steps and seconds."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

WINDOW = 50  # episodes that a point of the curve is the mean of
FEWEST = 10  # episodes that a point is drawn from, before there are WINDOW


@dataclass(frozen=True)
class Point:
    """Where a run stood after a rollout."""

    steps: int
    seconds: float  # since training began
    success: float  # of the last episodes
    episodes: int  # how many those are, at most WINDOW


class SuccessCurve(BaseCallback):
    """
    Note the success of the last training episodes after each rollout. Needs ``stats_window_size=WINDOW``.

    :param time_limit: steps of the longest episode. Until every environment has had that many, the episodes that have
        ended are the short ones, which are the successful ones, so nothing is noted
    """

    def __init__(self, time_limit: int) -> None:
        super().__init__()
        self.time_limit = time_limit
        self.points: list[Point] = []

    def _on_training_start(self) -> None:
        self._start = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        recent = self.model.ep_success_buffer
        fair = self.num_timesteps >= self.time_limit * self.training_env.num_envs
        if fair and recent is not None and len(recent) >= FEWEST:
            seconds = time.monotonic() - self._start
            self.points.append(Point(self.num_timesteps, seconds, float(np.mean(recent)), len(recent)))


def first_at(points: list[Point], success: float) -> Point | None:
    """:return: the first point at which WINDOW episodes reach a success, or None where the run never did."""
    return next((point for point in points if point.episodes == WINDOW and point.success >= success), None)


def draw_curves(curves: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """
    Draw success over steps and over seconds, a row of two panels for each task.

    :param curves: task -> method -> points
    :param path: of the PNG
    """
    figure = Figure(figsize=(10, 3.4 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 2, squeeze=False)
    for row, (task, methods) in zip(axes, curves.items(), strict=True):
        for axis, unit in zip(row, ("steps", "seconds"), strict=True):
            for method, points in methods.items():
                x = [getattr(point, unit) for point in points]
                axis.plot(x, [point.success for point in points], label=method)
            axis.axhline(0.9, color="grey", linewidth=0.8, linestyle=":")
            axis.set(title=task, xlabel=f"environment {unit}" if unit == "steps" else "seconds of training")
            axis.set(ylabel=f"success, last {WINDOW} episodes", ylim=(-0.02, 1.02))
            axis.legend(loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
