"""The table of worlds in envs/README.md: it has every id, and says what the code says."""

import re

import gymnasium
import pytest

import sb3_llm.envs  # noqa: F401  # registers the project's own
from sb3_llm import make_env
from sb3_llm.benchmarks.worlds import README, phrases_column, table, world_ids

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")


def test_the_readme_names_every_world_with_its_phrases() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
    told = {row[0]: row[2] for row in rows}
    ids = [env_id for env_id in gymnasium.registry if env_id.startswith(("MiniGrid-", "BabyAI-", "sb3_llm/"))]
    assert (
        sorted(told) == sorted(env_id for env_id in ids if not env_id.startswith("MiniGrid-WFC")) == sorted(world_ids())
    )
    assert len(rows) == len(told)
    stale = {env_id for env_id, phrases in told.items() if phrases != phrases_column(make_env(env_id))}
    assert not stale, "run python -m benchmarks worlds"


def test_the_table_is_made_alike_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_llm.benchmarks.worlds.world_ids", lambda: ["BabyAI-BossLevel-v0", "sb3_llm/Maze3x3-v0"])
    boss, maze = table().splitlines()[2:]
    assert table().splitlines()[2:] == [boss, maze]
    assert re.fullmatch(r"\| BabyAI-BossLevel-v0 \| [a-z ,]+ \| .*, open \| 22 x 22 \| \d+ to \d+ \| \d{3} \|", boss)
    assert re.fullmatch(r"\| sb3_llm/Maze3x3-v0 \| reach the goal \| .*, west \| 3 x 3 cells \| 36 \| \d{3} \|", maze)
