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
