"""Facts in words: the canonical texts, errors, what is held out, and that the same seed says the same."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import minigrid  # noqa: F401 - registers its worlds
import numpy as np
import pytest

import sb3_llm
from sb3_llm.errors import SetupError
from sb3_llm.spaces import check_phrases
from sb3_llm.words import statements as lore
from sb3_llm.words.facts import MazePast, Past, Thing
from sb3_llm.words.invent import invent
from sb3_llm.words.languages import AXES, LANGUAGES
from sb3_llm.words.telling import with_article
from sb3_llm.words.wording import (
    default_wording,
    draw_wording,
    find_held_out,
    held_out_phrases,
    held_out_wording,
    held_out_words,
    uses_held_out,
)
from tests.facts import BARE, KEYS, LOCKED, MAZE, MAZE_PAST, PAST, VIEW

languages = pytest.mark.parametrize("language", list(LANGUAGES))
axes = pytest.mark.parametrize("axis", AXES)


# --- canonical texts


def test_a_room_in_canonical_english() -> None:
    assert default_wording().room("pick up the blue ball", VIEW, PAST) == (
        "Facing east, carrying a red key. "
        "Ahead 3 free then wall, left 0 free then locked red door, right 2 free. "
        "Seen: blue ball way left 6 at 3 ahead 1 left, locked red door in reach at 1 left, lava 2 ahead 4 right. "
        "Floor: 0 ahead middle; 1 to 5 ahead 2 left to 1 right. Before: grey box way right 9 at 3 behind. "
        "Untried: opening way ahead 4 at 3 ahead, closed red door way open 3 at 2 behind 4 right. "
        "Done so far: reached blue ball, picked up red key. Here 2 times. Last actions: turn left, go forward. "
        "Goal: pick up the blue ball."
    )


def test_a_room_in_canonical_chinese() -> None:
    assert default_wording("zh").room("pick up the blue ball", VIEW, PAST) == (
        "面朝东，拿着红色的钥匙。前3空到墙，左0空到红色的锁着的门，右2空。"
        "看见：蓝色的球走左6在前3左1，红色的锁着的门够得着在左1，岩浆前2右4。地面：前0中；前1到5左2到右1。"
        "之前：灰色的盒子走右9在后3。未试：缺口走前4在前3，红色的关着的门走门3在后2右4。"
        "已做：到过蓝色的球，捡起红色的钥匙。来过2次。最近动作：向左转，向前走。"
        "目标：捡起蓝色的球。"
    )


def test_a_maze_in_canonical_english_and_chinese() -> None:
    assert default_wording().maze(MAZE, MAZE_PAST) == (
        "At row 1 column 2. North wall. South open to east south. "
        "East walked, open to a dead end. West open to the goal. Untried: south 1 step, east 4 steps. "
        "Here 2 times. Last actions: north. Goal: reach the goal, 3 south 2 east."
    )
    assert default_wording("zh").maze(MAZE, MAZE_PAST) == (
        "在第1行第2列。北是墙。南通东南。东走过，通死路。西通终点。"
        "未试：南1步，东4步。来过2次。最近动作：向北走。目标：到达终点，南3东2。"
    )


@pytest.mark.parametrize(
    ("past", "told"),
    [
        (None, ""),
        (Past(()), "Last action: none. "),
        (Past(("drop",)), "Last action: drop. "),
        (Past(("drop", "open")), "Last actions: drop, open. "),
        (Past((), visits=1), "Here 1 time. Last actions: none. "),
        (Past(("drop",), visits=3), "Here 3 times. Last actions: drop. "),
        (Past(("jump",)), "Last action: jump. "),
    ],
)
def test_what_is_not_known_is_not_told(past: Past | None, told: str) -> None:
    text = default_wording().room("sing", BARE, past)
    assert text == f"Carrying nothing. Ahead 0 free then wall. Seen: nothing. {told}Goal: sing."
    maze_past = None if past is None else MazePast(past.turns, past.visits)
    goal = "Goal: reach the goal, 3 south 2 east."
    assert (
        default_wording().maze(MAZE, maze_past) == default_wording().maze(MAZE, None).removesuffix(goal) + told + goal
    )


@pytest.mark.parametrize(
    ("ahead", "right", "place"),
    [(3, -1, "3 ahead 1 left"), (-2, 4, "2 behind 4 right"), (0, -5, "5 left"), (0, 0, "here")],
)
def test_places(ahead: int, right: int, place: str) -> None:
    assert default_wording().place(ahead, right) == place


def test_phrases_things_and_lists() -> None:
    english, chinese = default_wording(), default_wording("zh")
    assert [english.phrase(key) for key in KEYS] == KEYS
    assert [chinese.phrase(key) for key in KEYS] == (
        ["向左转", "向右转", "向前走", "捡起", "放下", "打开", "完成", "向北走", "向南走", "向东走", "向西走"]
    )
    assert (english.thing(LOCKED), chinese.thing(LOCKED)) == ("locked red door", "红色的锁着的门")
    keys, strange = ("turn left", "drop"), ("twist left", "drop")
    assert english.listing(keys, strange) == "Actions: turn left = twist left, drop = drop."
    assert chinese.listing(keys, ("左拐", "放下")) == "动作：向左转 = 左拐，放下 = 放下。"
    other = replace(english, phrases=tuple(zip(keys, strange, strict=True)))
    assert other.listing(keys, strange) == english.listing(keys, strange), "the meaning in canonical words"
    assert (english.phrase("action 7"), chinese.phrase("action 7")) == ("action 7", "动作7")


# --- what is held out


@languages
@axes
def test_pools_of_the_corpus_and_held_out_ones_are_apart(language: str, axis: str) -> None:
    pools = LANGUAGES[language].pools(axis)
    train = [words for pool in pools.values() for words in pool.train]
    held = [words for pool in pools.values() for words in pool.held]
    assert not set(train) & set(held)
    assert held
    if axis != "templates":
        assert all(
            pool.train[0] and len(set(pool.train)) == len(pool.train) for pool in pools.values() if pool.train != ("",)
        )
    if axis in ("phrases", "nouns", "colors"):
        assert len(set(train + held)) == len(train + held)  # no word for two things
    if axis == "phrases":
        assert not any(
            words in pools for key, pool in pools.items() for words in pool.train + pool.held if words != key
        )


def test_words_of_glam_are_held_out() -> None:
    glam = "chair table car dax xolo afze vermilion jade cyan violet golden silver faze jatu croh vurst gakul sil"
    assert set(glam.split()) <= held_out_words()
    assert {"rotate left", "rotate right", "move ahead"} <= held_out_words()
    assert {"rotate left", "rotate right", "move ahead", "take", "release", "switch"} <= held_out_phrases()


@languages
def test_drawn_wordings_say_nothing_that_is_held_out(language: str) -> None:
    rng = np.random.default_rng(2)
    canonical, drawn = default_wording(language), {axis: 0 for axis in AXES}
    forbidden = held_out_phrases()
    for number in range(1000):
        wording = draw_wording(rng, language)
        assert not uses_held_out(wording)
        phrases = [wording.phrase(key) for key in KEYS]
        assert check_phrases(phrases) == tuple(phrases)
        assert not forbidden & set(phrases)
        for axis in ("nouns", "colors"):
            words = [word for _, word in getattr(wording, axis)]
            assert len(set(words)) == len(words)
        for axis in AXES:
            field = "template" if axis == "templates" else axis
            drawn[axis] += getattr(wording, field) == getattr(canonical, field)
        if number % 5 == 0:
            mission = "put the red ball behind you next to the green box after you open the door and go to the key"
            rooms = wording.room(mission, VIEW, PAST), wording.maze(MAZE, MAZE_PAST)
            for text in (*rooms, wording.listing(KEYS, phrases)):
                assert find_held_out(text) is None
    assert all(300 < count < 550 for count in drawn.values()), drawn


@languages
def test_invented_words_are_drawn_and_real_ones_too(language: str) -> None:
    rng = np.random.default_rng(3)
    known = {
        word for axis in ("nouns", "colors") for pool in LANGUAGES[language].pools(axis).values() for word in pool.train
    }
    balls = {dict(draw_wording(rng, language).nouns)["ball"] for _ in range(300)}
    reds = {dict(draw_wording(rng, language).colors)["red"] for _ in range(300)}
    for words, pool in ((balls, LANGUAGES[language].nouns["ball"]), (reds, LANGUAGES[language].colors["red"])):
        assert set(pool.train) <= words
        assert len(words - known) > 10


@languages
def test_invented_words_are_of_many_pieces(language: str) -> None:
    """Of few, a reader learns the pieces by heart and need not copy."""
    rng, canonical = np.random.default_rng(0), LANGUAGES[language]
    words = [invent(rng, canonical, frozenset()) for _ in range(1000)]
    assert len(set(words)) > 950
    assert len({word[:2] for word in words}) > (110 if language == "en" else 900)


@languages
@axes
def test_only_one_axis_is_held_out(language: str, axis: str) -> None:
    rng, canonical = np.random.default_rng(4), default_wording(language)
    seen = set()
    for _ in range(40):
        wording = held_out_wording(axis, rng, language)
        assert uses_held_out(wording)
        seen.add(wording)
        for other in AXES:
            field = "template" if other == "templates" else other
            assert (getattr(wording, field) == getattr(canonical, field)) == (other != axis)
        phrases = [wording.phrase(key) for key in KEYS]
        assert check_phrases(phrases) == tuple(phrases)
    assert len(seen) >= 2


@languages
def test_held_out_phrases_are_made_of_words_that_are_known(language: str) -> None:
    rng = np.random.default_rng(5)
    text = " ".join(
        [
            words
            for axis in ("missions", "phrases")
            for pool in LANGUAGES[language].pools(axis).values()
            for words in pool.train
        ]
        + [draw_wording(rng, language).room("reach the goal", VIEW, PAST) for _ in range(200)]
        + [lore.statements(rng, language) for _ in range(2000)]
        + [turn for _ in range(300) for turn in lore.dialogue(rng, language)]
    ).lower()
    known = set(re.findall(r"\w+", text)) if language == "en" else set(text)
    for pool in LANGUAGES[language].phrases.values():
        for phrase in pool.held:
            parts = phrase.split() if language == "en" else list(phrase)
            assert set(parts) <= known, phrase


# --- errors


@pytest.mark.parametrize(
    ("act", "parts"),
    [
        (lambda: default_wording("fr"), ["language='fr'", "['en', 'zh']", "language='en'"]),
        (lambda: default_wording(["en"]), ["language=['en']", "['en', 'zh']"]),  # type: ignore[arg-type]
        (lambda: draw_wording(np.random.default_rng(), "fr"), ["language='fr'"]),
        (lambda: held_out_wording("words", np.random.default_rng()), ["axis='words'", "'phrases', 'nouns'", "axis="]),
        (lambda: lore.statements(np.random.default_rng(), "fr"), ["language='fr'"]),
        (lambda: default_wording("zh").thing(Thing("dragon")), ["'dragon'", "'ball'", 'language="en"']),
        (lambda: default_wording("zh").thing(Thing("ball", "pink")), ["color 'pink'", "'purple'", 'language="en"']),
        (lambda: default_wording("zh").thing(Thing("door", "red", "broken")), ["state 'broken'", "'locked'"]),
        (lambda: default_wording("zh").phrase("jump"), ["action 'jump'", "'turn left'", 'language="en"']),
        (lambda: default_wording("zh").mission("sing a song"), ["'sing a song'", "MiniGrid", 'language="en"']),
        (lambda: default_wording("zh").mission("go to the dragon"), ["'dragon'", "'ball'"]),
    ],
)
def test_errors_say_what_was_given_and_how_to_mend_it(act: Callable[[], Any], parts: list[str]) -> None:
    with pytest.raises(SetupError) as error:
        act()
    for part in parts:
        assert part in str(error.value)


def test_english_says_unknown_words_as_they_are() -> None:
    wording = held_out_wording("nouns", np.random.default_rng(0))
    assert wording.thing(Thing("dragon", "pink", "asleep")) == "asleep pink dragon"
    assert wording.phrase("jump") == "jump"
    assert wording.mission("sing a song to the ball") == "sing a song to the ball"
    assert with_article("orb") == "an orb"
    assert with_article("ball") == "a ball"


# --- the same again


_SAMPLE = """
import numpy as np
from sb3_llm.words.facts import *
from sb3_llm.words.statements import dialogue, question, statements, view_question
from sb3_llm.words.wording import draw_wording, held_out_wording
view = View("east", None, (), (Spot(Thing("ball", "red"), 1, 2, "left", 3),), None)
past = Past(("drop",), 2, (), (), (("opened", Thing("door")), ("dropped", Thing("key")), ("reached", Thing("box"))))
said = []
for seed in range(40):
    for language in ("en", "zh"):
        rng = np.random.default_rng(seed)
        wording = draw_wording(rng, language)
        said += [repr(wording), repr(held_out_wording("nouns", rng, language)), statements(rng, language)]
        said += [*question(rng, language), *dialogue(rng, language)]
        said += [text for _ in range(9) for text in view_question(rng, wording, "open the red door", view, past)]
