"""The corpus: the same from the same seed, told by experts that arrive, and nothing in it that is held out."""

import json
import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from minigrid.utils.baby_ai_bot import BabyAIBot

from sb3_llm.envs import layout
from sb3_llm.envs.layout import draw_layout, layout_hash, optimal_actions
from sb3_llm.errors import SetupError
from sb3_llm.language_model import EMBEDDED_FOLDER, load_language_model
from sb3_llm.make import make_env
from sb3_llm.pretrain import corpus, stories
from sb3_llm.pretrain.corpus import digest, load_corpus, save_corpus, write_chapter, write_corpus
from sb3_llm.pretrain.publish import model_card
from sb3_llm.pretrain.sources import HELD_OUT, SOURCES, Source, check_allowed
from sb3_llm.pretrain.stories import StoryTimeout, next_turn_or_step, tell_story, time_limit
from tests.walks import flood

TRAIN = {"generator": "dfs", "split": "train"}
SMALL = (
    Source("sb3_llm/Maze-v0", 3, {"size": 3, **TRAIN}),
    Source("sb3_llm/MiniGridMaze-v0", 2, {"size": 3, **TRAIN}),
    Source("BabyAI-GoToLocal-v0", 2),
    Source("BabyAI-UnlockLocal-v0", 1),
    Source("BabyAI-OpenDoorLoc-v0", 1),
)


# --- the same seed, the same corpus


def test_same_seed_same_corpus_in_one_process_and_in_two() -> None:
    lines, manifest = write_corpus(400, seed=1, sources=SMALL)
    again, twin = write_corpus(400, seed=1, processes=2, sources=SMALL)
    assert (lines, manifest) == (again, twin)
    assert manifest["sha256"] == digest(lines)
    assert (manifest["lines"], manifest["asked"], manifest["seed"]) == (len(lines), 400, 1)
    other, changed = write_corpus(400, seed=2, sources=SMALL)
    assert changed["sha256"] != manifest["sha256"]
    shared = {ours["sha256"] for ours in manifest["sources"]} & {theirs["sha256"] for theirs in changed["sources"]}
    assert not shared  # every source tells something else
    assert lines != other


def test_digest_sees_order_and_where_a_line_is_split() -> None:
    lines = [("a", "b"), ("向", "c")]
    assert len({digest(lines), digest(lines[::-1]), digest([("ab", ""), lines[1]]), digest(lines[:1])}) == 4
    assert digest(iter(lines)) == digest(lines)


def test_lines_are_shared_out_and_the_manifest_accounts_for_them() -> None:
    lines, manifest = write_corpus(180, seed=3, sources=SMALL)
    assert [source["lines"] for source in manifest["sources"]] == [60, 40, 40, 20, 20]
    first = 0
    for source, entry in zip(SMALL, manifest["sources"], strict=True):
        chapter = lines[first : first + entry["lines"]]
        first += entry["lines"]
        assert entry["sha256"] == digest(chapter)
        assert (entry["env_id"], entry["env_kwargs"], entry["detours"]) == (
            source.env_id,
            source.env_kwargs,
            source.detours,
        )
        assert (entry["dropped"], entry["episodes"] > 0) == (0, True)
        assert bool(entry["layouts"]) is source.env_id.startswith("sb3_llm/")
        assert {phrase for _, phrase in chapter} <= set(make_env(source.env_id, **source.env_kwargs).phrases)
        assert all(text.endswith(".") and "Last action: " in text for text, _ in chapter)


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
        chapter = write_chapter(source, 40, seed=0)
        assert chapter.layouts == sorted(chapter.layouts)
        assert set(chapter.layouts) == drawn
        assert all(int(name, 16) % layout.TEST_ONE_IN for name in drawn)


