"""Who knows which actions are right in a state: shortest paths, the project's planner, the BabyAI bot, or the user."""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, cast

from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.demos.recording import THINKING_SECONDS, BuiltInExpert, bounded
from sb3_llm.describe.actions import KEYS
from sb3_llm.diary.mazes import spot_of
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.pretrain.experts import make_expert
from sb3_llm.spaces import is_whole
from sb3_llm.wrappers import TextObservation

AUTO, PATH, PLANNER, BOT = EXPERTS = ("auto", "shortest path", "planner", "bot")
#: From a world in its present state to the index of the right action, or of all that are as good. Asked in several
#: episodes side by side, so it must not remember.
Own = Callable[[TextObservation], int | Collection[int]]
Expert = str | Own | None


class Guide(ABC):
    """Plays along in one episode, told of every step, and says which actions would be right."""

    @abstractmethod
    def begin(self, env: TextObservation) -> None:
        """
        :param env: just reset
        :raises SetupError: if it knows nothing of such a world
        """

    @abstractmethod
    def right(self, env: TextObservation) -> frozenset[int]:
        """:return: the indexes of the right actions; empty where it does not know. Asked once in each state at most."""

    @abstractmethod
    def note(self, env: TextObservation, action: int) -> None:
        """
        :param env: after a step
        :param action: that was taken, by the environment's own number
        """


class ShortestPath(Guide):
    """Every action that starts a shortest path to a maze's goal; it knows the whole maze."""

    def begin(self, env: TextObservation) -> None:
        """Refuse other worlds."""
        if spot_of(env) is None:
            raise _unfit(PATH, env, "one of this project's mazes")

    def right(self, env: TextObservation) -> frozenset[int]:
        """:return: the indexes of one action, or of several that are as short."""
        spot = spot_of(env)
        return frozenset() if spot is None else _offered(env, spot.towards(spot.goal))

    def note(self, env: TextObservation, action: int) -> None:
        """Nothing to remember: it sees where the agent stands."""


class Advice(Guide):
    """
    The one action that an expert of the project advises.

    :param use_bot: the BabyAI bot, which knows the whole level; otherwise the planner, which knows what the agent does
    """

    def __init__(self, use_bot: bool = False) -> None:
        self._use_bot = use_bot

    def begin(self, env: TextObservation) -> None:
        """Make an expert for this episode."""
        self._keys = DIRECTIONS if isinstance(env.unwrapped, MazeEnv) else KEYS
        try:
            self._expert = make_expert(env.unwrapped, env.state, self._use_bot)
        except AttributeError:  # the bot asks a level for its instructions
            raise _unfit(BOT, env, "a BabyAI level") from None

    def right(self, env: TextObservation) -> frozenset[int]:
        """:return: the index of one action."""
        return _offered(env, [self._keys.index(self._expert.advice()[0])])

    def note(self, env: TextObservation, action: int) -> None:
        """Let the expert take in a step."""
        self._expert.note(action, env.state)


class OwnGuide(Guide):
    """
    The user's.

    :param expert: as :data:`Own`
    """

    def __init__(self, expert: Own) -> None:
        self._expert = expert

    def begin(self, env: TextObservation) -> None:
        """Nothing to prepare."""

    def right(self, env: TextObservation) -> frozenset[int]:
        """:return: what the user's expert says."""
        said: Any = self._expert(env)
        found = [said] if is_whole(said) else list(said) if isinstance(said, Collection) else [said]
        if not all(is_whole(each) and 0 <= each < len(env.phrases) for each in found):
            expected = f"the index of one of {len(env.phrases)} phrases, or a collection of such"
            mend = "return the index of the phrase in env.phrases"
            raise SetupError(f"an expert that returned {reprlib.repr(said)}", expected, mend)
        return frozenset(map(int, found))

    def note(self, env: TextObservation, action: int) -> None:
        """Nothing is remembered."""


class Companion:
    """
    A guide beside a policy that plays: where the guide fails, or thinks for too long, it is silent from there on.

    :param guide: None: there is none
    """

    def __init__(self, guide: Guide | None) -> None:
        self._guide = guide
        #: Why it is silent.
        self.lost: str | None = None

    def begin(self, env: TextObservation) -> None:
        """As :meth:`Guide.begin`."""
        self._try(lambda guide: guide.begin(env))

    def right(self, env: TextObservation) -> frozenset[int]:
        """As :meth:`Guide.right`."""
        return self._try(lambda guide: guide.right(env)) or frozenset()

    def note(self, env: TextObservation, action: int) -> None:
        """As :meth:`Guide.note`."""
        self._try(lambda guide: guide.note(env, action))

    def _try(self, do: Callable[[Guide], Any]) -> Any:
        if self._guide is None or self.lost is not None:
            return None
        try:
            with bounded(THINKING_SECONDS):
                return do(self._guide)
        except Exception as error:  # the BabyAI bot raises all kinds of things where a policy has left its plan
            self.lost = f"{type(error).__name__}: {error}"
            return None


def check_expert(expert: Any) -> Expert:
    """
    :param expert: what the user gave
    :return: the same
    :raises SetupError: if it is no expert
    """
    if isinstance(expert, BuiltInExpert):
        given = "the expert of sb3_llm.demos.expert_for, which takes what it says for what was done"
        raise SetupError(given, f"one of {EXPERTS}, since here a policy acts", 'pass expert="planner"')
    known = expert is None or (expert in EXPERTS if isinstance(expert, str) else callable(expert))
    if not known:
        expected = f"one of {EXPERTS}, None, or a callable from the environment to the index of the right action"
        raise SetupError(f"expert={expert!r}", expected, "leave expert out")
    return cast(Expert, expert)


def find_guide(expert: Expert, env: TextObservation) -> Callable[[], Guide] | None:
    """
    :param expert: a checked one
    :param env: just reset
    :return: what makes a guide for each episode; None where there is none
    :raises SetupError: if the expert that was asked for knows nothing of this world
    """
    if expert is None:
        return None
    if callable(expert):
        make: Callable[[], Guide] = partial(OwnGuide, expert)
    elif expert == AUTO:
        return _found(env)
    else:
        make = partial(Advice, expert == BOT) if expert in (PLANNER, BOT) else ShortestPath
    guide = make()
    guide.begin(env)
    guide.right(env)
    return make


def _found(env: TextObservation) -> Callable[[], Guide] | None:
    if spot_of(env) is not None:
        return ShortestPath
    try:
        return find_guide(PLANNER, env) if isinstance(env.unwrapped, MiniGridEnv) else None
    except SetupError:  # a mission that nobody understands
        return None


def _offered(env: TextObservation, actions: Iterable[int]) -> frozenset[int]:
    return frozenset(env.offer.actions.index(action) for action in actions if action in env.offer.actions)


def _unfit(expert: str, env: TextObservation, expected: str) -> SetupError:
    return SetupError(f"expert={expert!r} in {env.unwrapped}", expected, "leave expert out")
