"""Facts in words: the canonical texts, every mission, and that no wording loses a fact or says what is held out."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

import contextlib
import io
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its worlds
import numpy as np
import pytest

import sb3_llm
from sb3_llm.errors import SetupError
from sb3_llm.spaces import check_phrases
from sb3_llm.words import statements as lore
from sb3_llm.words.facts import Free, MazePast, MazeView, Passage, Past, Rows, Spot, Thing, Trail, View
from sb3_llm.words.languages import AXES, LANGUAGES
from sb3_llm.words.mission import Both, Desc, GoTo, Match, Open, PickUp, PutNext, Reach, Roam, Then, parse
from sb3_llm.words.telling import with_article
from sb3_llm.words.wording import (
    Wording,
    default_wording,
    draw_wording,
    find_held_out,
    held_out_phrases,
    held_out_wording,
    held_out_words,
    uses_held_out,
)

languages = pytest.mark.parametrize("language", list(LANGUAGES))
axes = pytest.mark.parametrize("axis", AXES)
SEEDS = 30
KEYS = list(LANGUAGES["en"].phrases)
COMPASS = ("north", "south", "east", "west")
COLORS = list(LANGUAGES["en"].colors)

BALL, KEY, LOCKED = Thing("ball", "blue"), Thing("key", "red"), Thing("door", "red", "locked")
VIEW = View(
    compass="east",
    carrying=KEY,
    free=(Free("ahead", 3, Thing("wall")), Free("left", 0, LOCKED), Free("right", 2, None)),
    seen=(Spot(BALL, 3, -1, "left", 6), Spot(LOCKED, 0, -1, "here", 0), Spot(Thing("lava"), 2, 4)),
    floor=(Rows(0, 0, 0, 0), Rows(1, 5, -2, 1)),
)
PAST = Past(
    turns=("turn left", "go forward"),
    visits=2,
    untried=(Spot(Thing("opening"), 3, 0, "ahead", 4), Spot(Thing("door", "red", "closed"), -2, 4, "open", 3)),
    before=(Spot(Thing("box", "grey"), -3, 0, "right", 9),),
    deeds=(("reached", BALL), ("picked up", KEY)),
)
BARE = View(None, None, (Free("ahead", 0, Thing("wall")),), (), None)
MAZE = MazeView(
    south=3,
    east=2,
    row=1,
    column=2,
    passages=(
        Passage("north", "wall"),
        Passage("south", "open", exits=("east", "south")),
        Passage("east", "open", walked=True),
        Passage("west", "goal"),
    ),
)
MAZE_PAST = MazePast(("north",), 2, (Trail("south", 1), Trail("east", 4)))


# --- canonical texts


def test_a_room_in_canonical_english() -> None:
    assert default_wording().room("pick up the blue ball", VIEW, PAST) == (
        "Goal: pick up the blue ball. Facing east, carrying a red key. "
        "Ahead 3 free then wall, left 0 free then locked red door, right 2 free. "
        "Seen: blue ball 3 ahead 1 left way left 6, locked red door 1 left in reach, lava 2 ahead 4 right. "
        "Floor: 0 ahead middle; 1 to 5 ahead 2 left to 1 right. Before: grey box 3 behind way right 9. "
        "Untried: opening 3 ahead way ahead 4, closed red door 2 behind 4 right way open 3. "
        "Done so far: reached blue ball, picked up red key. Here 2 times. Last actions: turn left, go forward."
    )


def test_a_room_in_canonical_chinese() -> None:
    assert default_wording("zh").room("pick up the blue ball", VIEW, PAST) == (
        "目标：捡起蓝色的球。面朝东，拿着红色的钥匙。前3空到墙，左0空到红色的锁着的门，右2空。"
        "看见：蓝色的球前3左1走左6，红色的锁着的门左1够得着，岩浆前2右4。地面：前0中；前1到5左2到右1。"
        "之前：灰色的盒子后3走右9。未试：缺口前3走前4，红色的关着的门后2右4走门3。"
        "已做：到过蓝色的球，捡起红色的钥匙。来过2次。最近动作：向左转，向前走。"
    )


def test_a_maze_in_canonical_english_and_chinese() -> None:
    assert default_wording().maze(MAZE, MAZE_PAST) == (
        "Goal: reach the goal, 3 south 2 east. At row 1 column 2. North wall. South open to east south. "
        "East walked, open to a dead end. West open to the goal. Untried: south 1 step, east 4 steps. "
        "Here 2 times. Last actions: north."
    )
    assert default_wording("zh").maze(MAZE, MAZE_PAST) == (
        "目标：到达终点，南3东2。在第1行第2列。北是墙。南通东南。东走过，通死路。西通终点。"
        "未试：南1步，东4步。来过2次。最近动作：向北走。"
    )


@pytest.mark.parametrize(
    ("past", "told"),
    [
        (None, ""),
        (Past(()), " Last action: none."),
        (Past(("drop",)), " Last action: drop."),
        (Past(("drop", "open")), " Last actions: drop, open."),
        (Past((), visits=1), " Here 1 time. Last actions: none."),
        (Past(("drop",), visits=3), " Here 3 times. Last actions: drop."),
        (Past(("jump",)), " Last action: jump."),
    ],
)
def test_what_is_not_known_is_not_told(past: Past | None, told: str) -> None:
    text = default_wording().room("sing", BARE, past)
    assert text == f"Goal: sing. Carrying nothing. Ahead 0 free then wall. Seen: nothing.{told}"
    maze_past = None if past is None else MazePast(past.turns, past.visits)
    assert default_wording().maze(MAZE, maze_past).removeprefix(default_wording().maze(MAZE, None)) == told


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
    assert english.listing(["turn left", "drop"]) == "Actions: turn left, drop."
    assert chinese.listing(["向左转", "放下"]) == "动作：向左转，放下。"
    assert (english.phrase("action 7"), chinese.phrase("action 7")) == ("action 7", "动作7")


# --- missions


@pytest.mark.parametrize(
    ("mission", "tree"),
    [
        ("go to the red door", GoTo(Desc("door", "red"))),
        ("go to the red ball and say done", GoTo(Desc("ball", "red"), done=True)),
        ("go to the goal and say done", GoTo(Desc("goal"), done=True)),
        ("pick up the green object", PickUp(Desc(None, "green"))),
        ("you must fetch a yellow ball", PickUp(Desc("ball", "yellow"))),
        ("open the door", Open(Desc("door"))),
        ("put the blue ball near the grey key", PutNext(Desc("ball", "blue"), Desc("key", "grey"))),
        ("open a door on your right", Open(Desc("door", None, "right"))),
        ("open the red door then the blue door", Then(Open(Desc("door", "red")), Open(Desc("door", "blue")))),
        ("go to a box after you open a door", Then(Open(Desc("door")), GoTo(Desc("box")))),
        (
            "go to a box, then open a door and pick up the key behind you",
            Then(GoTo(Desc("box")), Both(Open(Desc("door")), PickUp(Desc("key", None, "behind")))),
        ),
        ("reach the goal", Reach()),
        ("go to the goal", Reach()),
        ("get to the green goal square", Reach()),
        ("avoid the lava and get to the green goal square", Reach("lava")),
        (
            "get the red key from the grey room, unlock the red door and go to the goal",
            Reach("locked", ("red", "grey")),
        ),
        ("go to the matching object at the end of the hallway", Match()),
        ("", Roam()),
        ("sing a song", None),
        ("go to the", None),
        ("open the door and", None),
    ],
)
def test_missions_are_understood(mission: str, tree: Any) -> None:
    assert parse(mission) == tree


@pytest.fixture(scope="module")
def missions() -> list[str]:
    """Every mission that minigrid's own worlds have for the first seeds."""
    found: dict[str, None] = {}
    for env_id in filter(re.compile("MiniGrid-|BabyAI-").match, list(gymnasium.registry)):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(FileNotFoundError):  # WFC is an extra
            env = gymnasium.make(env_id, disable_env_checker=True)
            found |= dict.fromkeys(str(env.reset(seed=seed)[0]["mission"]) for seed in range(SEEDS))
            env.close()
    assert len(found) > 500
    return [*found, "go to the red ball and say done", "traverse the maze to get to the goal"]


