"""A wording: one way to say everything, canonical, drawn at random, or with one axis that is held out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from sb3_llm.errors import SetupError
from sb3_llm.words.facts import MazePast, MazeView, Past, Thing, View
from sb3_llm.words.held_out import find_held_out, held_out_phrases, held_out_words, uses_held_out
from sb3_llm.words.invent import invent
from sb3_llm.words.languages import AXES, LANGUAGES, language_of
from sb3_llm.words.mission import Mission, parse
from sb3_llm.words.pools import Language
from sb3_llm.words.requests import Requests
from sb3_llm.words.telling import Teller, with_article

CANONICAL_SHARE = 0.35  # of the drawn wordings in which an axis stays canonical
#: Of the other wordings' balls and boxes, colors, and phrases.
INVENTED_SHARE = {"nouns": 0.4, "colors": 0.3, "phrases": 0.5}
WHOLE_SHARE = 0.3  # of the phrases with an invented word are nothing else
INVENTED_NOUNS = ("ball", "box")
STATES = ("open", "closed", "locked")  # of a door; among the nouns, as they name things too

__all__ = [
    "AXES",
    "LANGUAGES",
    "Wording",
    "default_wording",
    "draw_wording",
    "find_held_out",
    "held_out_phrases",
    "held_out_wording",
    "held_out_words",
    "uses_held_out",
]

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Wording:
    """
    One way to say everything.

    :param language: "en" or "zh"
    :param phrases: (key, words) of every action
    :param nouns: (MiniGrid's name, word) of every kind and of a door's states
    :param colors: (MiniGrid's name, word) of every color
    :param missions: (meaning, pattern) of every kind of mission
    :param template: the template's name
    """

    language: str
    phrases: Pairs
    nouns: Pairs
    colors: Pairs
    missions: Pairs
    template: str

    def __reduce__(self) -> tuple[type["Wording"], tuple[Any, ...]]:
        # What is derived from the fields is made again where it is needed.
        return (Wording, tuple(getattr(self, field.name) for field in fields(self)))

    def phrase(self, key: str) -> str:
        """
        :param key: "turn left", "turn right", "go forward", "pick up", "drop", "open", "done", "north", ...
        :return: the action's words; English keeps a key that it doesn't know
        :raises SetupError: for a key that Chinese doesn't know
        """
        number = re.fullmatch(r"action (\d+)", key)
        if number:
            return key if self._language.keeps_unknown else self._language.action.format(number[1])
        return self._word(self._phrases, key, "action")

    def turn(self, turn: str) -> str:
        """:return: the words of an action that was taken, given by its key or by its words already."""
        return self._phrases.get(turn, turn)

    def heading(self, compass: str) -> str:
        """:return: the word for "north", "south", "east" or "west"."""
        return self._language.compass[compass]

    def mission(self, mission: str) -> str:
        """
        :param mission: MiniGrid's or BabyAI's own English mission
        :return: the same in this wording's words; English keeps a mission that it can't parse
        :raises SetupError: for a mission that Chinese would have to translate and that can't be parsed
        """
        tree = _parse(mission)
        if tree is None and not self._language.keeps_unknown:
            raise SetupError(
                f"the mission {mission!r} in {self.language!r}",
                "a mission of MiniGrid, BabyAI or this package, which can be translated",
                'pass language="en", which tells any mission as it is',
            )
        if tree is None:
            return mission
        if self._keeps_mission:
            return self._with_own_words(mission)
        return self._requests.say(tree)

    def request(self, mission: Mission) -> str:
        """:return: a mission's tree in words."""
        return self._requests.say(mission)

    def room(self, mission: str, view: View, past: Past | None) -> str:
        """
        :param mission: the environment's own
        :param view: what is seen
        :param past: what the agent knows of before; None: nothing of it is told
        :return: the whole observation text of a MiniGrid world
        """
        return self._teller.room(self.mission(mission), view, past)

    def goal(self, mission: str) -> str:
        """
        :param mission: the environment's own
        :return: the sentence of a room's text that tells it
        """
        return self._teller.goal(self.mission(mission))

    def order(self, key: str) -> str:
        """:return: the sentence of a text that asks for an action, in the language's canonical words."""
        return self._teller.goal(default_wording(self.language).phrase(key))

    def maze(self, view: MazeView, past: MazePast | None) -> str:
        """
        :param view: what is seen
        :param past: what the walker knows of before; None: nothing of it is told
        :return: the whole observation text of a maze
        """
        return self._teller.maze(self.mission("reach the goal"), view, past)

    def listing(self, keys: Sequence[str], phrases: Sequence[str]) -> str:
        """:return: a sentence that says what the phrases mean: "Actions: turn left = veer left, ..."."""
        template, canonical = self._teller.template, default_wording(self.language)
        meanings = (f"{canonical.phrase(key)} = {phrase}" for key, phrase in zip(keys, phrases, strict=True))
        return template.sentence(template.listing.format(template.comma.join(meanings)))

    def thing(self, thing: Thing) -> str:
        """
        :return: "locked red door"
        :raises SetupError: for a kind or a color that Chinese doesn't know
        """
        words = {
            "state": self._word(self._nouns, thing.state, "state") if thing.state else "",
            "color": self._word(self._colors, thing.color, "color") if thing.color else "",
            "kind": self._word(self._nouns, thing.kind, "kind of thing"),
        }
        return self._language.thing_glue.join(filter(None, map(words.__getitem__, self._language.thing_order)))

    def place(self, ahead: int, right: int) -> str:
        """:return: where something is, in the template's words."""
        return self._teller.place(ahead, right)

    def number(self, value: int) -> str:
        """:return: a number, as the template writes it."""
        return self._teller.template.number(value)

    @cached_property
    def _language(self) -> Language:
        return LANGUAGES[self.language]

    @cached_property
    def _phrases(self) -> dict[str, str]:
        return dict(self.phrases)

    @cached_property
    def _nouns(self) -> dict[str, str]:
        return dict(self.nouns)

    @cached_property
    def _colors(self) -> dict[str, str]:
        return dict(self.colors)

    @cached_property
    def _teller(self) -> Teller:
        return Teller(self._language.template(self.template), self)

    @cached_property
    def _requests(self) -> Requests:
        return Requests(self._language, dict(self.missions), self.thing)

    @cached_property
    def _own_words(self) -> dict[str, str]:
        """The canonical words of a mission that this wording says otherwise."""
        canonical = (
            (pool.train[0], words)
            for pools, own in ((self._language.nouns, self._nouns), (self._language.colors, self._colors))
            for name, pool in pools.items()
            if (words := own[name]) != pool.train[0] and name not in STATES
        )
        return dict(canonical)

    @cached_property
    def _keeps_mission(self) -> bool:
        """Whether the environment's own sentence is kept, but for single words."""
        return self._language.keeps_unknown and self.missions == default_wording(self.language).missions

    def _with_own_words(self, mission: str) -> str:
        if not self._own_words:
            return mission
        replaced = re.sub(r"\w+", lambda found: self._own_words.get(found[0], found[0]), mission)
        return re.sub(r"\ban? (\w+)", lambda found: with_article(found[1]), replaced)

    def _word(self, words: Mapping[str, str], name: str, what: str) -> str:
        if name in words:
            return words[name]
        if self._language.keeps_unknown:
            return name
        raise SetupError(
            f"the {what} {name!r} in {self.language!r}",
            f"one of {[known for known in words if known not in STATES or what == 'state']}",
            f'pass language="en", which says any {what} as it is, or describe= a callable of your own',
        )


def default_wording(language: str = "en") -> Wording:
    """
    :param language: "en" or "zh"
    :return: the canonical wording
    :raises SetupError: for another language
    """
    return _canonical(language_of(language).name)


@lru_cache(maxsize=len(LANGUAGES))
def _canonical(language: str) -> Wording:
    found = LANGUAGES[language]
    return _wording(found, {axis: {key: pool.train[0] for key, pool in found.pools(axis).items()} for axis in AXES})


def draw_wording(rng: np.random.Generator, language: str = "en") -> Wording:
    """
    :param rng: draws every axis
    :param language: "en" or "zh"
    :return: a wording from the pools that a corpus is told in
    :raises SetupError: for another language
    """
    found = language_of(language)
    drawn: dict[str, dict[str, str]] = {}
    for axis in AXES:
        canonical = rng.random() < CANONICAL_SHARE
        pools = found.pools(axis)
        drawn[axis] = {
            key: pool.train[0 if canonical else int(rng.integers(len(pool.train)))] for key, pool in pools.items()
        }
        if not canonical:
            _invent_some(rng, found, axis, drawn[axis])
    return _wording(found, drawn)


def held_out_wording(axis: str, rng: np.random.Generator, language: str = "en") -> Wording:
    """
    :param axis: one of :data:`AXES`
    :param rng: draws that axis from what is held out
    :param language: "en" or "zh"
    :return: a wording that is canonical but for that axis
    :raises SetupError: for another axis or language
    """
    if axis not in AXES:
        raise SetupError(f"axis={axis!r}", f"one of {list(AXES)}", "pass axis='phrases'")
    found = language_of(language)
    drawn = {other: {key: pool.train[0] for key, pool in found.pools(other).items()} for other in AXES}
    for key, pool in found.pools(axis).items():
        if pool.held:
            drawn[axis][key] = pool.held[int(rng.integers(len(pool.held)))]
    return _wording(found, drawn)


def _wording(language: Language, words: Mapping[str, Mapping[str, str]]) -> Wording:
    parts = {axis: tuple(words[axis].items()) for axis in AXES if axis != "templates"}
    return Wording(language=language.name, template=words["templates"]["template"], **parts)


def _invent_some(rng: np.random.Generator, language: Language, axis: str, words: dict[str, str]) -> None:
    """Put invented words for some nouns and colors, and into some phrases: these can be told by their list alone."""
    suffix = language.color_suffix if axis == "colors" else ""
    for key in INVENTED_NOUNS if axis == "nouns" else tuple(words):
        if rng.random() < INVENTED_SHARE.get(axis, 0):
            word = invent(rng, language, known_words(language.name) | frozenset(words.values()), suffix)
            words[key] = _with_word(rng, words[key], word) if axis == "phrases" else word


def _with_word(rng: np.random.Generator, phrase: str, word: str) -> str:
    """:return: a phrase with an invented word for one of its words or for all; Chinese, without spaces, loses all."""
    parts = phrase.split(" ")
    if rng.random() < WHOLE_SHARE:
        return word
    parts[int(rng.integers(len(parts)))] = word
    return " ".join(parts)


@lru_cache(maxsize=len(LANGUAGES))
def known_words(language: str) -> frozenset[str]:
    """
    :param language: "en" or "zh"
    :return: what no invented word may be: all that is in the pools, held out or not
    """
    return frozenset(
        part
        for axis in AXES
        for pool in LANGUAGES[language].pools(axis).values()
        for words in (*pool.train, *pool.held)
        for part in (words, *re.findall(r"[a-z]+", words))
    )


_parse = lru_cache(maxsize=1024)(parse)
