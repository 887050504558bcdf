"""Orders: what invented phrases mean, and one of them to say again: practice in using words that were never read."""

import numpy as np

from sb3_llm.describe.actions import KEYS
from sb3_llm.pretrain.stories import Line, exchange
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.invent import invent
from sb3_llm.words.languages import language_of
from sb3_llm.words.wording import Wording, known_words

ORDERS = 7  # in a line
LEAST, MOST = 4, 7  # actions with a phrase
PHRASES = {0: 0.25, 1: 0.5, 2: 0.25}  # shares of those of so many invented words; 0: the wording's own


def ordered(rng: np.random.Generator, wording: Wording) -> Line:
    """
    :param rng: the only source of randomness
    :param wording: how it is told
    :return: a list of what phrases mean, actions that are asked for by their meaning, and for each its phrase
    """
    keys = [KEYS[place] for place in rng.permutation(len(KEYS))[: rng.integers(LEAST, MOST + 1)]]
    phrases = {key: _phrase(rng, wording, key) for key in keys}
    asked = [keys[place] for place in rng.integers(len(keys), size=ORDERS)]
    meanings = wording.listing(keys, tuple(phrases.values()))
    (text, phrase), *more = [(wording.order(key), phrases[key]) for key in asked]
    return Line(
        *exchange(DEFAULT_TEMPLATE, f"{meanings} {text}", phrase),
        tuple(exchange(DEFAULT_TEMPLATE, order, answer) for order, answer in more),
    )


def _phrase(rng: np.random.Generator, wording: Wording, key: str) -> str:
    words = int(rng.choice(list(PHRASES), p=list(PHRASES.values())))
    language = language_of(wording.language)
    glue = " " if language.keeps_unknown else ""
    return glue.join(invent(rng, language, known_words(language.name)) for _ in range(words)) or wording.phrase(key)