def test_every_mission_is_understood_and_kept_in_english(missions: list[str]) -> None:
    assert [mission for mission in missions if parse(mission) is None] == []
    assert [default_wording().mission(mission) for mission in missions] == missions


@languages
@pytest.mark.parametrize("pool", ["train", "held"])
def test_every_rendering_of_every_mission_keeps_them_apart(language: str, pool: str, missions: list[str]) -> None:
    patterns = LANGUAGES[language].missions
    trees = {mission: parse(mission) for mission in missions}
    for index in range(max(len(getattr(choices, pool)) for choices in patterns.values())):
        chosen = tuple(
            (meaning, options[index % len(options)])
            for meaning, choices in patterns.items()
            for options in [getattr(choices, pool) or choices.train]
        )
        wording = replace(default_wording(language), missions=chosen)
        said: dict[str, Any] = {}
        for mission, tree in trees.items():
            words = wording.mission(mission)
            assert "{" not in words
            assert language == "en" or not re.search("[A-Za-z]", words)
            assert words or mission == ""
            if wording.missions != default_wording(language).missions or language == "zh":
                assert said.setdefault(words, tree) == tree, words


def test_each_meaning_has_enough_renderings() -> None:
    small = {"article", "front", "behind", "left", "right"}
    for language, train, held in (("en", 5, 2), ("zh", 3, 2)):
        for meaning, pool in LANGUAGES[language].missions.items():
            assert meaning == "article" or (len(pool.train) >= train and len(pool.held) >= held), meaning
            assert meaning in small or "{" in "".join(pool.train) or meaning == "roam"
        for key, pool in LANGUAGES[language].phrases.items():
            assert len(pool.train) >= (4 if language == "en" else 3), key
            assert len(pool.held) >= 2, key


