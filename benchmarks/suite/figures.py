"""The report's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sb3_llm.benchmarks.suite.found import OURS, Found
from sb3_llm.benchmarks.suite.statistics import performance_profile

COLUMNS = 3
PANEL = (4.2, 2.9)  # inches
STYLES: dict[str, dict[str, Any]] = {
    "llm": {"color": "#0b6e4f", "linewidth": 2.2},
    "untrained": {"color": "#7fb685"},
    "mlp": {"color": "#c1440e"},
    "mlp-view": {"color": "#c1440e", "linestyle": "--"},
    "cnn": {"color": "#1f5fa8"},
    "cnn-view": {"color": "#1f5fa8", "linestyle": "--"},
    "mlp-cloned": {"color": "#e39b6f", "linestyle": "-."},
    "cnn-cloned": {"color": "#86aede", "linestyle": "-."},
    "text-mlp": {"color": "#7a5195"},
}


def write_figures(found: Found, folder: Path) -> dict[str, Path]:
    """:return: the figures that there are results for, by name; PNG files in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "curves-steps": curves(found, "steps"),
        "curves-seconds": curves(found, "seconds"),
        "profiles": profiles(found),
        "generalisation": generalisation(found),
        "cost": cost_against_success(found),
    }
    paths = {}
    for name, figure in made.items():
        if figure is not None:
            paths[name] = folder / f"{name}.png"
            figure.savefig(paths[name], dpi=110)
    return paths


def curves(found: Found, unit: str) -> Figure | None:
    """:return: success while training, mean and range of the seeds, over steps or seconds on a logarithmic scale."""
    tasks = [task for task in found.tasks if any(found.curves(task, method) for method in found.methods)]
    if not tasks:
        return None
    figure, panels = _panels(len(tasks))
    for axis, task in zip(panels, tasks, strict=False):
        for method in found.methods:
            seeds = found.curves(task, method)
            if seeds:
                _draw_curve(axis, seeds, unit, method)
        axis.set(title=task, xscale="log", ylim=(-0.03, 1.03), xlabel=unit, ylabel="success")
        axis.axhline(0.9, color="grey", linewidth=0.7, linestyle=":")
        axis.legend(fontsize=7)
    return figure


def _draw_curve(axis: Axes, seeds: Sequence[list[dict[str, Any]]], unit: str, method: str) -> None:
    ends = [curve[-1][unit] for curve in seeds]
    starts = [max(curve[0][unit], 100 if unit == "steps" else 0.1) for curve in seeds]
    grid = np.geomspace(min(starts), max(ends), 60)
    lines = np.array([_at(curve, unit, grid) for curve in seeds])
    drawn = axis.plot(grid, lines.mean(0), label=method, **STYLES.get(method, {}))
    axis.fill_between(grid, lines.min(0), lines.max(0), alpha=0.15, color=drawn[0].get_color(), linewidth=0)


def _at(curve: list[dict[str, Any]], unit: str, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Success as of the last look: nothing is known between looks. Training that ended early stays where it was."""
    x = np.array([look[unit] for look in curve])
    return np.array([curve[max(0, int(np.searchsorted(x, value, "right")) - 1)]["success"] for value in grid])


def profiles(found: Found) -> Figure | None:
    """:return: the share of runs above each success, over the tasks that all methods drawn have."""
    shared = [(method, found.shared(method)) for method in found.methods if method != OURS]
    shared = [(method, tasks) for method, tasks in shared if tasks]
    if not shared:
        return None
    figure, panels = _panels(len(shared))
    levels = np.linspace(0, 1, 101)
    for axis, (method, tasks) in zip(panels, shared, strict=False):
        for name in (OURS, method):
            scores = found.scores(name, tasks)
            if scores is not None:
                axis.plot(levels, performance_profile(scores, levels.tolist()), label=name, **STYLES.get(name, {}))
        axis.set(title=f"{len(tasks)} tasks with {method}", xlabel="success", ylabel="share of runs above")
        axis.legend(fontsize=7)
    return figure


def generalisation(found: Found) -> Figure | None:
    """:return: bars: success as trained, and where one thing differs."""
    bars = []
    for task, method in found.cells:
        there = {axis: found.success_there(task, method, axis) for axis in found.axes(task, method)}
        if there:
            every = {"as trained": found.success(task, method)} | there
            bars.append((f"{task}, {method}", {name: each.value for name, each in every.items() if each is not None}))
    if not bars:
        return None
    figure, panels = _panels(len(bars))
    for axis, (title, values) in zip(panels, bars, strict=False):
        axis.bar(list(values), list(values.values()), color=["#0b6e4f"] + ["#9aa5b1"] * (len(values) - 1))
        axis.set(title=title, ylim=(0, 1.03), ylabel="success")
        axis.tick_params("x", rotation=45, labelsize=7)
    return figure


def cost_against_success(found: Found) -> Figure | None:
    """:return: final success against seconds of training, a mark for each task, a colour for each method."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for method in found.methods:
        points = [
            (np.mean([one["costs"]["seconds"] for one in seeds]), found.success(task, method))
            for (task, name), seeds in found.cells.items()
            if name == method and seeds[0]["curve"]
        ]
        known = [(seconds, success.value) for seconds, success in points if success is not None]
        if known:
            style = {"color": STYLES[method]["color"]} if method in STYLES else {}
            axis.plot(*zip(*known, strict=True), "o", label=method, markersize=4, **style)
    axis.set(xscale="log", xlabel="seconds of training", ylabel="success, sampled", ylim=(-0.03, 1.03))
    if not axis.get_legend_handles_labels()[0]:
        return None
    axis.legend(fontsize=7)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in panels[count:]:
        axis.set_axis_off()
    return figure, panels
