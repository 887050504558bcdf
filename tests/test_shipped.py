"""The model that ships: what its manifest says it read is what this code tells, and nothing held out is in it."""

import json
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest

from sb3_llm.envs import layout
from sb3_llm.envs.layout import draw_layout, layout_hash
from sb3_llm.language_model import EMBEDDED_FOLDER, load_language_model
from sb3_llm.pretrain.corpus import FORMAT, share_out, tell_part
from sb3_llm.pretrain.publish import card_of
from sb3_llm.pretrain.sources import HELD_OUT, SAYINGS, SOURCES, check_allowed

Entries = list[dict[str, Any]]
SHIPPED = json.loads((EMBEDDED_FOLDER / "manifest.json").read_text(encoding="utf-8"))["corpus"]
by_this_code = pytest.mark.skipif(SHIPPED["format"] == 1, reason="the model of the first corpus, whose code is gone")


@pytest.fixture(scope="module")
def read() -> Entries:
    """The entries of stories."""
    assert sum(entry["lines"] for entry in SHIPPED["sources"]) == SHIPPED["lines"] > 1000
    return [entry for entry in SHIPPED["sources"] if "env_id" in entry]


def test_it_read_nothing_held_out(read: Entries) -> None:
    assert len(read) > 10
    for entry in read:
        assert not entry["env_id"].startswith(HELD_OUT)
        check_allowed(entry["env_id"], entry["env_kwargs"])


def test_it_read_only_dfs_mazes_of_the_train_split(read: Entries) -> None:
    mazes = [entry for entry in read if entry["env_id"] in ("sb3_llm/Maze-v0", "sb3_llm/MiniGridMaze-v0")]
    assert mazes
    for entry in mazes:
        assert (entry["env_kwargs"]["generator"], entry["env_kwargs"]["split"]) == ("dfs", "train")
        assert entry["layouts"]
    for entry in read:
        assert bool(entry["layouts"]) is (entry in mazes)
        assert all(len(name) == 64 and int(name, 16) % layout.TEST_ONE_IN != 0 for name in entry["layouts"])


def test_it_never_saw_a_test_maze(read: Entries) -> None:
    sizes = {entry["env_kwargs"]["size"] for entry in read if entry["layouts"]}
    seen = {name for entry in read for name in entry["layouts"]}
    rng = np.random.default_rng(0)
    for size, generator in product(sorted(sizes - {2}), ("dfs", "wilson")):
        fresh = {layout_hash(draw_layout(size, generator, "test", rng)) for _ in range(200)}
        assert fresh.isdisjoint(seen)
    # The test can fail: the train split of the smallest size has been read nearly whole.
    assert {layout_hash(draw_layout(3, "dfs", "train", rng)) for _ in range(50)} & seen


@by_this_code
def test_it_was_told_by_these_sources() -> None:
    """Names, shares and experts of the manifest are those of the code, and every part has the lines it was to have."""
    assert SHIPPED["format"] == FORMAT
    parts = share_out(SHIPPED["asked"], SHIPPED["seed"], SOURCES)
    for part, entry in zip(parts, SHIPPED["sources"], strict=True):
        described = {"kind": part.source} if isinstance(part.source, str) else asdict(part.source)
        assert json.loads(json.dumps(described)) == {name: entry[name] for name in described}
        assert entry["lines"] == part.lines
        assert not entry.get("dropped", 0) > entry.get("episodes", 0) / 10


@by_this_code
@pytest.mark.parametrize("which", ["the shortest part", *SAYINGS])
def test_its_lines_are_told_by_this_code(which: str) -> None:
    """Told anew, a part has the very lines: whoever changes a describer, an expert or a word has to train again."""
    parts = share_out(SHIPPED["asked"], SHIPPED["seed"], SOURCES)
    shortest = min(parts[: -len(SAYINGS)], key=lambda part: part.lines)
    part = next((part for part in parts if part.source == which), shortest)
    _, entry = tell_part(part)
    assert entry["sha256"] == SHIPPED["sources"][parts.index(part)]["sha256"]


@by_this_code
def test_its_card_is_the_one_the_folder_gives() -> None:
    """The card is written by code from the manifest; edited apart, one of the two would be untrue."""
    lm, tokenizer = load_language_model("embedded")
    assert (EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8") == card_of(EMBEDDED_FOLDER, lm, tokenizer)
