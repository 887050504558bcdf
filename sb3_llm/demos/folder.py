"""The folder of a clone: what it was made from, how far it has come, and in the end the model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sb3_llm.errors import SetupError
from sb3_llm.export import export
from sb3_llm.folder import part_of, write_text, write_whole
from sb3_llm.settings import DEFAULTS

REPORT, STATE, NEW = "clone.json", "clone.state.pt", "clone.new"
ACTS = ("template", "normalization", "temperature", "dtype")  # what a policy must share to act as was cloned


@dataclass(frozen=True)
class Figures:
    """How well a model says what was said."""

    accuracy: float  # how often the phrase that was said is the likeliest
    mean_log_prob: float  # of it, in nats


@dataclass(frozen=True)
class CloneReport:
    """What came of cloning; kept in the folder as ``clone.json``."""

    folder: str
    policy_kwargs: dict[str, Any]  # with which a policy acts as was cloned
    lines: int  # that were trained on
    held_out_lines: int
    held_out_seen: int  # of these, how many were trained on in other episodes, word for word
    steps: int  # of the optimizer
    before: Figures | None  # on held-out lines; None if none were held out
    after: Figures | None


@dataclass(frozen=True)
class CloneFolder:
    """
    Where a clone is made.

    :param path: of the folder
    :param run: what the clone is made from: JSON values
    """

    path: Path
    run: Mapping[str, Any]

    def claim(self) -> CloneReport | None:
        """
        Make sure that nothing of anyone else's is written over. Nothing is written yet.

        :return: the report, if this very clone is finished already
        :raises SetupError: if the path is a file, or the folder holds something else or another clone
        """
        if self.path.exists() and not self.path.is_dir():
            raise SetupError(f"out={str(self.path)!r}, which is a file", "a folder", "name another place")
        held = [each.name for each in self.path.glob("*") if each != part_of(self.path / REPORT)]
        if not held:
            return None
        if REPORT not in held:
            given = f"out={str(self.path)!r}, which holds {', '.join(sorted(held)[:4])}"
            raise SetupError(given, "a new or empty folder, or one of a clone to go on with", "name another folder")
        found = self._read()
        self._require_same(found["run"])
        if found["report"] is None:
            return None
        (self.path / STATE).unlink(missing_ok=True)  # a kill at the very end left it
        return _report_of(found["report"])

    def begin(self) -> None:
        """Say whose folder this is."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / REPORT).exists():
            self._write(None)

    def load(self) -> dict[str, Any] | None:
        """:return: what :meth:`save` got last; None if nothing yet"""
        state = self.path / STATE
        return torch.load(state, weights_only=True, map_location="cpu") if state.exists() else None

    def save(self, state: dict[str, Any]) -> None:
        """:param state: tensors and plain values, to go on from"""
        write_whole(self.path / STATE, lambda file: torch.save(state, file))

    def policy_kwargs(self) -> dict[str, Any]:
        """:return: keywords with which a policy on this folder acts as was cloned"""
        differing = {name: self.run[name] for name in ACTS if self.run[name] != DEFAULTS[name]}
        return {"model": str(self.path), **differing}

    def finish(self, policy: Any, report: CloneReport) -> None:
        """
        Write the model, then the report, then clear away; killed in between, it is done again from the last state.

        :param policy: whose language model to write
        :param report: what came of it
        """
        new = self.path / NEW
        shutil.rmtree(new, ignore_errors=True)
        for part in sorted(export(policy, new).iterdir()):
            target = self.path / part.name
            if target.is_dir():  # which nothing can take the place of at once
                shutil.rmtree(target)
            part.replace(target)
        new.rmdir()
        self._write(asdict(report))
        (self.path / STATE).unlink(missing_ok=True)

    def _write(self, report: dict[str, Any] | None) -> None:
        text = json.dumps({"run": dict(self.run), "report": report}, indent=1, ensure_ascii=False) + "\n"
        write_text(self.path / REPORT, text)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / REPORT).read_text(encoding="utf-8"))
            return {"run": dict(found["run"]), "report": found["report"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            given = f"{self.path / REPORT}, which can't be read ({error})"
            raise SetupError(given, "what clone wrote there", "name another folder") from None

    def _require_same(self, found: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(dict(self.run)))
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            was, now = ({name: run.get(name) for name in differing} for run in (found, wanted))
            given = f"out={str(self.path)!r}, which holds a clone made with {was}, for one with {now}"
            raise SetupError(
                given, "the same settings and demonstrations, to go on", "name another folder, or delete it"
            )


def _report_of(entries: Mapping[str, Any]) -> CloneReport:
    figures = {name: entries[name] and Figures(**entries[name]) for name in ("before", "after")}
    return CloneReport(**{**entries, **figures})
