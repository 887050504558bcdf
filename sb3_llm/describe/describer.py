"""Describers that know the agent's own past: what :class:`sb3_llm.TextObservation` asks for texts turn by turn."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

SUMMARY = "summary"
SUMMARY_TURNS = 2  # how many last actions a summary tells

History = int | str


def turns_told(history: History) -> int:
    """:return: how many last actions a history tells."""
    return SUMMARY_TURNS if history == SUMMARY else int(history)


class Describer(ABC):
    """Says what an agent sees, with what it saw and did before in the episode."""

    #: How many last actions are told, or "summary".
    history: History

    @abstractmethod
    def begin(self, obs: Any, rng: np.random.Generator) -> None:
        """
        Take in an episode's first observation.

        :param obs: the environment's own
        :param rng: for wordings that are drawn anew for every episode
        """

    @abstractmethod
    def note(self, action: Any, obs: Any) -> None:
        """
        Take in a step.

        :param action: what the environment's step got
        :param obs: what was seen after it
        """

    @abstractmethod
    def tell(self, obs: Any, turns: Sequence[str]) -> str:
        """
        :param obs: the present observation, which was taken in already
        :param turns: the last actions' phrases, newest last
        :return: the observation text
        """
