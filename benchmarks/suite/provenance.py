"""What made a result: commit, code, versions, machine."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import sb3_llm
import sb3_llm.envs
from sb3_llm.language_model import EMBEDDED_FOLDER

PACKAGES = ("sb3_llm", "stable-baselines3", "sb3-contrib", "torch", "transformers", "gymnasium", "minigrid", "numpy")
SUITE = Path(__file__).parent
#: The benchmarks' code that a cell's figures depend on; how they are stored and told does not change them.
MAKING = (
    *(f"suite/{name}.py" for name in ("config", "costs", "curve", "networks", "players", "running", "worlds")),
    *(f"controls/{name}.py" for name in ("cloning", "fresh", "networks", "numbers", "playing", "replay")),
)


#: Rooms of the package that every cell's figures depend on, a network's too.
WORLDS = {
    *("envs", "describe", "words", "rewards", "candidates.py", "spaces.py", "wrappers.py", "family.py", "ids.py"),
    *("make.py", "numeric.py", "numeric_past.py", "runs.py", "evaluation.py"),
}
#: Rooms that no cell's figures depend on.
ASIDE = {
    *("cli.py", "cli_options.py", "cli_pretrain.py", "cli_watch.py", "__main__.py", "__init__.py", "doctor", "watch"),
    *("explain", "instruct", "diary", "safety", "pickles.py", "folder.py", "callbacks.py", "alarms.py", "probes.py"),
    *("looking_on.py", "resume.py", "zoo.py", "training.py", "distributed.py"),
    *(f"pretrain/{name}.py" for name in ("card", "correct", "corrections", "publish", "settings", "tokenizer")),
    "pretrain/train.py",
}
#: Who plays without a language model, and without anything that one read.
WITHOUT = ("network", "random")


@dataclass(frozen=True)
class Provenance:
    """Where figures are from."""

    commit: str  # of the checkout, with "+" if files differ from it; else the version that is installed
    code: str  # digest of what every cell's figures depend on
    model: str  # digest of what besides counts where there is a language model: its code and weights
    versions: dict[str, str]
    machine: dict[str, str | int]


def same(then: Provenance, now: Provenance, player: str) -> bool:
    """:return: whether a player's figures of then are those that would be found now."""
    return then.code == now.code and (player in WITHOUT or then.model == now.model)


def here() -> Provenance:
    """:return: of what runs here and now."""
    machine: dict[str, str | int] = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
    return Provenance(_commit(), code_digest(), model_digest(), {name: version(name) for name in PACKAGES}, machine)


def code_digest() -> str:
    """:return: sha256 of what the figures of all methods depend on: worlds, what they tell, and the suite's code."""
    return _digest(name for name in _package() if name.parts[0] in WORLDS) + _digest(map(Path, MAKING))


def model_digest() -> str:
    """:return: sha256 of what besides counts where a language model plays, or told what is learnt from."""
    return _digest(name for name in _package() if name.parts[0] not in WORLDS and not ASIDE & _rooms(name))


def _rooms(name: Path) -> set[str]:
    return {name.as_posix(), *(parent.as_posix() for parent in name.parents)}


def _package() -> dict[Path, Path]:
    package, worlds = Path(sb3_llm.__file__).parent, Path(str(sb3_llm.envs.__file__)).parent
    files = {path.relative_to(package): path for path in package.rglob("*.py")}
    files = {name: path for name, path in files.items() if name.parts[0] not in ("benchmarks", "envs")}
    files |= {Path("envs") / path.name: path for path in worlds.glob("*.py")}
    return files | {path.relative_to(package): path for path in EMBEDDED_FOLDER.glob("*.safetensors")}


def _digest(names: Iterable[Path]) -> str:
    """Alike in a checkout and where it is installed."""
    whole, package = hashlib.sha256(), _package()
    for name in sorted(names):
        path = package.get(name) or SUITE.parent / name
        whole.update(f"{name.as_posix()}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def _commit() -> str:
    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=SUITE, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('sb3_llm')}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
