"""A suite that takes seconds, and the program that runs it."""

import sys
from pathlib import Path
from typing import Any

import yaml

from sb3_llm.cli import main

RANDOM = "Maze-5x5--random--0.json"
SMALL = {
    "description": "Small.",
    "episodes": 4,
    "final_episodes": 4,
    "groups": [{"tasks": ["Maze-5x5"], "seeds": 1, "methods": {"random": 0, "expert": 0, "mlp": 128}}],
}


def written(path: Path, said: Any) -> Path:
    path.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return path


def run(*arguments: str) -> int:
    """:return: the program's exit code."""
    before = sys.argv
    sys.argv = ["sb3-llm", "benchmark", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def made_up(looks: list[tuple[int, float, float]]) -> dict[str, Any]:
    """:return: a cell's figures, of looks (steps, seconds, success)"""
    final = {
        "policy": "sampled",
        "episodes": 4,
        "success": looks[-1][2],
        "success_interval": [0.0, 1.0],
        "mean_return": 0.9,
        "std_return": 0.2,
        "mean_length": 9.0,
        "spl": None,
    }
    names = "steps", "seconds", "success"
    common = {"processor_seconds": 1.0, "mean_return": 0.0, "mean_length": 1.0, "episodes": 4}
    return {
        "curve": [dict(zip(names, look, strict=True)) | common for look in looks],
        "final": {"sampled": final, "greedy": final | {"policy": "greedy"}},
        "generalisation": {},
        "fluency": None,
        "costs": {
            "setup_seconds": 0.1,
            "seconds": 9.0,
            "parameters": 7,
            "trained": 7,
            "flops_per_decision": 14.0,
            "peak_memory_mib": 100.0,
        },
    }