def test_a_mission_takes_the_words_of_nouns_and_colors() -> None:
    base = default_wording()
    nouns = tuple((name, "orb" if name == "ball" else word) for name, word in base.nouns)
    colors = tuple((name, "emerald" if name == "green" else word) for name, word in base.colors)
    wording = replace(base, nouns=nouns, colors=colors)
    assert wording.mission("go fetch a green ball") == "go fetch an emerald orb"
    assert wording.mission("put a ball next to the green box") == "put an orb next to the emerald box"
    assert wording.mission("sing to the ball") == "sing to the ball"
    assert wording.thing(Thing("ball", "green")) == "emerald orb"


def test_chinese_missions_are_plain() -> None:
    say = default_wording("zh").mission
    assert say("open the red door") == "打开红色的门"
    assert say("put the red ball next to the blue box") == "把红色的球放到蓝色的盒子旁边"
    assert say("go to the blue key on your left, then pick up the ball") == "先走到你左边的蓝色的钥匙旁边，再捡起球"
    assert say("get the red key from the grey room, unlock the red door and go to the goal") == (
        "从灰色的房间拿红色的钥匙，打开红色的门，到达终点"
    )


# --- templates lose nothing


def _things(rng: np.random.Generator) -> Thing:
    kind = str(rng.choice(["ball", "key", "box", "door", "goal", "lava"]))
    if kind in ("goal", "lava"):
        return Thing(kind)
    state = str(rng.choice(["open", "closed", "locked"])) if kind == "door" else None
    return Thing(kind, str(rng.choice(COLORS)), state)


def _spots(rng: np.random.Generator) -> tuple[Spot, ...]:
    spots = []
    for _ in range(rng.integers(3)):
        way = rng.choice(["ahead", "left", "right", "open", "clear", "here", ""])
        moves = None if way in ("", "here") else int(rng.integers(1, 20))
        ahead, right = (int(number) for number in rng.integers(-12, 13, size=2))
        spots.append(Spot(_things(rng), ahead, right, str(way) or None, moves))
    return tuple(spots)


def _floor(rng: np.random.Generator) -> tuple[Rows, ...] | None:
    if rng.random() < 0.1:
        return None
    return tuple(
        Rows(*sorted(int(x) for x in rng.integers(0, 12, size=2)), *sorted(int(x) for x in rng.integers(-6, 7, size=2)))
        for _ in range(rng.integers(1, 4))
    )


def _free(rng: np.random.Generator) -> tuple[Free, ...]:
    return tuple(
        Free(way, int(rng.integers(12)), _things(rng) if rng.random() < 0.7 else None)
        for way in ("ahead", "left", "right")
    )


