"""The corpus: the same from the same seed, whole or refused, and nothing in it that is held out."""

import json
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import pytest

from sb3_llm.describe import worded
from sb3_llm.describe.worded import CANONICAL, DRAWN
from sb3_llm.envs import MAZE_SIZES, layout
from sb3_llm.envs.layout import GENERATORS, draw_layout, layout_hash
from sb3_llm.envs.rooms_layout import TAKEN_SIZES
from sb3_llm.errors import SetupError
from sb3_llm.pretrain import corpus
from sb3_llm.pretrain.corpus import (
    Part,
    as_line,
    as_text,
    digest,
    lines_of,
    read_lines,
    read_manifest,
    share_out,
    tell_part,
    write_corpus,
)
from sb3_llm.pretrain.sources import HELD_OUT, MAX_MAZE, SAYINGS, SOURCES, Source, check_allowed
from sb3_llm.pretrain.stories import TELLINGS, Exchange, Line, Telling, tell_story
from sb3_llm.words.held_out import find_held_out, held_out_phrases, uses_held_out
from sb3_llm.words.wording import Wording

TRAIN = {"generator": "dfs", "split": "train"}
SMALL = (
    Source("sb3_llm/Maze-v0", 3, {"size": 3, **TRAIN}),
    Source("sb3_llm/MiniGridMaze-v0", 2, {"size": 3, **TRAIN}),
    Source("sb3_llm/Rooms-v0", 2, {"kind": "goal"}),
    Source("BabyAI-GoToLocal-v0", 2, use_bot=True),
    Source("BabyAI-OpenDoorLoc-v0", 1),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder, 200, seed=1, sources=SMALL)
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the same seed, the same corpus


def test_same_seed_same_corpus_in_one_process_and_in_two(written: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, 200, seed=1, processes=2, sources=SMALL)
    assert contents(tmp_path) == contents(written)


def test_another_seed_tells_something_else_everywhere() -> None:
    ours, theirs = ([tell_part(part)[1]["sha256"] for part in share_out(120, seed, SMALL)] for seed in (1, 2))
    assert not set(ours) & set(theirs)


def test_digest_sees_order_and_where_a_line_is_split() -> None:
    lines = [Line("a", "b"), Line("向", "c")]
    one = [Line("a", "b", (Exchange("向", "c"),))]
    others = [lines[::-1], [Line("ab", ""), lines[1]], lines[:1], one, [Line("a", "b", (Exchange("向c", ""),))]]
    assert len({digest(each) for each in (lines, *others)}) == 6
    assert digest(iter(lines)) == digest(lines)


@pytest.mark.parametrize(
    "line",
    [
        Line("", "A key.\n"),
        Line("Goal: go.\nAction:", " turn left\n"),
        Line("目标 🚪\n", " 向前走\n", (Exchange("a", "b"),)),
        Line("a", "b", tuple(Exchange(f"[{number}]", '"\\\n\u2028') for number in range(4))),
    ],
)
def test_a_line_is_read_as_it_was_written(line: Line) -> None:
    text = as_text(line)
    assert json.loads(text) == [part for exchange in line.exchanges() for part in exchange]
    assert "\n" not in text
    for written in (text, text.encode(), f"{text}\n".encode()):
        found = as_line(written)
        assert found == line
        assert all(isinstance(exchange, Exchange) for exchange in found.more)
    assert line.text() == "".join(json.loads(text))
    assert line.exchanges() == (Exchange(line.prompt, line.completion), *line.more)


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", '["a"]', "[1, 2]", '["a", 2]', '["a", null]', '["a", "b", "c"]', '["a", "b", ["c", "d"]]'),
        *('{"a": "b"}', '"ab"', "2", "null", "", '["a", "b"', '["a", "b"] ["c", "d"]', b'["\xff", "b"]'),
    ],
)
def test_what_is_no_line_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"prompts, each before its completion|Expecting|Extra data|can't decode"):
        as_line(text)


