"""MiniGrid and BabyAI observations in words, from what the agent itself sees: ``image``, ``direction``, ``mission``."""

from collections.abc import Mapping, Sequence
from typing import Any

from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.memory import Memory
from sb3_llm.describe.summary import recall
from sb3_llm.describe.view import read_view
from sb3_llm.describe.worded import CANONICAL, Worded
from sb3_llm.words.facts import Past, View
from sb3_llm.words.wording import default_wording


def describe_minigrid(obs: Mapping[str, Any]) -> str:
    """
    Say all that a MiniGrid observation shows: mission, compass, carried thing, free ways, things, the floor's shape.

    Positions are egocentric, in steps, as in BabyAI-Text (GLAM, arXiv 2302.02662); compass, free distances and the
    floor are added because walls are most of what there is to see in a maze, and BabyAI-Text leaves them out.

    :param obs: MiniGrid's own observation: ``image`` (V, V, 3) uint8, ``direction`` int, ``mission`` str
    :return: the observation text, a few sentences in one line
    """
    return default_wording().room(obs["mission"], read_view(obs), None)


class RoomDescriber(Worded):
    """
    The same with the agent's own past: its last actions, or a summary of all it saw and did in the episode.

    :param actions: as in :class:`sb3_llm.describe.worded.Worded`, as are history, language, wording and phrases
    :param compass: whether the heading is told
    :param floor: whether the floor's shape is told; by default only where no summary tells the ways over it, for it is
        a third of the text
    """

    def __init__(
        self,
        actions: Mapping[str, int],
        history: History = SUMMARY,
        language: str = "en",
        wording: str = CANONICAL,
        phrases: Sequence[str] | None = None,
        compass: bool = True,
        floor: bool | None = None,
    ) -> None:
        super().__init__(actions, history, language, wording, phrases)
        self.compass = compass
        self.floor = history != SUMMARY if floor is None else floor
        self.memory: Memory | None = None

    def remember(self, obs: Mapping[str, Any]) -> None:
        """Begin a new map."""
        self.memory = Memory(obs) if self.history == SUMMARY else None

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step: MiniGrid's number of the action, and what was seen after it."""
        if self.memory is not None:
            self.memory.note(action, obs)

    def observation(self, obs: Mapping[str, Any], turns: tuple[str, ...]) -> str:
        """:return: the observation text."""
        return self.words.room(obs["mission"], *self.facts(obs, turns))

    def facts(self, obs: Mapping[str, Any], turns: tuple[str, ...]) -> tuple[View, Past | None]:
        """:return: what is told, before any words."""
        view = read_view(obs, self.compass)
        past = None if self.history == 0 else Past(turns)
        if self.memory is not None:
            view, past = recall(self.memory, view, turns)
        return view if self.floor else view._replace(floor=None), past