_MISSIONS = ("reach the goal", "open the red door", "pick up the red ball", "put the red box next to the blue box")
_ROOM_PARTS: dict[str, Callable[[np.random.Generator], Any]] = {
    "mission": lambda rng: str(rng.choice(_MISSIONS)),
    "compass": lambda rng: (*COMPASS, None)[rng.integers(5)],
    "carrying": lambda rng: _things(rng) if rng.random() < 0.8 else None,
    "free": _free,
    "seen": _spots,
    "floor": _floor,
    "turns": lambda rng: tuple(map(str, rng.choice(KEYS, size=rng.integers(3)))),
    "visits": lambda rng: None if rng.random() < 0.2 else int(rng.integers(1, 14)),
    "untried": _spots,
    "before": _spots,
    "deeds": lambda rng: tuple(
        (str(rng.choice(["reached", "picked up", "dropped", "opened"])), _things(rng)) for _ in range(rng.integers(3))
    ),
}
_MAZE_PARTS: dict[str, Callable[[np.random.Generator], Any]] = {
    "south": lambda rng: int(rng.integers(-12, 13)),
    "east": lambda rng: int(rng.integers(-12, 13)),
    "row": lambda rng: int(rng.integers(1, 13)),
    "column": lambda rng: int(rng.integers(1, 13)),
    "passages": lambda rng: tuple(_passage(rng, way) for way in COMPASS),
    "turns": _ROOM_PARTS["turns"],
    "visits": _ROOM_PARTS["visits"],
    "untried": lambda rng: tuple(
        Trail(str(rng.choice(["north", "south"])), int(rng.integers(1, 13))) for _ in range(rng.integers(3))
    ),
}


def _passage(rng: np.random.Generator, way: str) -> Passage:
    kind = str(rng.choice(["wall", "goal", "open"]))
    if kind != "open":
        return Passage(way, kind)
    exits = tuple(other for other in COMPASS if other != way and rng.random() < 0.5)
    return Passage(way, kind, bool(rng.random() < 0.5), exits)


def _tell_room(wording: Wording, facts: dict[str, Any]) -> str:
    view = View(*(facts[field] for field in View._fields))
    return wording.room(facts["mission"], view, Past(*(facts[field] for field in Past._fields)))


def _tell_maze(wording: Wording, facts: dict[str, Any]) -> str:
    view = MazeView(*(facts[field] for field in MazeView._fields))
    return wording.maze(view, MazePast(*(facts[field] for field in MazePast._fields)))


def _wordings(language: str) -> Iterator[tuple[str, Wording]]:
    """Every template with canonical words, and each axis held out."""
    base, rng = default_wording(language), np.random.default_rng(0)
    for name in (*LANGUAGES[language].templates, *LANGUAGES[language].held_templates):
        yield name, replace(base, template=name)
    for number in range(3):
        yield f"drawn {number}", draw_wording(rng, language)
    for axis in AXES:
        yield f"held-out {axis}", held_out_wording(axis, rng, language)