def test_a_part_is_told_anew_when_anything_of_it_changes() -> None:
    source = Source("BabyAI-GoToLocal-v0", 1)
    parts = [Part("0", source, 10, 0), Part("0", source, 11, 0), Part("0", source, 10, 1), Part("0", "dialogue", 10, 0)]
    parts.append(Part("0", Source("BabyAI-GoToLocal-v0", 1, use_bot=True), 10, 0))
    assert len({part.digest() for part in parts}) == len(parts)
    assert Part("other", Source("BabyAI-GoToLocal-v0", 1), 10, 0).digest() == parts[0].digest()


def test_lines_are_shared_out_and_the_manifest_accounts_for_them(written: Path) -> None:
    manifest = read_manifest(written)
    stories, sayings = manifest["sources"][: len(SMALL)], manifest["sources"][len(SMALL) :]
    assert [entry["lines"] for entry in stories] == [44, 29, 29, 29, 15]
    assert [(entry["kind"], entry["lines"]) for entry in sayings] == [
        (kind, round(200 * share)) for kind, share in SAYINGS.items()
    ]
    lines = list(read_lines(written))
    assert (manifest["lines"], manifest["asked"], manifest["seed"], manifest["format"]) == (len(lines), 200, 1, 5)
    first = 0
    for source, entry in zip(SMALL, stories, strict=True):
        chapter = lines[first : first + entry["lines"]]
        first += entry["lines"]
        assert entry["sha256"] == digest(chapter)
        assert (entry["env_id"], entry["env_kwargs"], entry["use_bot"]) == (
            source.env_id,
            source.env_kwargs,
            source.use_bot,
        )
        assert (entry["dropped"], entry["episodes"] > 0) == (0, True)
        assert bool(entry["layouts"]) is ("Maze" in source.env_id)
        said = [completion for line in chapter for _, completion in line.exchanges()]
        assert all(completion.startswith(" ") and completion.endswith("\n") for completion in said)
    for entry in sorted(sayings, key=itemgetter("kind")):  # by the names of their files
        chapter = lines[first : first + entry["lines"]]
        assert lines_of(manifest, entry["kind"]) == range(first, first + entry["lines"])
        first += entry["lines"]
        assert entry["sha256"] == digest(chapter)
    assert first == len(lines)
    assert lines_of(manifest, "jokes") == range(0)


