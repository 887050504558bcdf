"""The file of results, and the tables that are made of it."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sb3_llm.benchmarks.controls.tasks import Task
from sb3_llm.folder import write_text


class Results:
    """
    The file of results: what was played before with the same settings is not played again.

    :param path: of the JSON file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def of(self, task: str, row: str) -> dict[str, Any] | None:
        """:return: what one policy did on one task, if it was played."""
        return self.found.get("tasks", {}).get(task, {}).get(row)

    def holds(self, task: str, row: str, made_with: dict[str, Any]) -> bool:
        """:return: whether one policy was played on one task with these settings."""
        entry = self.of(task, row)
        return entry is not None and entry["made_with"] == as_read(made_with)

    def keep(
        self, task: str, row: str, made_with: dict[str, Any], play: Callable[..., dict[str, Any]], *arguments: Any
    ) -> None:
        """Play with the arguments, and write the file, unless it holds what the same settings gave."""
        if self.holds(task, row, made_with):
            return
        start = time.process_time()
        found = play(*arguments)
        entry = found | {"seconds": round(time.process_time() - start, 1), "made_with": as_read(made_with)}
        self.found.setdefault("tasks", {}).setdefault(task, {})[row] = entry
        self.write()

    def note(self, name: str, value: Any) -> None:
        """Write something beside the tasks."""
        self.found[name] = value
        self.write()

    def write(self) -> None:
        """Write the file whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.found, indent=1) + "\n"
        write_text(self.path, text)


def as_read(settings: dict[str, Any]) -> dict[str, Any]:
    """:return: settings as a JSON file gives them back: tuples become lists."""
    return dict(json.loads(json.dumps(settings)))


def table(results: Results, tasks: Sequence[Task], rows: Sequence[str]) -> str:
    """:return: the tasks in lines and the policies in columns, in Markdown."""
    lines = ["| task | target | " + " | ".join(rows) + " |", "|---|---:|" + "---|" * len(rows)]
    for task in tasks:
        cells = [_cell(results.of(task.name, row), task.target if row == "lm" else None) for row in rows]
        lines.append(f"| {task.name} | {_share(task.target)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def readme_table(results: Results, tasks: Sequence[Task]) -> str:
    """:return: the README's table: the language model with its interval, and the others without."""
    head = "| task | embedded model | expert | random | untrained | cloned MLP | cloned CNN |"
    lines = [head, "|---" * 7 + "|"]
    for task in tasks:
        others = [results.of(task.name, row) for row in ("expert", "random", "untrained", "mlp", "cnn")]
        cells = [_share(entry["success"]) if entry else "" for entry in others]
        embedded = _cell(results.of(task.name, "lm")).translate(str.maketrans("[]", "()")).replace(", ", "-")
        lines.append(f"| {task.name} | {embedded} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entry: dict[str, Any] | None, target: float | None = None) -> str:
    if entry is None:
        return ""
    low, high = entry["success_interval"]
    share = _share(entry["success"])
    share = f"**{share}**" if target is not None and entry["success"] >= target else share
    return f"{share} [{_share(low)}, {_share(high)}]"


def _share(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def wordings_table(results: Results, tasks: Sequence[Task], rows: Sequence[str]) -> str:
    """
    :param results: of the row "lm" and of others
    :param tasks: its lines
    :param rows: the same policy in other words: "lm, ..."
    :return: success in canonical English, and in other words also as a share of it, in Markdown
    """
    names = [row.removeprefix("lm, ") for row in rows]
    lines = ["| task | canonical | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for task in tasks:
        canonical = results.of(task.name, "lm")
        cells = [_relative(results.of(task.name, row), canonical) for row in rows]
        lines.append(f"| {task.name} | {_cell(canonical)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _relative(entry: dict[str, Any] | None, canonical: dict[str, Any] | None) -> str:
    if entry is None or canonical is None:
        return ""
    if not canonical["success"]:
        return f"{_share(entry['success'])} of nothing"
    return f"{_share(entry['success'])} ({entry['success'] / canonical['success']:.0%})"