"""


def test_the_same_seed_says_the_same_in_another_process_that_has_nothing_else() -> None:
    """Sets are ordered otherwise there; and words need no torch, no worlds and no describers."""
    alone = (
        "import json, sys, types; sys.modules['sb3_llm'] = package = types.ModuleType('sb3_llm'); "
        f"package.__path__ = {list(sb3_llm.__path__)!r}\n{_SAMPLE}\n"
        "heavy = {'torch', 'gymnasium', 'minigrid', 'sb3_llm.describe', 'sb3_llm.envs'} & set(sys.modules)\n"
        "print(json.dumps([sorted(heavy), said]))"
    )
    told = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    here: dict[str, Any] = {}
    exec(_SAMPLE, here)
    assert json.loads(told.stdout) == [[], here["said"]]
    assert len(set(here["said"])) > 500


@languages
def test_wordings_can_be_kept_and_compared(language: str) -> None:
    first, second = (draw_wording(np.random.default_rng(6), language) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    text = first.room("open the door", VIEW, PAST)
    packed = pickle.dumps(first)
    assert packed == pickle.dumps(second)  # what is derived stays behind
    assert pickle.loads(packed) == first
    assert pickle.loads(packed).room("open the door", VIEW, PAST) == text
    assert default_wording(language) is default_wording(language)
