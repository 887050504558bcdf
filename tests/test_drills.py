"""Drills: other missions in the same moment, decided as the planner would, and told in the story's own words."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.memory import Memory
from sb3_llm.describe.view import is_thing, thing_of
from sb3_llm.describe.worded import CANONICAL, DRAWN
from sb3_llm.pretrain import drills as module
from sb3_llm.pretrain import stories
from sb3_llm.pretrain.drills import ASKED, MAX_DRILLS, SAY_DONE, Drill, drills
from sb3_llm.pretrain.planner import WAIT, Planner
from sb3_llm.pretrain.stories import DRILL_SHARE, Line, Story, Telling, tell_story
from sb3_llm.words.mission import GoTo, PutNext, Reach, parse, tasks_of, things_of
from tests.drawn import DrawnWorld
from tests.test_memory import lives, state_of
from tests.test_stories import TRAIN

WORLDS = ("BabyAI-GoTo-v0", "BabyAI-PickupDist-v0", "MiniGrid-KeyCorridorS3R3-v0", "MiniGrid-DoorKey-8x8-v0")
Moment = tuple[Memory, list[Drill]]


@pytest.fixture(scope="module")
def moments() -> list[Moment]:
    """Each memory as it was when its drills were drawn."""
    rng = np.random.default_rng(0)
    walks = (memory for env_id in WORLDS for _, _, memory in lives(env_id, 60, purposeful=True))
    return [(deepcopy(memory), drills(rng, memory)) for memory in walks]


# --- what is asked, and what is said to it


def test_keys_are_what_a_fresh_planner_says(moments: list[Moment]) -> None:
    for memory, found in moments:
        for asked, key in found:
            mission = parse(asked)
            assert mission is not None, asked
            advice = Planner(mission, says_done=isinstance(mission, GoTo)).action(memory)
            assert advice[0] == key
            assert advice != WAIT


def test_missions_are_single_tasks_of_every_kind(moments: list[Moment]) -> None:
    asked = [mission for _, found in moments for mission, _ in found]
    trees = [parse(mission) for mission in asked]
    assert all(len(tasks_of(tree)) == 1 for tree in trees)
    assert {type(tree).__name__ for tree in trees} == {"GoTo", "PickUp", "Open", "PutNext", "Reach"}
    assert {desc.kind for tree in trees for task in tasks_of(tree) for desc in things_of(task)} == set(ASKED) - {"goal"}
    going = [mission.endswith(SAY_DONE) for mission, tree in zip(asked, trees, strict=True) if isinstance(tree, GoTo)]
    assert np.mean(going) == pytest.approx(1 - module.PLAIN_SHARE, abs=0.15)


def test_nothing_is_put_next_to_itself(moments: list[Moment]) -> None:
    """But for the only thing there is."""
    for memory, found in moments:
        known = {thing_of(code)._replace(state=None) for code in memory.known.values() if is_thing(code)}
        for asked, _ in found:
            task = parse(asked)
            if isinstance(task, PutNext) and len({thing for thing in known if thing.kind in ASKED}) > 2:
                assert task.first != task.second


def test_there_are_a_few_of_each_moment(moments: list[Moment]) -> None:
    counts = [len(found) for _, found in moments]
    assert max(counts) == MAX_DRILLS
    assert np.mean(counts) > 1
    assert np.mean([len({key for _, key in found}) > 1 for _, found in moments]) > 0.3, "one text, several decisions"


def test_a_decision_does_not_tell_the_next_one() -> None:
    """Put so that unlike ones follow each other, they would."""
    repeats = shuffled = 0.0
    rng = np.random.default_rng(0)
    for world in ("BabyAI-GoToLocal-v0", "BabyAI-PutNextLocal-v0"):
        for _, _, memory in lives(world, 150):
            keys = [key for _, key in drills(rng, memory)]
            repeats += sum(a == b for a, b in pairwise(keys))
            again = [keys[place] for place in rng.permutation(len(keys))]
            shuffled += sum(a == b for a, b in pairwise(again))
    assert repeats == pytest.approx(shuffled, rel=0.15)


@pytest.mark.parametrize("unseen", [0.0, 1.0])
def test_what_is_asked_for_is_known_but_for_one(unseen: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNSEEN_SHARE", unseen)
    rng, strange = np.random.default_rng(1), []
    for _, _, memory in lives("BabyAI-PickupDist-v0", 60):
        known = {thing_of(code)[:2] for code in memory.known.values() if is_thing(code)}
        for mission, _ in drills(rng, memory):
            descs = [desc for task in tasks_of(parse(mission)) for desc in things_of(task)[:1]]
            strange += [isinstance(parse(mission), Reach) or any(tuple(desc[:2]) not in known for desc in descs)]
    assert any(strange) is bool(unseen)
    assert not all(strange)


def test_where_nothing_is_known_only_strange_things_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(DrawnWorld("#####", "#>..#", "#...#", "#####").reset()[0])
    monkeypatch.setattr(module, "UNSEEN_SHARE", 0.0)
    assert drills(np.random.default_rng(0), memory) == []
    monkeypatch.setattr(module, "UNSEEN_SHARE", 1.0)
    rng = np.random.default_rng(0)
    assert {len(drills(rng, memory)) for _ in range(50)} <= {0, 1}


def test_drills_leave_the_memory_as_it_was_and_are_the_same_for_the_same_seed() -> None:
    drawn = []
    for number, (_, _, memory) in enumerate(lives("MiniGrid-KeyCorridorS3R3-v0", 50, purposeful=True)):
        before = deepcopy(state_of(memory))
        first, again, other = (drills(np.random.default_rng(seed), memory) for seed in (number, number, number + 1000))
        assert state_of(memory) == before
        assert first == again
        drawn.append(first != other)
    assert np.mean(drawn) > 0.3


# --- in a story

ROOMS: list[tuple[str, dict[str, Any]]] = [
    ("sb3_llm/Rooms-v0", {"kind": "keydoor"}),
    ("sb3_llm/Rooms-v0", {"kind": "gotodone"}),
    ("BabyAI-PickupDist-v0", {}),
]


def told(env_id: str, env_kwargs: dict[str, Any], telling: Telling, stories_told: int = 6) -> list[Line]:
    env = gym.make(env_id, disable_env_checker=True, **env_kwargs)
    return [line for seed in range(stories_told) for line in tell_story(env, seed, (0.1,), telling=telling)]


def test_a_share_of_the_decisions_is_drilled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "drills", lambda rng, memory: [("pick up the red key", "turn left")])
    lines = told(*ROOMS[0], Telling(SUMMARY, "en", CANONICAL), stories_told=16)
    decided = [line for line in lines if line.prompt.endswith("\nAction:")]
    assert len(decided) > 300
    assert np.mean([bool(line.more) for line in decided]) == pytest.approx(DRILL_SHARE, abs=0.07)
    assert {line.more for line in decided} == {
        (),
        (("Goal: pick up the red key.\nAction:", " turn left\n"),),
    }
    assert not any(line.more for line in lines if line not in decided), "plans and questions stand alone"


@pytest.mark.parametrize(("env_id", "env_kwargs"), ROOMS, ids=str)
def test_lines_have_up_to_so_many_more(env_id: str, env_kwargs: dict[str, Any]) -> None:
    lines = told(env_id, env_kwargs, Telling(SUMMARY, "en", CANONICAL))
    assert {len(line.more) for line in lines} > {0, 1}
    assert max(len(line.more) for line in lines) <= MAX_DRILLS


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "history"),
    [(*ROOMS[0], 1), (*ROOMS[0], 0), ("sb3_llm/Maze-v0", {"size": 4, **TRAIN}, SUMMARY)],
)
def test_only_rooms_with_a_summary_are_drilled(env_id: str, env_kwargs: dict[str, Any], history: History) -> None:
    assert not any(line.more for line in told(env_id, env_kwargs, Telling(history, "en", CANONICAL)))


def test_what_a_world_does_not_offer_is_not_said() -> None:
    said = [
        {
            exchange.completion.strip()
            for line in told(*room, Telling(SUMMARY, "en", CANONICAL), 10)
            for exchange in line.more
        }
        for room in ROOMS[:2]
    ]
    assert "done" not in said[0]
    assert "done" in said[1]


@pytest.mark.parametrize(("language", "wording"), list(stories.TELLINGS))
def test_drills_are_told_in_the_words_of_the_story(
    language: str, wording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Drill]] = []

    def noted(rng: np.random.Generator, memory: Memory) -> list[Drill]:
        drawn.append(drills(rng, memory))
        return drawn[-1]

    monkeypatch.setattr(stories, "drills", noted)
    env = gym.make("BabyAI-PickupDist-v0", disable_env_checker=True)
    ends = 0
    for seed in range(6):
        drawn.clear()
        story = Story(env, seed, Telling(SUMMARY, language, wording), np.random.default_rng(seed))
        words, keys = story.describer.words, story.describer.keys
        told_of = [line.more for line in story.told(0.1) if line.more]
        expected = [
            tuple((f"{words.goal(asked)}\nAction:", f" {words.phrase(key)}\n") for asked, key in found if key in keys)
            for found in drawn
        ]
        assert told_of == [each for each in expected if each]
        ends += len(told_of)
    assert ends > 10
    assert {language for language, _ in stories.TELLINGS} == {"en", "zh"}
    assert {wording for _, wording in stories.TELLINGS} == {CANONICAL, DRAWN}


def test_a_drill_in_chinese_word_for_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "drills", lambda rng, memory: [("go to the red key", "turn left")])
    lines = told(*ROOMS[0], Telling(SUMMARY, "zh", CANONICAL), 1)
    assert {line.more for line in lines if line.more} == {(("目标：走到红色的钥匙旁边。\nAction:", " 向左转\n"),)}  # noqa: RUF001


def test_the_same_seed_drills_the_same() -> None:
    telling = Telling(SUMMARY, "en", CANONICAL)
    assert told(*ROOMS[2], telling, 3) == told(*ROOMS[2], telling, 3)
