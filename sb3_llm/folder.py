"""The folder of a run: files that no kill can spoil, and models read back with errors that say what is wrong."""

import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import json_to_data
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.errors import SetupError
from sb3_llm.pickles import Pickle, pickles_of
from sb3_llm.runs import ALGORITHMS, Run

MEMBER = "sb3_llm.resume.pkl"  # in the zip; SB3 reads "data" and "*.pth", and leaves the rest alone


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """
    Replace a file at once: whenever the process is killed, there is the old one or the new one, whole.

    :param path: of the file; its folder exists
    :param write: writes the new content to an open file
    """
    part = part_of(path)
    try:
        with part.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # what an error left; what a kill left is written over by the next save
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """:func:`write_whole` with a text, in UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


def part_of(path: Path) -> Path:
    """:return: where the new content of a file is written before it takes the file's place."""
    return path.with_name(f"{path.name}.part")


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is. Windows can't open folders, and does without."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its model."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model.zip"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    def begin(self, run: Run) -> None:
        """Write what the run is made from, and clear away what a kill while saving left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for file in (self.model, self.run):
            part_of(file).unlink(missing_ok=True)
        text = json.dumps(asdict(run), indent=1) + "\n"
        write_text(self.run, text)

    def save(self, run: Run, model: BaseAlgorithm, states: Sequence[bytes] | None = None) -> None:
        """
        Write the model and what it was made from. Plain ``PPO.load`` reads the zip too.

        :param run: the run
        :param model: its model
        :param states: of each process, as a further member of the zip; without, a resumed run starts fresh episodes
        """

        def write(file: BinaryIO) -> None:
            model.save(file)  # type: ignore[arg-type]
            if states is not None:
                with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr(MEMBER, cloudpickle.dumps(list(states)))

        self.begin(run)
        write_whole(self.model, write)

    def load_run(self) -> Run:
        """
        :return: the run this folder belongs to
        :raises SetupError: if there is none to resume
        """
        try:
            return Run(**json.loads(self.run.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SetupError(
                f"no run to resume in {self.path} ({error})",
                "a folder that `sb3-llm train --out` wrote",
                "leave --resume out to start a new run there, or name the right folder with --out",
            ) from None

    def load_states(self) -> list[bytes] | None:
        """
        Read what :meth:`save` got as ``states``. Unpickling runs code that the file names, as it does for all zips of
        SB3: resume only from files that you trust.

        :return: the packed state of each process; None if the zip has none
        :raises SetupError: if the model can't be read
        """
        check_zip(self.model)
        with zipfile.ZipFile(self.model) as archive:
            return cloudpickle.loads(archive.read(MEMBER)) if MEMBER in archive.namelist() else None


def check_zip(path: Path) -> None:
    """
    :param path: of a zip that SB3 saved
    :raises SetupError: if there is no such file, or it is no such zip, or not whole
    """
    if not path.is_file():
        raise SetupError(f"the model {path}", "a zip file that exists", "check the path; `sb3-llm train` writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted, ...
        damaged, names = str(error) or type(error).__name__, []
    if damaged or not {"data", "policy.pth"} <= set(names):
        raise SetupError(
            f"{path}, which can't be read as a model ({damaged or 'it holds no policy'})",
            "a whole zip that SB3 saved",
            "name another file, or train again; `sb3-llm train` leaves no half-written zip, so something else cut it",
        )


def pickles_in(path: Path | str) -> list[Pickle]:
    """
    List what plain ``PPO.load`` and ``--resume`` would unpickle. Nothing is run.

    A list, and no proof of innocence: whoever crafts a file can hide names from any such reading. To run nothing, use
    :func:`sb3_llm.load_policy`.

    :param path: of a zip that SB3 saved
    :return: its pickled objects with the names they import
    :raises SetupError: if it can't be read
    """
    path = Path(path)
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        return pickles_of(archive)


def _warn_of_foreign_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        found = pickles_of(archive)
    names = sorted({name for each in found if each.entry != MEMBER for name in each.foreign})
    if names:
        warnings.warn(
            f"loading {path} runs code that it brings or names itself: {', '.join(names)}. A zip with a schedule or a "
            "callback of your own does so too. If you don't know where it comes from, use sb3_llm.load_policy, or "
            "--safe, which run nothing of it.",
            stacklevel=3,
        )


def load_model(path: Path, env: VecEnv | None, algorithm: str | None = None, **load_options: Any) -> BaseAlgorithm:
    """
    Load a model that SB3 saved.

    :param path: the zip
    :param env: environments to go on with, or None
    :param algorithm: what it has to be, such as "ppo"; by default told from what the zip holds
    :param load_options: as SB3's ``load``
    :return: the model
    :raises SetupError: if there is no such file, it is damaged, or it is no model of a known or of this algorithm
    """
    check_zip(path)
    _warn_of_foreign_code(path)
    found = algorithm_of(path)
    if algorithm not in (None, found):
        raise SetupError(f"{path}, a model of {found}", f"one of {algorithm}", "name the folder of the right run")
    return ALGORITHMS[found].load(path, env=env, **load_options)


def algorithm_of(path: Path) -> str:
    """
    Tell a zip's algorithm, which it does not name, from the settings it holds. Weights are not read.

    :param path: a zip that SB3 saved
    :return: a key of ``ALGORITHMS``
    :raises SetupError: if it can't be read, or is a model of another algorithm
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        policy = json_to_data(json.dumps({"policy": data["policy_class"]}))["policy"]
    except (zipfile.BadZipFile, ValueError, OSError, KeyError) as error:
        raise SetupError(f"{path}, which can't be read ({error})", "a zip that SB3 saved", "save it again") from None
    if "cg_max_steps" in data:
        return "trpo"
    if "n_epochs" in data and not issubclass(policy, RecurrentActorCriticPolicy):  # which RecurrentPPO's are
        return "maskable_ppo" if issubclass(policy, MaskableActorCriticPolicy) else "ppo"
    if "normalize_advantage" in data and "n_epochs" not in data:
        return "a2c"
    expected = f"a model of {', '.join(ALGORITHMS)}"
    raise SetupError(f"{path}, a model of another algorithm", expected, "load it with that algorithm's own class")
