"""What made a result: commit, code, versions, machine."""

import hashlib
import os
import platform
import subprocess
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


@dataclass(frozen=True)
class Provenance:
    """Where figures are from."""

    commit: str  # of the checkout, with "+" if files differ from it; else the version that is installed
    code: str  # sha256 of the code and the embedded model, which is what counts
    versions: dict[str, str]
    machine: dict[str, str | int]


def here() -> Provenance:
    """:return: of what runs here and now."""
    machine: dict[str, str | int] = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
    return Provenance(_commit(), code_digest(), {name: version(name) for name in PACKAGES}, machine)


def code_digest() -> str:
    """:return: sha256 of all that figures depend on: the package, its worlds, the suite's code, the embedded model."""
    whole = hashlib.sha256()
    package, worlds = Path(sb3_llm.__file__).parent, Path(str(sb3_llm.envs.__file__)).parent
    files = {path.relative_to(package): path for path in package.rglob("*.py")}
    files = {name: path for name, path in files.items() if name.parts[0] not in ("benchmarks", "envs")}
    files |= {Path("envs") / path.name: path for path in worlds.glob("*.py")}
    files |= {Path("benchmarks") / name: SUITE.parent / name for name in MAKING}
    files |= {path.relative_to(package): path for path in EMBEDDED_FOLDER.glob("*.safetensors")}
    for name in sorted(files):  # alike in a checkout and where it is installed
        whole.update(f"{name.as_posix()}\n".encode() + files[name].read_bytes())
    return whole.hexdigest()[:16]


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
