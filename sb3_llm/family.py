"""How environments of one kind are put into words: the describer, the phrases and the history that suit them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.candidates import Candidates
from sb3_llm.describe.actions import KEYS, meanings
from sb3_llm.describe.describer import SUMMARY, Describer, History
from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.describe.maze import MazeDescriber, describe_maze, describe_maze_map
from sb3_llm.describe.minigrid import RoomDescriber, describe_minigrid
from sb3_llm.describe.worded import CANONICAL, Worded
from sb3_llm.envs.dialogue import DialogueEnv
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.spaces import check_phrases
from sb3_llm.wrappers import Describe, Phrases, fixed_offer

#: ``(actions, history, language, wording, phrases)`` -> a describer whose words can vary.
MakeWorded = Callable[..., Worded]


@dataclass(frozen=True)
class Family:
    """How environments of one kind are put into words."""

    describe: Describe | None = None  # without a memory; None: numbers are told as numbers
    worded: MakeWorded | None = None  # with a memory and words that vary
    actions: Mapping[str, int] | None = None  # what is offered, by its key; None: all the environment has
    turns: int = 0  # how many last actions are told where nothing has a memory; one is enough not to pace for ever
    sparse: bool = False  # a positive reward at the end means success

    @property
    def history(self) -> History:
        """:return: what the text tells of the past by default."""
        return self.turns if self.worded is None else SUMMARY

    def named(self, phrases: Phrases | None, action_space: spaces.Space) -> Phrases | None:
        """
        :param phrases: the user's; as many as the actions offered by default are other words for those
        :param action_space: the environment's own
        :return: what :class:`TextObservation` gets
        :raises SetupError: if they are of the wrong count
        """
        if phrases is None:
            return self.actions
        if isinstance(phrases, Mapping) or self.actions is None:
            return phrases
        if isinstance(phrases, Sequence) and len(phrases) == getattr(action_space, "n", None):
            return phrases
        return dict(zip(check_phrases(phrases, len(self.actions)), self.actions.values(), strict=True))


def family_of(env: gym.Env[Any, Any]) -> Family:
    """
    :param env: any environment
    :return: what suits it
    """
    inner = env.unwrapped
    if isinstance(inner, MiniGridEnv):
        return Family(describe_minigrid, RoomDescriber, dict(meanings(inner)), turns=1, sparse=True)
    if isinstance(inner, MazeEnv) and inner.view == "full":
        return Family(describe_maze_map, turns=1)
    if isinstance(inner, MazeEnv):
        directions = {direction: number for number, direction in enumerate(DIRECTIONS)}
        return Family(describe_maze, _maze, directions, turns=1)
    if isinstance(inner, DialogueEnv):
        return Family(partial(describe_dialogue, language=inner.language))
    if isinstance(inner, FrozenLakeEnv):
        return Family(actions={"left": 0, "down": 1, "right": 2, "up": 3}, sparse=True)
    return Family()


def _maze(actions: Mapping[str, int], *options: Any) -> MazeDescriber:
    return MazeDescriber(*options)


def told_as(
    env: gym.Env[Any, Any],
    describe: Any = None,
    phrases: Phrases | None = None,
    history: History | None = None,
    language: str = "en",
    wording: str = CANONICAL,
    candidates: Candidates | None = None,
) -> dict[str, Any]:
    """
    What :class:`TextObservation` gets for an environment.

    :param env: any environment
    :param describe: the user's own describer
    :param phrases: the user's own phrases
    :param history: what is told of the past; by default what suits the environment
    :param language: of the text and the phrases
    :param wording: one of :data:`sb3_llm.describe.worded.WORDINGS`
    :param candidates: the user's own
    :return: keyword arguments
    :raises SetupError: if they don't fit each other or the environment
    """
    family = family_of(env)
    common = {"sparse": family.sparse}
    if family.worded is None or describe is not None or candidates is not None:
        _require_no_wording(env, language, wording, describe, candidates)
        named = phrases if candidates is not None else family.named(phrases, env.action_space)
        return common | {
            "describe": describe or family.describe,
            "phrases": named,
            "history": _turns(family, describe) if history is None else history,
            "candidates": candidates,
        }
    history = family.history if history is None else history
    if phrases is not None and wording != CANONICAL:
        raise SetupError(f"phrases={phrases!r} with wording={wording!r}", "one of them", "leave one out")
    describer = _with_words(family, env, phrases, history, language, wording)
    if wording == CANONICAL:
        return common | {"describe": describer, "phrases": describer.offer(), "history": history}
    varying = {"candidates": describer.candidates, "slots": len(describer.actions)}
    return common | varying | {"describe": describer, "history": history}


def _turns(family: Family, describe: Any) -> History:
    """What is told of the past by default, without this family's own describer with a memory."""
    return describe.history if isinstance(describe, Describer) else family.turns


def _with_words(
    family: Family, env: gym.Env[Any, Any], phrases: Phrases | None, history: History, language: str, wording: str
) -> Worded:
    assert family.worded is not None
    assert family.actions is not None
    if phrases is None:
        return family.worded(family.actions, history, language, wording)
    offer = fixed_offer(env, family.named(phrases, env.action_space))
    by_number = {number: key for key, number in family.actions.items()}
    numbered = {by_number.get(number, _key(number)): number for number in offer.actions}
    return family.worded(numbered, history, language, wording, offer.phrases)


def _key(number: int) -> str:
    """An action that is not offered by default: MiniGrid's "done", or one that nobody named."""
    return KEYS[number] if 0 <= number < len(KEYS) else f"action {number}"


def _require_no_wording(env: Any, language: str, wording: str, describe: Any, candidates: Any) -> None:
    own = "describe" if describe is not None else "candidates" if candidates is not None else None
    speaks = isinstance(env.unwrapped, DialogueEnv)  # it takes the language itself
    if wording != CANONICAL or (language != "en" and not speaks):
        raise SetupError(
            f"language={language!r} and wording={wording!r} " + (f"with {own}=" if own else f"for {env}"),
            "a world whose words are in the tables (MiniGrid, BabyAI, this project's mazes), in its own describer",
            "leave them out, or write describe= and phrases= in that language",
        )