def test_corpus_comes_back_from_its_folder(tmp_path: Path) -> None:
    lines = [("Goal: 向前 🚪.\nNext line", "turn left"), ('"quoted" \\ \u2028', "右转")]
    save_corpus(tmp_path / "new" / "folder", lines, {"seed": 1, "asked": 2})
    assert load_corpus(tmp_path / "new" / "folder") == (lines, {"seed": 1, "asked": 2})
    assert len((tmp_path / "new" / "folder" / "corpus.jsonl").read_bytes().splitlines()) == 2


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
    with pytest.raises(SetupError, match=f"{env_id}.*not held out"):
        check_allowed(env_id, {})
    with pytest.raises(SetupError):
        Source(env_id, 1)


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("minigrid:MiniGrid-DoorKey-8x8-v0", {}),
        ("minigrid:BabyAI-BossLevel-v0", {}),
        ("sb3_llm.envs:sb3_llm/Maze-v0", {"generator": "dfs", "split": "test"}),
    ],
)
def test_held_out_ids_are_refused_under_their_modules_name(env_id: str, env_kwargs: dict[str, Any]) -> None:
    assert gymnasium.make(env_id, **env_kwargs).spec is not None
    with pytest.raises(SetupError):
        check_allowed(env_id, env_kwargs)


ALLOWED = [("sb3_llm/Maze-v0", TRAIN), ("sb3_llm/Maze5x5-v0", TRAIN), ("sb3_llm/MiniGridMaze-v0", TRAIN)]


@pytest.mark.parametrize(
    "env_kwargs",
    [
        {},
        {"split": "train"},  # what is not written out may change
        {"generator": "dfs"},
        *({"generator": g, "split": s} for g, s in product(("dfs", "wilson", "kruskal"), ("train", "test", "all"))),
    ],
    ids=str,
)
@pytest.mark.parametrize("env_id", [env_id for env_id, _ in ALLOWED])
def test_mazes_need_split_and_generator_of_training(env_id: str, env_kwargs: dict[str, Any]) -> None:
    if env_kwargs == TRAIN:
        check_allowed(env_id, env_kwargs)
        return
    with pytest.raises(SetupError, match="split='train' and generator='dfs'"):
        check_allowed(env_id, {"size": 4, **env_kwargs})


def test_levels_of_training_are_allowed() -> None:
    for env_id, env_kwargs in [("BabyAI-UnlockLocal-v0", {}), ("BabyAI-UnlockLocalDist-v0", {}), *ALLOWED]:
        check_allowed(env_id, env_kwargs)
    assert len(SOURCES) > 30
    assert all(source.env_id in gymnasium.registry for source in SOURCES)


# --- stories


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("sb3_llm/Maze-v0", {"size": 5, **TRAIN}),
        ("sb3_llm/MiniGridMaze-v0", {"size": 3, **TRAIN}),
        ("BabyAI-GoToLocal-v0", {}),
        ("BabyAI-PickupLoc-v0", {}),
        ("BabyAI-OpenTwoDoors-v0", {}),
        ("BabyAI-PutNextS4N1-v0", {}),
        ("BabyAI-UnlockLocal-v0", {}),
        ("BabyAI-UnlockToUnlock-v0", {}),
    ],
)
def test_experts_arrive(env_id: str, env_kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env(env_id, **env_kwargs)
    steps: list[Any] = []
    real_step = env.step
    monkeypatch.setattr(env, "step", lambda action: steps.append((action, real_step(action))) or steps[-1][1])
    for seed in range(4):
        steps.clear()
        lines = tell_story(env, seed, (0.0,))
        assert [env.phrases[action] for action, _ in steps] == [phrase for _, phrase in lines]
        _, _, terminated, _, info = steps[-1][1]
        assert (terminated, info["is_success"]) == (True, True)
        if env_id == "sb3_llm/Maze-v0":
            assert len(lines) == info["optimal_length"]


def test_turn_or_step_is_shortest_with_turns_counted() -> None:
    env = make_env("sb3_llm/MiniGridMaze-v0", size=3, **TRAIN)
    for seed in range(10):
        length = len(tell_story(env, seed, (0.0,)))
        walls = env.unwrapped.walls
        # A tree has one path: its squares, and a turn (two for an about-turn) wherever the heading changes.
        steps, at, headings = flood(walls, 5, 5), (1, 1), []
        while at != (5, 5):
            near = [(at[0] + dy, at[1] + dx, way) for way, (dx, dy) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)])]
            (row, column, way) = next(n for n in near if steps[n[:2]] == steps[at] - 1)
            headings.append(way)
            at = (row, column)
        env.reset(seed=seed)
        headings.insert(0, env.unwrapped.agent_dir)
        turns = [min((b - a) % 4, (a - b) % 4) for a, b in pairwise(headings)]
        assert length == len(headings) - 1 + sum(turns)
        assert next_turn_or_step(env.unwrapped) in (0, 1, 2)