def test_maze_hashes_in_the_manifest_are_of_the_mazes_told(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[str] = set()

    def noted(*args: Any) -> Any:
        walls = draw_layout(*args)
        drawn.add(layout_hash(walls))
        return walls

    for module in ("sb3_llm.envs.maze", "sb3_llm.envs.minigrid_maze"):
        monkeypatch.setattr(f"{module}.draw_layout", noted)
    for source in SMALL[:2]:
        drawn.clear()
        _, entry = corpus.tell_stories(source, 40, seed=0)
        assert entry["layouts"] == sorted(drawn)
        assert all(int(name, 16) % layout.TEST_ONE_IN for name in drawn)


# --- whole, or refused


def test_an_interrupted_corpus_goes_on(copied: Path, written: Path) -> None:
    for name in ("manifest.json", "001.json", "003.jsonl", "questions.json", "questions.jsonl"):
        (copied / name).unlink()
    (copied / "001.jsonl").write_bytes(b'["cut", ')
    kept = {name: (copied / name).stat().st_mtime_ns for name in ("000.jsonl", "002.json", "dialogue.jsonl")}
    write_corpus(copied, 200, seed=1, sources=SMALL)
    assert contents(copied) == contents(written)
    assert kept == {name: (copied / name).stat().st_mtime_ns for name in kept}


def test_a_spoilt_part_is_noticed_and_told_anew(copied: Path, written: Path) -> None:
    path, whole = copied / "002.jsonl", (copied / "002.jsonl").read_bytes()
    for content, how in (
        (whole.replace(b"north", b"south", 1), "not the one that was written"),
        (whole[: whole.rindex(b"\n", 0, -1) + 1], "not the one that was written"),
        (whole[:-9], "broken in line 29"),
        *(
            (text + b"\n" + whole, "broken in line 1")
            for text in (b'{"a": 1}', b"[]", b'["a"]', b"[1, 2]", b"", b"\xff")
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(SetupError, match=f"002.jsonl, which is {how}.*sha256.*delete 002.jsonl"):
            list(read_lines(copied))
    (copied / "manifest.json").unlink()
    write_corpus(copied, 200, seed=1, sources=SMALL)
    assert contents(copied) == contents(written)
    path.unlink()
    with pytest.raises(SetupError, match="which is missing"):
        list(read_lines(copied))


def test_files_of_others_in_the_folder_are_not_read(copied: Path, written: Path) -> None:
    (copied / "999.jsonl").write_text('["of another", "corpus"]\n')
    assert list(read_lines(copied)) == list(read_lines(written))


@pytest.mark.parametrize("found", [1, 2, 3, 4, None, "5"])
def test_another_format_is_refused(found: Any, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": found, "sources": []}))
    for act in (lambda: write_corpus(tmp_path, 50), lambda: list(read_lines(tmp_path))):
        with pytest.raises(SetupError, match=f"format {found}. Expected: format 5"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(("n_lines", "seed"), [(201, 1), (200, 2)])
def test_other_settings_are_refused(n_lines: int, seed: int, copied: Path, written: Path) -> None:
    with pytest.raises(SetupError, match=f"of 200 lines and seed 1. Expected: one of {n_lines} lines and seed {seed}"):
        write_corpus(copied, n_lines, seed, sources=SMALL)
    assert contents(copied) == contents(written)


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"as a corpus \(.*No such file.*manifest.json, as `sb3-llm pretrain` leaves"):
        list(read_lines(tmp_path))
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(SetupError, match="as a corpus"):
        read_manifest(tmp_path)
    with pytest.raises(SetupError, match="which is a file"):
        write_corpus(tmp_path / "manifest.json", 50)


# --- what is held out

GRIDS = sorted(env_id for env_id in gymnasium.registry if env_id.startswith("MiniGrid-"))
TWINS = sorted(env_id for env_id in gymnasium.registry if env_id.startswith(HELD_OUT[1:]))
# Written out, so that a change of HELD_OUT or of minigrid's names shows here.
NAMED = {
    *("Unlock", "UnlockPickup", "UnlockPickupDist", "BlockedUnlockPickup", "GoToSeq", "GoToSeqS5R2"),
    *("Synth", "SynthS5R2", "SynthLoc", "SynthSeq", "BossLevel", "BossLevelNoUnlock", "MiniBossLevel"),
    *("KeyCorridor", *(f"KeyCorridor{size}" for size in ("S3R1", "S3R2", "S3R3", "S4R3", "S5R3", "S6R3"))),
}


def test_held_out_ids_are_the_named_ones() -> None:
    assert len(GRIDS) > 70
    assert set(TWINS) == {f"BabyAI-{name}-v0" for name in NAMED}
    for start in HELD_OUT:
        assert any(env_id.startswith(start) for env_id in gymnasium.registry), start


@pytest.mark.parametrize("env_id", [*GRIDS, *TWINS])
def test_held_out_ids_are_refused(env_id: str) -> None:
    with pytest.raises(SetupError, match=f"{env_id} .*as a source.*Expected: .*not held out.*leave it out"):
        check_allowed(env_id, {})
    with pytest.raises(SetupError):
        Source(env_id, 1)


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("minigrid:MiniGrid-DoorKey-8x8-v0", {}),
        ("minigrid:BabyAI-BossLevel-v0", {}),
        ("sb3_llm.envs:sb3_llm/Maze-v0", {"size": 4, "generator": "dfs", "split": "test"}),
    ],
)
def test_held_out_ids_are_refused_under_their_modules_name(env_id: str, env_kwargs: dict[str, Any]) -> None:
    assert gymnasium.make(env_id, **env_kwargs).spec is not None
    with pytest.raises(SetupError):
        check_allowed(env_id, env_kwargs)


MAZES = ("sb3_llm/Maze-v0", "sb3_llm/MiniGridMaze-v0")


@pytest.mark.parametrize(
    "env_kwargs",
    [
        {},
        {"size": 4, "split": "train"},  # what is not written out may change
        {"size": 4, "generator": "dfs"},
        TRAIN,
        *({"size": size, **TRAIN} for size in (*MAZE_SIZES, MAX_MAZE + 1, None, "3", 3.5)),
        *({"size": 4, "generator": g, "split": s} for g, s in product(GENERATORS, ("train", "test", "all"))),
    ],
    ids=str,
)
@pytest.mark.parametrize("env_id", MAZES)
def test_mazes_need_split_generator_and_size_of_training(env_id: str, env_kwargs: dict[str, Any]) -> None:
    if env_kwargs in [{"size": size, **TRAIN} for size in (3, 4, 5, 6)]:
        check_allowed(env_id, env_kwargs)
        return
    with pytest.raises(SetupError, match="split='train', generator='dfs' and a size of at most 6 cells written out"):
        check_allowed(env_id, env_kwargs)


@pytest.mark.parametrize("env_id", ["sb3_llm/Maze5x5-v0", "sb3_llm/Maze10x10-v0", "sb3_llm/Dialogue-v0"])
def test_this_projects_other_worlds_are_refused(env_id: str) -> None:
    with pytest.raises(SetupError):
        check_allowed(env_id, TRAIN)


def test_sources_are_registered_and_tell_what_they_should() -> None:
    assert len(SOURCES) > 60
    assert {source.env_id for source in SOURCES} <= set(gymnasium.registry)
    assert all(source.share > 0 and source.env_id.startswith("BabyAI-") >= source.use_bot for source in SOURCES)
    names = [part.name for part in share_out(1000, 0, SOURCES)]
    assert len(set(names)) == len(SOURCES) + len(SAYINGS)
    assert names[: len(SOURCES)] == sorted(names[: len(SOURCES)]), "the manifest's order is the one of their names"


class Told(NamedTuple):
    """A little of every source and saying, and what it was told with."""

    lines: dict[str, list[Line]]
    wordings: list[Wording]
    sizes: list[tuple[int, int]]  # outer ones of this project's rooms


@pytest.fixture(scope="module")
def told() -> Told:
    found = Told({}, [], [])
    real_draw, real_tell = worded.draw, tell_story

    def draw(*args: Any) -> Wording:
        found.wordings.append(real_draw(*args))
        return found.wordings[-1]

    def tell(env: Any, *args: Any) -> list[Line]:
        story = real_tell(env, *args)
        if env.spec.id == "sb3_llm/Rooms-v0":
            found.sizes.append((env.unwrapped.width, env.unwrapped.height))
        return story

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worded, "draw", draw)
        patch.setattr(corpus, "tell_story", tell)
        for part in share_out(1600, 11, SOURCES):
            found.lines[part.name], _ = tell_part(part)
    return found


def test_every_source_tells(told: Told) -> None:
    assert all(told.lines.values())
    assert sum(map(len, told.lines.values())) == pytest.approx(1600, abs=30)


def test_nothing_held_out_is_said_in_any_line(told: Told) -> None:
    assert {wording for _, wording in TELLINGS} == {CANONICAL, DRAWN}
    assert len(told.wordings) > 40
    assert not [wording for wording in told.wordings if uses_held_out(wording)]
    lines = [line for lines in told.lines.values() for line in lines]
    assert sum(bool(line.more) for line in lines) > 300
    for line in lines:
        assert find_held_out(line.text()) is None
        for prompt, completion in line.exchanges():
            if prompt.endswith("\nAction:"):
                assert completion.strip() not in held_out_phrases()


@pytest.mark.parametrize("axis", ["nouns", "colors", "phrases"])
def test_what_is_held_out_would_be_found(axis: str) -> None:
    env = gymnasium.make("BabyAI-GoToLocal-v0")
    lines = tell_story(env, 0, (0.0,), telling=Telling("summary", "en", f"held-out {axis}"))
    said = [line for line in lines if line.prompt.endswith("\nAction:")]
    phrases = [line.completion.strip() in held_out_phrases() for line in said]
    assert any(phrases) if axis == "phrases" else all(find_held_out(line.prompt) for line in said)


def test_no_room_that_was_read_has_the_size_of_one_of_minigrid(told: Told) -> None:
    assert len(told.sizes) > 25
    assert not [size for size in told.sizes if size[0] == size[1] or size in TAKEN_SIZES]
