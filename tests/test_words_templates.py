"""No template loses a fact, and none is long."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import minigrid  # noqa: F401 - registers its worlds
import numpy as np
import pytest

from sb3_llm.words.facts import Free, MazePast, MazeView, Passage, Past, Rows, Spot, Thing, Trail, View
from sb3_llm.words.languages import AXES, LANGUAGES
from sb3_llm.words.wording import (
    Wording,
    default_wording,
    draw_wording,
    held_out_wording,
)
from tests.facts import COLORS, COMPASS, KEYS, MAZE, MAZE_PAST, PAST, VIEW

languages = pytest.mark.parametrize("language", list(LANGUAGES))


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
def test_the_goal_stands_last_in_every_template(language: str) -> None:
    rng = np.random.default_rng(2)
    for name, wording in _wordings(language):
        for _ in range(25):
            room, maze = ({part: draw(rng) for part, draw in parts.items()} for parts in (_ROOM_PARTS, _MAZE_PARTS))
            assert _tell_room(wording, room).endswith(wording.goal(room["mission"])), name
            before, start, goal = _tell_maze(wording, maze).rpartition(wording.goal("reach the goal")[:-1])
            assert (bool(before), bool(start)) == (True, True), name
            assert [goal.count(stop) for stop in ".。"] == [goal.endswith("."), goal.endswith("。")], name
            changed = _tell_maze(wording, maze | {"south": maze["south"] + 1})
            assert changed.startswith(before + start), name


@languages
def test_the_goal_alone_is_the_sentence_of_the_text(language: str) -> None:
    said = {"en": "Goal: open the red door.", "zh": "目标：打开红色的门。"}[language]  # noqa: RUF001
    assert default_wording(language).goal("open the red door") == said
    for _, wording in _wordings(language):
        text = wording.room("open the red door", VIEW, PAST)
        assert text.count(wording.goal("open the red door")) == 1
        assert wording.goal("open the red door") != wording.goal("open the blue door")


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
