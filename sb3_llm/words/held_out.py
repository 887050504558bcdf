"""What is held out of every corpus, so that success with it shows what a model makes of words it was never told in."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from sb3_llm.words.languages import AXES, LANGUAGES
from sb3_llm.words.pools import Language


class _Words(Protocol):
    """A wording's fields."""

    @property
    def language(self) -> str: ...
    @property
    def template(self) -> str: ...


@lru_cache(maxsize=1)
def held_out_words() -> frozenset[str]:
    """
    All that can be looked for in plain text. Held-out phrases of one word are not here, nor are the words of held-out
    missions one by one, because the corpus has them in other roles: see :func:`held_out_phrases` and
    :func:`uses_held_out`.

    :return: nouns, colors, phrases of several words, parts of mission patterns and of templates, that stand nowhere in
        a corpus
    """
    return frozenset(words for language in LANGUAGES.values() for words in _held_strings(language))


@lru_cache(maxsize=1)
def held_out_phrases() -> frozenset[str]:
    """:return: what must never be an action's words in a corpus, neither as the answer nor in a list of actions."""
    return frozenset(
        words for language in LANGUAGES.values() for pool in language.phrases.values() for words in pool.held
    )


def find_held_out(text: str) -> str | None:
    """
    :param text: a line of a corpus
    :return: something of :func:`held_out_words` in it, if there is any
    """
    found = _pattern().search(text)
    return found[0] if found else None


def uses_held_out(wording: _Words) -> bool:
    """
    :param wording: any
    :return: whether some of its words, patterns or its template are held out
    """
    language = LANGUAGES[wording.language]
    if wording.template in language.held_templates:
        return True
    return any(
        words in pool.held
        for axis in AXES
        if axis != "templates"
        for (key, words) in getattr(wording, axis)
        if (pool := language.pools(axis).get(key))
    )


def _held_strings(language: Language) -> Iterator[str]:
    for axis in ("nouns", "colors", "phrases"):
        for pool in language.pools(axis).values():
            yield from (words for words in pool.held if axis != "phrases" or _is_long(words))
    for pool in language.missions.values():
        for pattern in pool.held:
            parts = (part.strip(" ,;，；") for part in re.split(r"\{\w+\}", pattern))  # noqa: RUF001
            yield from (part for part in parts if _is_telling(part))
    yield from language.marks


def _is_long(words: str) -> bool:
    """Long enough to say something by itself: two English words, or three Chinese characters."""
    return " " in words if words.isascii() else len(words) > 2


def _is_telling(part: str) -> bool:
    """Long enough that no other sentence has it by chance: four English words, or four Chinese characters."""
    return part.count(" ") > 2 if part.isascii() else len(part) > 3


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    parts = sorted(held_out_words(), key=lambda words: (-len(words), words))
    return re.compile("|".join(rf"(?<!\w){re.escape(p)}(?!\w)" if p.isascii() else re.escape(p) for p in parts))
