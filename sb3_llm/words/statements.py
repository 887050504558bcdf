"""Plain text on how these worlds work: statements, questions and answers, dialogues, questions of what is seen."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from sb3_llm.words.chinese_lore import CHINESE_LORE
from sb3_llm.words.english_lore import ENGLISH_LORE
from sb3_llm.words.facts import Past, Spot, Thing, View
from sb3_llm.words.languages import language_of
from sb3_llm.words.lore import Exchange, Lore
from sb3_llm.words.pools import Language, Pool
from sb3_llm.words.wording import Wording

LORE = {"en": ENGLISH_LORE, "zh": CHINESE_LORE}
CLOCKWISE = ("north", "east", "south", "west")
CARRIED = ("key", "ball", "box")
NAMED = (*CARRIED, "door", "goal")  # what has synonyms worth learning
PLAIN_SHARE = 0.5  # of the words that are the canonical ones
FARTHEST = 7

Item = TypeVar("Item")


def statements(rng: np.random.Generator, language: str = "en") -> str:
    """
    :param rng: draws the pattern and its words
    :param language: "en" or "zh"
    :return: one true statement of how these worlds work
    :raises SetupError: for another language
    """
    words = scene(rng, language_of(language))
    return _filled(_one_of(rng, LORE[language].statements), words)


def question(rng: np.random.Generator, language: str = "en") -> Exchange:
    """
    :param rng: draws the pattern and its words
    :param language: "en" or "zh"
    :return: a question of how these worlds work, and its answer
    :raises SetupError: for another language
    """
    words = scene(rng, language_of(language))
    asked, answer = _one_of(rng, LORE[language].questions)
    return _filled(asked, words), _filled(answer, words)


def dialogue(rng: np.random.Generator, language: str = "en") -> list[str]:
    """
    :param rng: draws the pattern and its words
    :param language: "en" or "zh"
    :return: two to four turns of a user and an agent, each with its speaker
    :raises SetupError: for another language
    """
    words = scene(rng, language_of(language))
    return [_filled(turn, words) for turn in _one_of(rng, LORE[language].dialogues)]


def view_question(rng: np.random.Generator, wording: Wording, mission: str, view: View, past: Past | None) -> Exchange:
    """
    :param rng: draws what is asked
    :param wording: in whose words
    :param mission: the environment's own
    :param view: what is seen
    :param past: what the agent knows of before, if it is told
    :return: a question of the given facts, and its answer
    """
    lore = LORE[wording.language]
    topics = _Asking(rng, wording, lore).topics(mission, view, past)
    topic, words = _one_of(rng, topics)
    asked, answer = lore.seen[topic]
    return _filled(_one_of(rng, asked), words), _filled(answer, words)


def scene(rng: np.random.Generator, language: Language) -> dict[str, str]:
    """
    Draw the words for all gaps so that they fit each other, none of them held out.

    :param rng: draws them
    :param language: whose words
    :return: by gap: things, colors, phrases by their keys, directions and how they follow each other, numbers
    """
    nouns = {kind: _word(rng, pool) for kind, pool in language.nouns.items()}
    phrases = {key: _word(rng, pool) for key, pool in language.phrases.items()}
    color, other = _two_of(rng, list(language.colors))
    thing, second = _two_of(rng, CARRIED)
    return {
        **phrases,
        **{kind: nouns[kind] for kind in ("key", "ball", "box", "door", "goal", "lava", "wall", "opening", "object")},
        "thing": nouns[thing],
        "thing2": nouns[second],
        "color": _word(rng, language.colors[color]),
        "other": _word(rng, language.colors[other]),
        # The action's key is also the name of a door's state: the phrase is meant.
        "open": phrases["open"],
        **_synonyms(rng, language),
        **_directions(rng, language),
        **_numbers(rng),
    }


def _synonyms(rng: np.random.Generator, language: Language) -> dict[str, str]:
    noun = language.nouns[_one_of(rng, NAMED)]
    color = language.colors[_one_of(rng, list(language.colors))]
    same, alike = _two_of(rng, language.phrases[_one_of(rng, list(language.phrases))].train)
    return {
        "word": noun.train[0],
        "synonym": _one_of(rng, noun.train[1:]),
        "hue": color.train[0],
        "shade": _one_of(rng, color.train[1:]),
        "same": same,
        "as": alike,
    }


def _directions(rng: np.random.Generator, language: Language) -> dict[str, str]:
    index = int(rng.integers(4))
    names = {"compass": 0, "to_right": 1, "opposite": 2, "to_left": 3}
    compass = {gap: language.compass[CLOCKWISE[(index + turns) % 4]] for gap, turns in names.items()}
    return compass | {"side": LORE[language.name].sides[_one_of(rng, ("left", "right"))]}


def _numbers(rng: np.random.Generator) -> dict[str, str]:
    n, m = (int(number) for number in rng.integers(3, FARTHEST + 1, size=2))
    numbers = {"n": n, "m": m, "n_less": n - 1, "m_less": m - 1, "n_more": n + 1, "m_more": m + 1, "sum": n + m}
    return {gap: str(number) for gap, number in numbers.items()}


class _Asking:
    """What can be asked of one view, topic by topic, with the words of question and answer."""

    def __init__(self, rng: np.random.Generator, wording: Wording, lore: Lore) -> None:
        self.rng, self.wording, self.lore = rng, wording, lore

    def topics(self, mission: str, view: View, past: Past | None) -> list[tuple[str, dict[str, str]]]:
        """:return: (topic, words) for each question that the facts answer."""
        found = [*self._ways(view), *self._things(view), *self._self(view)]
        found += [("mission", {"mission": self.wording.mission(mission)})] if mission else []
        return found + ([] if past is None else list(self._past(past)))

    def _ways(self, view: View) -> Iterable[tuple[str, dict[str, str]]]:
        for free in view.free:
            yield f"steps {free.direction}", {"n": self.wording.number(free.steps)}
            yield free.direction, {"thing": self.wording.thing(free.end) if free.end else self.lore.edge}

    def _things(self, view: View) -> Iterable[tuple[str, dict[str, str]]]:
        yield "count", {"n": self.wording.number(len(view.seen))}
        counted = [spot.thing for spot in view.seen]
        for spot in view.seen:
            if counted.count(spot.thing) == 1:
                yield from self._spot(spot)
        asked = _one_of(self.rng, [*counted, *(Thing(kind, color) for kind in CARRIED for color in ("red", "blue"))])
        yield "see", {"thing": self.wording.thing(asked), "yes": self.lore.yes["see"][asked in counted]}

    def _spot(self, spot: Spot) -> Iterable[tuple[str, dict[str, str]]]:
        thing, place = self.wording.thing(spot.thing), self.wording.place(spot.ahead, spot.right)
        yield "where", {"thing": thing, "place": place}
        yield "what", {"thing": thing, "place": place}
        if spot.way is not None:
            yield "reach", {"thing": thing, "yes": self.lore.yes["reach"][spot.way == "here"]}
        if spot.way not in (None, "here") and spot.moves is not None:
            yield "moves", {"thing": thing, "n": self.wording.number(spot.moves)}

    def _self(self, view: View) -> Iterable[tuple[str, dict[str, str]]]:
        yield "carry", {"thing": self.wording.thing(view.carrying) if view.carrying else self.lore.nothing}
        if view.compass is None:
            return
        index = CLOCKWISE.index(view.compass)
        for topic, turns in (("compass", 0), ("turn right", 1), ("turn left", -1)):
            yield topic, {"compass": self.wording.heading(CLOCKWISE[(index + turns) % 4])}

    def _past(self, past: Past) -> Iterable[tuple[str, dict[str, str]]]:
        if past.turns:
            yield "last", {"phrase": self.wording.turn(past.turns[-1])}
        if past.visits is not None:
            yield "visits", {"n": self.wording.number(past.visits)}
        for deed in dict.fromkeys(deed for deed, _ in past.deeds):
            things = [thing for other, thing in past.deeds if other == deed]
            if len(things) == 1:
                yield "deed", {"done": self.lore.done[deed], "thing": self.wording.thing(things[0])}


def _word(rng: np.random.Generator, pool: Pool) -> str:
    return pool.train[0] if rng.random() < PLAIN_SHARE else _one_of(rng, pool.train)


def _one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _two_of(rng: np.random.Generator, items: Sequence[Item]) -> tuple[Item, Item]:
    first, second = rng.choice(len(items), size=2, replace=False)
    return items[int(first)], items[int(second)]


def _filled(pattern: str, words: dict[str, str]) -> str:
    """The pattern with its words; in English with "an" and capital letters where they belong."""
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", pattern.format_map(words))
    return re.sub(r"(?:^|[.?!] |^\w+: )[a-z]", lambda found: found[0][:-1] + found[0][-1].upper(), text)
