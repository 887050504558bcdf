"""The built wheel: only ``sb3_llm`` inside, and it works where nothing of this checkout is on the path."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORT_PPO = """
import sys
sys.path.append(sys.argv[1])  # torch and the other dependencies, behind the environment's own site-packages
import torch, sb3_llm, sb3_llm.envs.maze
assert sb3_llm.__file__.startswith(sys.prefix), sb3_llm.__file__
assert sb3_llm.envs.maze.__file__.startswith(sys.prefix), sb3_llm.envs.maze.__file__
from stable_baselines3 import PPO
torch.set_num_threads(1)
env = sb3_llm.make_vec_env("MiniGrid-Empty-5x5-v0", 2, seed=0)
print(PPO(sb3_llm.LLMPolicy, env, n_steps=8, batch_size=16, n_epochs=1).learn(16).policy.scoring_route)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without isolation, from a copy, so that no build folder of the checkout leaks in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_only_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sb3_llm"}
    for needed in ("py.typed", "envs/maze.py", "embedded/model.safetensors", "embedded/README.md", "describe/maze.py"):
        assert f"sb3_llm/{needed}" in names
    every_module = {path.relative_to(ROOT / "sb3_llm") for path in (ROOT / "sb3_llm").rglob("*.py")}
    assert {f"sb3_llm/{path.as_posix()}" for path in every_module} <= set(names)


def test_installed_wheel_trains(wheel: Path, tmp_path: Path) -> None:
    """A new environment, only the wheel in it; the dependencies are lent from this one to spare gigabytes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    ran = subprocess.run(
        [str(python), "-c", SHORT_PPO, lent], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "packed"


@pytest.mark.slow
def test_wheel_with_its_own_dependencies(wheel: Path, tmp_path: Path) -> None:
    """The same with everything installed anew: gigabytes and minutes."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *pins, str(wheel)], check=True)
    ran = subprocess.run(
        [str(python), "-c", SHORT_PPO, str(tmp_path / "nothing")], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "packed"
