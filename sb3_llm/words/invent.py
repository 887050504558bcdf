"""Invented words: a reader meets them nowhere else, so it has to match them by their letters."""

import numpy as np

from sb3_llm.words.pools import Language


def invent(rng: np.random.Generator, language: Language, taken: frozenset[str], suffix: str = "") -> str:
    """
    :param rng: draws the syllables
    :param language: whose syllables
    :param taken: words it must not be
    :param suffix: its end
    :return: a word of that language's sounds
    """
    while True:
        parts = [group[int(rng.integers(len(group)))] for group in language.syllables]
        word = "".join(parts) + suffix
        if word not in taken:
            return word
