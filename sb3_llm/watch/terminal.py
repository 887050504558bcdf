"""A replay in the terminal: text, bars and reward, step by step."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sb3_llm.explain import Explanation
from sb3_llm.printable import visible
from sb3_llm.watch.recording import Episode, Replay

WIDTH = 30  # of a bar
SHADES = ("", "on dark_green", "on green4")  # of a clause that speaks for the action, by how much


def show(replay: Replay, console: Console, seconds: float = 0.4) -> None:
    """
    Show every episode; in a terminal one step after another in one place, else all of them in a row.

    :param replay: what is shown
    :param console: where
    :param seconds: from one step to the next, in a terminal
    """
    for episode in replay.episodes:
        if not console.is_terminal:
            console.print(*(as_panel(episode, number) for number in range(len(episode.steps))), sep="\n")
            continue
        with Live(console=console, auto_refresh=False) as live:
            for number in range(len(episode.steps)):
                live.update(as_panel(episode, number), refresh=True)
                time.sleep(seconds)


def as_panel(episode: Episode, number: int) -> Panel:
    """:return: one decision: the shaded text, the phrases with both models' probabilities, value and reward."""
    step = episode.steps[number]
    title = f"seed {episode.seed}, step {number + 1} of {len(episode.steps)}"
    end = f"value {step.why.value:.2f}, reward {step.reward:.2f}"
    return Panel(Group(_shaded(step.why), _bars(step.why, step.action), Text(end)), title=title, width=100)


def _shaded(why: Explanation) -> Text:
    shown = Text(visible(why.text))  # a terminal would carry out what a world writes
    most = max([0.05, *(part.score for part in why.clauses)])
    for part in why.clauses:
        shade = SHADES[min(2, int(3 * max(part.score, 0.0) / most))]
        if shade:
            shown.stylize(shade, *part.span)
    return shown


def _bars(why: Explanation, action: int) -> Any:
    table = Table.grid(padding=(0, 1))
    for index, phrase in enumerate(why.phrases):
        style = "bold" if index == action else ""
        bar = Text(("█" * round(WIDTH * phrase.probability)).ljust(WIDTH), "green")
        base = f"{phrase.base_probability:.2f} before"
        table.add_row(Text(visible(phrase.text), style), bar, f"{phrase.probability:.2f}", Text(base, "dim"))
    return table
