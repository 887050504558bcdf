"""The folder of results: a JSON file for each cell, whole or not counted; nothing of another commit or suite in it."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_llm.benchmarks.controls import results
from sb3_llm.benchmarks.suite.config import Cell
from sb3_llm.benchmarks.suite.provenance import Provenance, same
from sb3_llm.errors import SetupError
from sb3_llm.folder import write_text

FORMAT = 2
NEEDED_MIB = 200  # free disk space, for results, figures and what libraries put into temporary files
PARTS = {"curve", "final", "generalisation", "fluency", "costs"}
NOT_RUN = "not run yet"  # why a cell has no figures, if nothing went wrong


@dataclass(frozen=True)
class Problem:
    """A cell that has no figures, and why."""

    key: str
    why: str


class Store:
    """
    Results of one suite.

    :param folder: where they are kept
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """:return: of a cell's results."""
        return self.folder / "cells" / f"{key}.json"

    def failure(self, key: str) -> Path:
        """:return: of what a cell died of."""
        return self.folder / "failed" / f"{key}.txt"

    def require(self, cells: Iterable[Cell], now: Provenance, mix: bool) -> None:
        """
        Look at everything that is there before anything is run.

        :param cells: what is to be run or read
        :param now: the code at hand
        :param mix: take results of other code too
        :raises SetupError: if a cell was made with other settings or other code, or the disk is full
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free // 2**20
        if free < NEEDED_MIB:
            raise SetupError(f"{free} MiB free for {self.folder}", f"{NEEDED_MIB} MiB", "make room, or pass --out")
        for cell in cells:
            found = self.load(cell)
            if found is not None:
                self._require_same(cell, found, now, mix)

    def _require_same(self, cell: Cell, found: dict[str, Any], now: Provenance, mix: bool) -> None:
        if found["config"] != as_read(cell.config):
            differing = [name for name, value in as_read(cell.config).items() if found["config"].get(name) != value]
            raise SetupError(
                f"{self.path(cell.key)}, made with another {' and '.join(differing)} than the suite says",
                "results of one suite in a folder",
                "pass --out with a new folder, or delete that file to run the cell again",
            )
        then = Provenance(**found["provenance"])
        if not same(then, now, cell.method.player) and not mix:
            raise SetupError(
                f"{self.path(cell.key)}, made with the code of commit {then.commit}; this is {now.commit}",
                "results of one state of the code in a folder",
                "pass --out with a new folder, or --mix to keep both: each cell says which commit it is from",
            )

    def load(self, cell: Cell) -> dict[str, Any] | None:
        """:return: a cell's results; None if there are none, or they are damaged"""
        try:
            return read_cell(self.path(cell.key))
        except (FileNotFoundError, DamagedCell):
            return None

    def save(self, cell: Cell, figures: dict[str, Any], provenance: Provenance) -> None:
        """Write a cell's results, whole."""
        content = {
            "format": FORMAT,
            "task": cell.task.name,
            "method": cell.method.name,
            "seed": cell.seed,
            "config": cell.config,
            "provenance": vars(provenance),
            **figures,
        }
        content = as_read(content)
        self.path(cell.key).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content | {"sha256": digest(content)}, indent=1) + "\n"
        write_text(self.path(cell.key), text)
        self.failure(cell.key).unlink(missing_ok=True)

    def fail(self, key: str, why: str) -> None:
        """Note what a cell died of."""
        self.failure(key).parent.mkdir(parents=True, exist_ok=True)
        write_text(self.failure(key), why.rstrip() + "\n")

    def problems(self, cells: Iterable[Cell]) -> list[Problem]:
        """:return: the cells that have no figures."""
        found: list[Problem] = []
        for cell in cells:
            try:
                read_cell(self.path(cell.key))
            except FileNotFoundError:
                failure = self.failure(cell.key)
                why = failure.read_text(encoding="utf-8").strip().splitlines()[-1:] if failure.exists() else []
                found.append(Problem(cell.key, f"failed: {why[0]}" if why else NOT_RUN))
            except DamagedCell as error:
                found.append(Problem(cell.key, f"damaged, not counted: {error}"))
        return found


class DamagedCell(ValueError):
    """A file of results that can't be trusted."""


def read_cell(path: Path) -> dict[str, Any]:
    """
    :param path: of a cell's results
    :return: them
    :raises FileNotFoundError: if there are none
    :raises DamagedCell: if the file is no JSON, not whole, or was changed since it was written
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DamagedCell(f"{path.name} is no JSON ({error})") from None
    if not isinstance(found, dict) or not set(found) >= PARTS | {"config", "provenance", "sha256", "format"}:
        raise DamagedCell(f"{path.name} lacks parts")
    said = found.pop("sha256")
    if found["format"] != FORMAT or digest(found) != said:
        raise DamagedCell(f"{path.name} is not as it was written")
    return found


def digest(content: dict[str, Any]) -> str:
    """:return: sha256 of a JSON object, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def as_read(content: dict[str, Any]) -> dict[str, Any]:
    """:return: as a JSON file gives it back: tuples are lists, and what is not finite is null."""
    return results.as_read(_finite(content))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
