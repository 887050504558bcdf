"""A look's figures. Imported where figures are wanted: matplotlib comes with an extra."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sb3_llm.diary.maps import MazeMap, Shares
from sb3_llm.envs.layout import Cell

COLOURS = "viridis"  # told apart by those who see few colours, and in grey
UNKNOWN = "0.9"  # light grey
DARK = 0.6  # a share below which white is read on its colour
MAX_NUMBERS = 10  # cells per side at most in which numbers can be read
MOST_BANDS = 10  # phrases with a line in a legend


def draw_maze(maze: MazeMap, shares: Shares) -> Figure:
    """
    :param maze: with its walls
    :param shares: agreement in each cell
    :return: both shares over the cells, side by side
    """
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    titles = "likeliest action is right", "probability of right actions"
    panels = figure.subplots(1, 2)
    for axis, title, values in zip(panels, titles, shares, strict=True):
        image = axis.imshow(values, vmin=0, vmax=1, cmap=colormaps[COLOURS].with_extremes(bad=UNKNOWN))
        _draw_walls(axis, maze.start.walls)
        _write_numbers(axis, values)
        for name, place in (("start", maze.start.cell), ("goal", maze.start.goal)):
            _name(axis, name, place)
        axis.set(title=f"{title}: mean {np.nanmean(values):.2f}", xticks=[], yticks=[])
        axis.set_frame_on(False)
    figure.colorbar(image, ax=list(panels), shrink=0.85)
    return figure


def _draw_walls(axis: Axes, walls: NDArray[np.uint8]) -> None:
    for row, column in np.argwhere(walls):
        # A wall stands where one of the two is even; where both are, its ends meet.
        middle = (column - 1) / 2, (row - 1) / 2
        if row % 2 and not column % 2:
            axis.plot([middle[0]] * 2, [middle[1] - 0.5, middle[1] + 0.5], color="black", linewidth=3)
        elif column % 2 and not row % 2:
            axis.plot([middle[0] - 0.5, middle[0] + 0.5], [middle[1]] * 2, color="black", linewidth=3)


def _write_numbers(axis: Axes, values: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(values if len(values) <= MAX_NUMBERS else values[:0]):
        if not np.isnan(share):
            color = "white" if share < DARK else "black"
            axis.text(column, row, f"{share:.2f}", ha="center", va="center", color=color)


def _name(axis: Axes, name: str, place: Cell | None) -> None:
    if place is not None:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axis.text(place[1], place[0] + 0.33, name, ha="center", va="center", fontsize=8, bbox=box)


def draw_probes(
    steps: Sequence[int], shares: Sequence[NDArray[np.float64]], phrases: Sequence[Sequence[str]]
) -> Figure:
    """
    :param steps: (L,) of training, at each look
    :param shares: of each probe (L, A): its phrases' probabilities
    :param phrases: of each probe
    :return: for each probe a band for each phrase, over the steps
    """
    figure = Figure(figsize=(7.5, 2.2 * len(shares)), layout="constrained")
    panels = figure.subplots(len(shares), 1, sharex=True, squeeze=False)[:, 0]
    for place, (axis, table, names) in enumerate(zip(panels, shares, phrases, strict=True)):
        kept = np.sort(np.argsort(-table.max(axis=0), kind="stable")[:MOST_BANDS])  # those that were ever likely
        labels = [names[index].replace("$", r"\$") for index in kept]  # which would begin a formula
        axis.stackplot(steps, table[:, kept].T, labels=labels)
        axis.set(ylabel=f"probe {place}", ylim=(0, 1))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, reverse=True)
    panels[-1].set(xlabel="environment steps")
    return figure
