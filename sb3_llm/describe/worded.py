"""Describers whose words can vary: the language, and a wording that is canonical, drawn per episode, or held out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sb3_llm.describe.describer import Describer, History
from sb3_llm.errors import SetupError
from sb3_llm.words.wording import AXES, LANGUAGES, Wording, default_wording, draw_wording, held_out_wording

CANONICAL, DRAWN = "canonical", "drawn"
#: What ``wording=`` of :func:`sb3_llm.make_env` can be.
WORDINGS = (CANONICAL, DRAWN, *(f"held-out {axis}" for axis in AXES))


class Worded(Describer):
    """
    A describer of a world whose actions and things the wordings know.

    :param actions: the environment's number of each action by its key ("turn left", ...), in the order of the phrases
    :param history: how many last actions are told, or "summary"
    :param language: "en" or "zh"
    :param wording: one of :data:`WORDINGS`; all but the canonical one are drawn anew for every episode, and where the
        phrases differ from the canonical ones the text starts with a list of them
    :param phrases: instead of the wording's phrases, in the same order
    :raises SetupError: for an unknown language or wording
    """

    def __init__(
        self,
        actions: Mapping[str, int],
        history: History,
        language: str = "en",
        wording: str = CANONICAL,
        phrases: Sequence[str] | None = None,
    ) -> None:
        if language not in LANGUAGES:
            raise SetupError(f"language={language!r}", f"one of {list(LANGUAGES)}", "pass language='en'")
        if wording not in WORDINGS:
            raise SetupError(f"wording={wording!r}", f"one of {list(WORDINGS)}", "pass wording='canonical'")
        self.actions, self.keys = dict(actions), tuple(actions)
        self.history, self.language, self.wording = history, language, wording
        self.own_phrases = None if phrases is None else tuple(phrases)
        self.words = default_wording(language)

    def begin(self, obs: Any, rng: np.random.Generator) -> None:
        """Draw the episode's words, and begin a new memory."""
        if self.wording != CANONICAL:
            self.words = draw(self.wording, self.language, rng)
        self.remember(obs)

    def tell(self, obs: Any, turns: Sequence[str]) -> str:
        """:return: the observation text, after what the phrases mean where they are not the canonical ones."""
        return after_phrases(self.observation(obs, tuple(turns)), self.words, self.phrases, self.keys)

    @property
    def phrases(self) -> tuple[str, ...]:
        """:return: the words of each action in the present episode."""
        return self.own_phrases or tuple(self.words.phrase(key) for key in self.keys)

    def candidates(self, obs: Any, info: dict[str, Any]) -> dict[str, int]:
        """:return: the phrases of the present episode, for an environment in which they vary."""
        return self.offer()

    def offer(self) -> dict[str, int]:
        """:return: the phrases of the present episode, each with the environment's number of its action."""
        return dict(zip(self.phrases, self.actions.values(), strict=True))

    @abstractmethod
    def remember(self, obs: Any) -> None:
        """Begin a new memory with an episode's first observation."""

    @abstractmethod
    def observation(self, obs: Any, turns: tuple[str, ...]) -> str:
        """:return: the observation text."""


def after_phrases(text: str, words: Wording, phrases: tuple[str, ...], keys: tuple[str, ...]) -> str:
    """
    :param text: of an observation
    :param words: that tell it
    :param phrases: of the actions
    :param keys: of the actions
    :return: the text, after a list of what the phrases mean where they are not the language's canonical ones
    """
    canonical = default_wording(words.language)
    return text if phrases == tuple(map(canonical.phrase, keys)) else f"{words.listing(keys, phrases)} {text}"


def draw(wording: str, language: str, rng: np.random.Generator) -> Wording:
    """:return: an episode's words: from the pools a corpus is told in, or from one that is held out."""
    if wording == DRAWN:
        return draw_wording(rng, language)
    return held_out_wording(wording.removeprefix("held-out "), rng, language)