def test_the_phrase_is_the_experts_whatever_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("sb3_llm/MiniGridMaze-v0", size=3, **TRAIN)
    taken: list[int] = []
    best: list[int] = []
    real_step = env.step

    def step(action: int) -> Any:
        taken.append(action)
        best.append(next_turn_or_step(env.unwrapped))
        return real_step(action)

    monkeypatch.setattr(env, "step", step)
    lines = tell_story(env, 0, (1.0,))
    assert [phrase for _, phrase in lines] == [env.phrases[action] for action in best]
    assert len(lines) > 20
    assert 0.1 < np.mean(np.array(taken) == best) < 0.7  # random steps


@pytest.mark.parametrize("detour", [0.3, 1.0])
def test_in_mazes_nothing_is_told_on_the_way_into_a_wrong_branch(
    detour: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_env("sb3_llm/Maze-v0", size=4, **TRAIN)
    inner, real_step = env.unwrapped, env.step
    steps: list[tuple[str, int, int]] = []

    def step(action: int) -> Any:
        steps.append((env.text, action, optimal_actions(inner.walls, inner.position, inner.goal)[0]))
        return real_step(action)

    monkeypatch.setattr(env, "step", step)
    silent = 0
    for seed in range(10):
        steps.clear()
        lines = tell_story(env, seed, (detour,))
        assert inner.position == inner.goal
        # Where several branches are searched one after the other, the way back out of a part is silent too.
        moments = iter(steps)
        for text, phrase in lines:
            told = next(moment for moment in moments if moment[0] == text)
            assert [env.phrases[action] for action in told[1:]] == [phrase, phrase]
        silent += len(steps) - len(lines)
        if detour == 1.0:  # every branch that the path passes is searched; what lies behind the goal isn't passed
            blocked = inner.walls.copy()
            blocked[7, 7] = 1
            passed = np.argwhere(flood(blocked, 1, 1)[1::2, 1::2] >= 0)
            assert {tuple(cell) for cell in passed.tolist()} == inner.walked - {inner.goal}
    assert silent > 10


def test_text_is_of_the_moment_before_the_step() -> None:
    env = make_env("sb3_llm/Maze-v0", size=4, **TRAIN)
    lines = tell_story(env, 5, (0.0,))
    env.reset(seed=5)
    for text, phrase in lines:
        assert text == env.text
        env.step(env.phrases.index(phrase))


def test_detours_never_say_done(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("BabyAI-GoToLocal-v0")
    rng = np.random.default_rng(0)
    taken = [stories._detour(env, rng) for _ in range(2000)]
    assert set(taken) == set(range(6))
    assert np.mean([action < 3 for action in taken]) > 0.8


# --- experts that hang or fail


class HangingBot(BabyAIBot):
    def replan(self, action_taken: Any = None) -> Any:
        while True:
            pass


def test_hanging_expert_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "BabyAIBot", HangingBot)
    monkeypatch.setattr(stories, "STORY_SECONDS", 0.05)
    monkeypatch.setattr(corpus, "MAX_FAILURES", 4)
    before = time.process_time()
    chapter = write_chapter(Source("BabyAI-GoToObj-v0", 1), 50, seed=0)
    assert time.process_time() - before < 2
    assert (chapter.lines, chapter.episodes, chapter.dropped, chapter.manifest()["dropped"]) == ([], 0, 4, 4)


@pytest.mark.parametrize("failing", [HangingBot, lambda env: 1 / 0], ids=["hangs", "raises"])
def test_stories_go_on_after_an_expert_failed(failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def fails_when_facing_east(env: Any) -> Any:  # for the same level always the same, so it must not be tried again
        made.append(env.agent_dir == 0)
        return failing(env) if made[-1] else BabyAIBot(env)

    monkeypatch.setattr(stories, "BabyAIBot", fails_when_facing_east)
    monkeypatch.setattr(stories, "STORY_SECONDS", 0.2)
    monkeypatch.setattr(corpus, "MAX_FAILURES", 4)  # in a row; there are more in all
    chapter = write_chapter(Source("BabyAI-GoToObj-v0", 1, detours=(0.0,)), 120, seed=0)
    assert len(chapter.lines) == 120
    assert (chapter.episodes, chapter.dropped) == (made.count(False), made.count(True))
    assert chapter.dropped > 4


def spin(seconds: float) -> None:
    """Use up processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_alarm_rings_and_is_put_away() -> None:
    with pytest.raises(StoryTimeout), time_limit(0.05):
        spin(5)
    with time_limit(0.05):
        pass
    spin(0.1)  # an alarm left behind would ring here


def test_alarm_counts_processor_time() -> None:
    with time_limit(0.05):
        time.sleep(0.2)  # as on a busy machine


def test_bot_plans_from_the_step_really_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int | None] = []
    taken: list[int] = []

    class WatchedBot(BabyAIBot):
        def replan(self, action_taken: Any = None) -> Any:
            told.append(action_taken)
            return super().replan(action_taken)

    env = make_env("BabyAI-GoToLocal-v0")
    real_step = env.step
    monkeypatch.setattr(stories, "BabyAIBot", WatchedBot)
    monkeypatch.setattr(env, "step", lambda action: taken.append(action) or real_step(action))
    lines = tell_story(env, 1, (0.9,))
    assert told == [None, *taken[:-1]]
    assert [env.phrases[action] for action in taken] != [phrase for _, phrase in lines]  # there were detours


# --- what the shipped model read


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, Any]]:
    manifest = json.loads((EMBEDDED_FOLDER / "manifest.json").read_text(encoding="utf-8"))["corpus"]
    assert sum(source["lines"] for source in manifest["sources"]) == manifest["lines"] > 1000
    return manifest["sources"]


def test_shipped_model_read_nothing_held_out(shipped: list[dict[str, Any]]) -> None:
    assert len(shipped) > 10
    for source in shipped:
        assert not source["env_id"].startswith(("MiniGrid-", *(f"BabyAI-{name}-v" for name in NAMED)))
        check_allowed(source["env_id"], source["env_kwargs"])


def test_shipped_model_read_only_dfs_mazes_of_the_train_split(shipped: list[dict[str, Any]]) -> None:
    mazes = [source for source in shipped if "aze-v" in source["env_id"] and "sb3_llm" in source["env_id"]]
    assert mazes
    for source in mazes:
        assert (source["env_kwargs"]["generator"], source["env_kwargs"]["split"]) == ("dfs", "train")
        assert source["layouts"]
    for source in shipped:
        assert bool(source["layouts"]) is (source in mazes)
        assert all(len(name) == 64 and int(name, 16) % layout.TEST_ONE_IN != 0 for name in source["layouts"])


def test_shipped_model_never_saw_a_test_maze(shipped: list[dict[str, Any]]) -> None:
    sizes = {source["env_kwargs"]["size"] for source in shipped if source["layouts"]}
    seen = {name for source in shipped for name in source["layouts"]}
    rng = np.random.default_rng(0)
    for size, generator in product(sizes, ("dfs", "wilson")):
        fresh = {layout_hash(draw_layout(size, generator, "test", rng)) for _ in range(300)}
        assert fresh.isdisjoint(seen)
    # The test can fail: the train split of the smallest size has been read nearly whole.
    train = {layout_hash(draw_layout(3, "dfs", "train", rng)) for _ in range(50)}
    assert train & seen


def test_shipped_card_is_the_one_the_manifest_gives() -> None:
    """The card is written by code from the manifest; edited apart, one of the two would be untrue."""
    whole = json.loads((EMBEDDED_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    lm, tokenizer = load_language_model("embedded")
    card = model_card(lm.num_parameters(), len(tokenizer), whole["corpus"], whole["training"])
    assert (EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8") == card