@pytest.mark.parametrize(
    ("wording", "parts", "tell"),
    [
        pytest.param(wording, parts, tell, id=f"{language}-{name}-{tell.__name__[6:]}")
        for language in LANGUAGES
        for name, wording in _wordings(language)
        for parts, tell in ((_ROOM_PARTS, _tell_room), (_MAZE_PARTS, _tell_maze))
    ],
)
def test_no_wording_loses_a_fact(
    wording: Wording, parts: dict[str, Callable[..., Any]], tell: Callable[[Wording, dict[str, Any]], str]
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        facts = {name: draw(rng) for name, draw in parts.items()}
        text = tell(wording, facts)
        for name, draw in parts.items():
            redrawn = draw(rng)
            for changed in (redrawn, _one_change(rng, facts[name], redrawn)):
                told = tell(wording, facts | {name: changed})
                assert (told == text) == (changed == facts[name]), (name, facts[name], changed)


def _one_change(rng: np.random.Generator, facts: Any, others: Any) -> Any:
    """The facts with a single field of a single one taken from others, as far as that makes sense."""
    if not (isinstance(facts, tuple) and facts and others and hasattr(facts[0], "_fields")):
        return others
    index = int(rng.integers(len(facts)))
    field = str(rng.choice(facts[index]._fields))
    changed = facts[index]._replace(**{field: getattr(others[0], field)})
    makes_sense = {
        Spot: lambda spot: (spot.way in (None, "here")) == (spot.moves is None),
        Passage: lambda passage: passage.kind == "open" or not (passage.walked or passage.exits),
        Free: lambda free: free.direction == facts[index].direction,
    }.get(type(changed), lambda _: True)
    return (*facts[:index], changed, *facts[index + 1 :]) if makes_sense(changed) else facts


@languages
def test_texts_are_short_and_templates_enough(language: str) -> None:
    known = LANGUAGES[language]
    assert len(known.templates) >= (6 if language == "en" else 4)
    assert len(known.held_templates) >= 2
    base = default_wording(language)
    for name in (*known.templates, *known.held_templates):
        told = replace(base, template=name)
        assert len(told.room("open the red door", VIEW, PAST)) < 1.4 * len(base.room("open the red door", VIEW, PAST))
        assert len(told.maze(MAZE, MAZE_PAST)) < 1.4 * len(base.maze(MAZE, MAZE_PAST))


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
            for text in (wording.room(mission, VIEW, PAST), wording.maze(MAZE, MAZE_PAST), wording.listing(phrases)):
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


# --- statements, questions, dialogues


@languages
def test_plain_texts_are_whole_and_hold_out_what_is_held_out(language: str) -> None:
    rng, forbidden = np.random.default_rng(7), held_out_phrases()
    assert len(set(lore.LORE[language].statements)) >= 40
    assert len(set(lore.LORE[language].questions)) >= 20
    for _ in range(500):
        turns = lore.dialogue(rng, language)
        assert 2 <= len(turns) <= 4
        speakers = lore.LORE[language].speakers
        assert all(turn.startswith(speakers[number % 2]) for number, turn in enumerate(turns))
        texts = [lore.statements(rng, language), *lore.question(rng, language), *turns]
        for text in texts:
            assert find_held_out(text) is None
            assert not re.search(r"[{}]|\b[Aa] [aeiou]|\ban [^aeiou]|  ", text), text
            assert text[-1] in ".?。？"
            assert language == "en" or not re.search("[A-Za-z]", text)
            quoted = re.findall(r'"(.*?)"|“(.*?)”', text)
            assert not forbidden & {part for pair in quoted for part in pair}
    assert len({lore.statements(rng, language) for _ in range(1000)}) > 300


def test_statements_are_true() -> None:
    """Those that can be computed: turns, distances, and which key opens which door."""
    clockwise, rng, checked = ["north", "east", "south", "west"], np.random.default_rng(8), 0
    for _ in range(2500):
        text = lore.statements(rng)
        if found := re.fullmatch(r"After you turn (\w+) while facing (\w+), you face (\w+)\.", text):
            step = 1 if found[1] == "right" else -1
            assert clockwise[(clockwise.index(found[2]) + step) % 4] == found[3]
        elif found := re.fullmatch(r"An? .+ (\d) ahead and (\d) (\w+) is (\d+) moves away: (\d) .* and (\d) .*", text):
            ahead, aside, moves, first, last = (int(found[number]) for number in (1, 2, 4, 5, 6))
            assert first + 1 + last == moves == ahead + 1 + aside - 1
        elif found := re.fullmatch(r"A locked (.+?) \w+ opens only with an? (.+?) \w+\.", text):
            assert found[1] == found[2]
        elif found := re.fullmatch(r"An? (.+?) \w+ does not open a locked (.+?) \w+\.", text):
            assert found[1] != found[2]
        elif found := re.fullmatch(r'The actions "(.+)" and "(.+)" do the same\.', text):
            assert any({found[1], found[2]} <= set(pool.train) for pool in LANGUAGES["en"].phrases.values())
        else:
            continue
        checked += 1
    assert checked > 120


@languages
def test_questions_of_a_view_are_answered_from_its_facts(language: str) -> None:
    rng, wording = np.random.default_rng(9), default_wording(language)
    answers: dict[str, set[str]] = {}
    for _ in range(1500):
        asked, answer = lore.view_question(rng, wording, "open the red door", VIEW, PAST)
        answers.setdefault(asked, set()).add(answer)
    assert all(len(found) == 1 for found in answers.values())
    told = {asked: found.pop() for asked, found in answers.items()}
    expected = {
        "en": {
            "How many steps are free to the left?": "0.",
            "How many steps are free ahead?": "3.",
            "What is ahead?": "Wall.",
            "What ends the way to the right?": "The edge of what you see.",
            "Where is the blue ball?": "3 ahead 1 left.",
            "What do you carry?": "Red key.",
            "What do you face after you turn left?": "North.",
            "How many times were you here?": "2.",
            "Is the locked red door in reach?": "Yes.",
            "How many moves to the blue ball?": "6.",
            "Do you see a red key?": "No.",
            "Do you see a blue ball?": "Yes.",
            "What have you picked up before?": "Red key.",
            "What did you do last?": "Go forward.",
            "What is your task?": "Open the red door.",
        },
        "zh": {
            "往左能走几步？": "0。",
            "蓝色的球在哪里？": "前3左1。",
            "你拿着什么？": "红色的钥匙。",
            "向左转以后面朝哪里？": "北。",
            "红色的锁着的门够得着吗？": "够得着。",
            "你的任务是什么？": "打开红色的门。",
        },
    }[language]
    assert {asked: told[asked] for asked in expected} == expected
    assert lore.view_question(rng, wording, "", BARE, None)[1]
