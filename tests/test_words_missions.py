"""Every mission of MiniGrid and BabyAI is understood, and said so that two missions stay apart."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

import contextlib
import io
import re
from dataclasses import replace
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its worlds
import pytest

from sb3_llm.words.facts import Thing
from sb3_llm.words.languages import LANGUAGES
from sb3_llm.words.mission import Both, Desc, GoTo, Match, Open, PickUp, PutNext, Reach, Roam, Then, parse
from sb3_llm.words.wording import default_wording

languages = pytest.mark.parametrize("language", list(LANGUAGES))
SEEDS = 30


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
