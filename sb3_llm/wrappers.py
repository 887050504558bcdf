"""The environment's side of the text: observation texts, phrases, history, reward functions and ``is_success``."""

import contextlib
import io
import re
import reprlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.candidates import DEFAULT_SLOTS, Candidates, Offer, absent, check_candidates, read_candidates
from sb3_llm.describe.describer import SUMMARY, Describer, History, turns_told
from sb3_llm.describe.generic import generic_describer
from sb3_llm.errors import SetupError
from sb3_llm.rewards import Part, Reward, RewardSum, checked_reward
from sb3_llm.spaces import DEFAULT_MAX_BYTES, SEPARATOR, PhraseSpace, TextSpace, check_phrases, is_whole

Describe = Callable[[Any], str]
#: The words of each action in action order, or of those that are offered, each with its action's number.
Phrases = Sequence[str] | Mapping[str, int]

#: What an observation space's bytes can't carry. A text that holds it gets the sign for "not a character" there: what a
#: stranger can write into a world must not end a training.
UNCARRIED = re.compile(f"[\0\ud800-\udfff{SEPARATOR}]")


class Task(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs, ABC):
    """
    An environment's rules as every policy meets them, whatever form its observations take.

    :param env: an environment
    :param history: how many past actions the observation tells, or "summary"
    :param reward: replaces the environment's reward: ``(state, action, next_state, info) -> float``
    :param sparse: the environment pays only for success
    """

    offer: Offer  # of the present state

    def __init__(self, env: gym.Env[Any, Any], history: History, reward: Reward | None, sparse: bool) -> None:
        super().__init__(env)
        check_history(history)
        if reward is not None and not callable(reward):
            raise SetupError(f"reward={reward!r}", "a callable (state, action, next_state, info) -> float", "pass one")
        self.history, self.reward, self.sparse = history, reward, sparse
        self.turns: deque[Any] = deque(maxlen=turns_told(history))  # the last actions as choose() says, newest last
        self.state: Any = None  # the environment's own observation
        self.info: dict[str, Any] = {}  # the environment's own, of the present state
        self.ended = False  # the episode, in the present state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """:return: the first observation, and the environment's info."""
        # BabyAI prints "Sampling rejected: ..." while it looks for a solvable level.
        with contextlib.redirect_stdout(io.StringIO()):
            self.state, self.info = self.env.reset(seed=seed, options=options)
        self.turns.clear()
        self.ended = False
        self.began(seed)
        return self.observe(), self.info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """:return: observation, reward, terminated, truncated, info; ``is_success`` in the info at an episode's end."""
        before = self.state
        chosen, turn = self.choose(int(action))
        phrase = self.offer.phrases[int(action)]
        self.state, reward, terminated, truncated, info = self.env.step(chosen)
        self.turns.append(turn)
        self.stepped(chosen)
        self.info, self.ended = info, terminated or truncated
        if self.sparse and self.ended:
            info.setdefault("is_success", bool(terminated and float(reward) > 0))
        if self.reward is not None:
            seen = info
            if isinstance(self.reward, Part | RewardSum):  # which need to know more than a function of the user's
                seen = info | {"own_reward": float(reward), "terminated": terminated, "phrase": phrase}
            reward = checked_reward(self.reward(before, chosen, self.state, seen))
            if isinstance(self.reward, RewardSum):
                info["reward_parts"] = dict(self.reward.breakdown)
        return self.observe(), float(reward), terminated, truncated, info

    @abstractmethod
    def choose(self, action: int) -> tuple[Any, Any]:
        """:return: what the environment's step gets for an action, and what the history keeps of it."""

    def began(self, seed: int | None) -> None:
        """Called with an episode's first state, before it is told."""

    def stepped(self, action: Any) -> None:
        """Called with the state that an action led to, before it is told."""

    @abstractmethod
    def observe(self) -> Any:
        """:return: the present state and the last actions, as this task's observation."""


class TextObservation(Task):
    """
    Any environment of discrete choices, seen as text and acted in by phrases.

    The observation becomes UTF-8 bytes in a :class:`TextSpace`, the action space a :class:`PhraseSpace`. What the
    agent needs to remember travels in the text (``history``), never in the policy, so that rollout, update and SB3's
    bootstrap at a time limit all see the same prompt. ``render`` is the environment's own.

    Where the possible actions differ from state to state, as in text games, ``candidates`` names them: their phrases
    travel with the text, and action ``i`` of ``Discrete(slots)`` means phrase ``i`` of the present state.

    :param env: an environment with a ``Discrete`` action space; with ``candidates``, with any
    :param describe: any callable from an observation of ``env`` to a str, or a describer that is told of every step;
        by default numbers are told as numbers
    :param phrases: the words of each action, in action order, or a mapping from phrases to actions of ``env``, which
        offers those alone; by default the environment's own attribute ``phrases``, else "action 0", "action 1", ...
    :param history: how many past turns the text tells, each by the phrase that was acted on; none by default. A
        :class:`sb3_llm.describe.describer.Describer` has its own
    :param reward: replaces the environment's reward: ``(state, action, next_state, info) -> float``, where the states
        are observations of ``env``, the action is what its step got, and ``info`` holds ``is_success`` at an
        episode's end
    :param sparse: the environment pays only for success, so ``info["is_success"]`` is set at the end of an episode:
        True if the environment ended it with a positive reward of its own. An ``is_success`` of the environment's
        own is kept
    :param max_bytes: how long an observation text, with its phrases, can be in UTF-8 bytes; a longer one raises, none
        is ever cut
    :param candidates: instead of ``phrases``: a callable ``(obs, info)``, of what ``env`` gave last, that returns the
        phrases possible now, at most ``slots``. A mapping gives the action that ``env`` gets for each; of a list the
        phrase itself is the action
    :param slots: with ``candidates``, how many phrases one state can offer, at most 64
    :raises SetupError: for another action space, phrases that don't fit it, or an observation that needs ``describe``
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        describe: Describe | Describer | None = None,
        phrases: Phrases | None = None,
        history: History = 0,
        reward: Reward | None = None,
        sparse: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        candidates: Candidates | None = None,
        slots: int = DEFAULT_SLOTS,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            describe=describe,
            phrases=phrases,
            history=history,
            reward=reward,
            sparse=sparse,
            max_bytes=max_bytes,
            candidates=candidates,
            slots=slots,
        )
        super().__init__(env, told_by(describe, history), reward, sparse)
        check_candidates(candidates, slots, phrases)
        self.candidates = candidates
        self.offer = Offer((), ()) if candidates else fixed_offer(env, phrases)  # what the present state offers
        self.n_actions = slots if candidates else len(self.phrases)
        self.action_space = spaces.Discrete(slots) if candidates else PhraseSpace(self.phrases)
        self.text_space = self.observation_space = TextSpace(max_bytes, slots if candidates else 0)
        self.describe = describe or generic_describer(env.observation_space)
        self.rng = np.random.default_rng()  # of wordings that are drawn for every episode
        self.text = ""  # the present observation text

    @property
    def phrases(self) -> tuple[str, ...]:
        """:return: the words of each action, in action order; with ``candidates``, those of the present state."""
        return self.offer.phrases

    @property
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """
        For MaskablePPO and random play: ``action_masks()`` says which slots hold a phrase, shape ``(slots,)``.

        :raises AttributeError: without ``candidates``, so that Gymnasium and SB3 look for the environment's own
        """
        if self.candidates is None:
            raise AttributeError("action_masks: without candidates= they are the environment's own, if it has any")
        return self._masks

    def choose(self, action: int) -> tuple[Any, str]:
        """
        :param action: the index of a phrase of the present state
        :return: the action of the environment, and the phrase
        :raises SetupError: if the present state has no such phrase
        """
        if not 0 <= action < len(self.offer.actions):
            raise absent(action, self.offer, self.candidates is not None)
        return self.offer.actions[action], self.phrases[action]

    def observe(self) -> NDArray[np.uint8]:
        """:return: the observation text with the phrases of the present state if they vary, shape ``(max_bytes,)``."""
        text = self._tell()
        if isinstance(text, str):
            text = UNCARRIED.sub("\ufffd", text)
        if self.candidates is None:
            encoded = self.text_space.encode(text)
        else:
            found = self.candidates(self.state, self.info)
            self.offer = read_candidates(found, self.env.action_space, self.ended)
            encoded = self.text_space.encode(text, self.phrases)
        self.text = text
        return encoded

    def began(self, seed: int | None) -> None:
        """Let a describer with a memory begin a new one; a seed restarts the draws of wordings too."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        if isinstance(self.describe, Describer):
            self.describe.begin(self.state, self.rng)

    def stepped(self, action: Any) -> None:
        """Let a describer with a memory take in a step."""
        if isinstance(self.describe, Describer):
            self.describe.note(action, self.state)

    def _tell(self) -> Any:
        """The observation text, or whatever else ``describe`` returned, which encoding refuses."""
        if isinstance(self.describe, Describer):
            return self.describe.tell(self.state, tuple(self.turns))
        text = self.describe(self.state)
        if self.history and isinstance(text, str):
            past = ", ".join(self.turns) or "none"
            text = f"{text} Last action{'s' if self.turns.maxlen != 1 else ''}: {past}."
        return text

    def _masks(self) -> NDArray[np.bool_]:
        return np.arange(self.n_actions) < len(self.phrases)


def check_history(history: Any) -> None:
    """
    :param history: should be how many past actions are told, or "summary"
    :raises SetupError: if it is something else
    """
    if history != SUMMARY and (isinstance(history, bool) or not isinstance(history, int) or history < 0):
        raise SetupError(
            f"history={history!r}",
            'how many past turns to tell, 0 or more, or "summary" of all the agent saw and did',
            "pass history=1",
        )


def told_by(describe: Any, history: Any) -> Any:
    """
    :param describe: as in :class:`TextObservation`
    :param history: as in :class:`TextObservation`
    :return: the history that is told: a describer with a memory has its own
    :raises SetupError: if the two don't fit, or ``describe`` can't be called
    """
    if isinstance(describe, Describer):
        if history not in (0, describe.history):
            given = f"history={history!r} for a describer that tells history={describe.history!r}"
            raise SetupError(given, "one of them", "leave history out, or make the describer with it")
        return describe.history
    check_history(history)
    if describe is not None and not callable(describe):
        raise SetupError(f"describe={describe!r}", "a callable obs -> str", "pass one")
    if history == SUMMARY:
        raise SetupError(
            'history="summary" with a describer that has no memory',
            "a world whose describer draws a map of what the agent saw: MiniGrid, BabyAI, this project's mazes",
            "pass the number of last actions to tell, such as history=4, or a sb3_llm.describe.describer.Describer",
        )
    return history


def fixed_offer(env: gym.Env[Any, Any], phrases: Phrases | None) -> Offer:
    """
    :param env: an environment with a ``Discrete`` action space
    :param phrases: the words of each action, or of those to offer with their numbers, or None for the environment's
        own or default ones
    :return: what every state offers
    :raises SetupError: for another action space, or phrases that don't fit it
    """
    n_actions = count_actions(env.action_space)
    if phrases is None:
        phrases = getattr(env.unwrapped, "phrases", None) or default_phrases(n_actions)
    if not isinstance(phrases, Mapping):
        return Offer(check_phrases(phrases, n_actions), tuple(range(n_actions)))
    wrong = [action for action in phrases.values() if not is_whole(action) or not 0 <= action < n_actions]
    if wrong:
        raise SetupError(
            f"phrases={reprlib.repr(dict(phrases))} for {n_actions} actions",
            f"for each phrase the number of its action, 0 to {n_actions - 1}; {wrong[0]!r} is none",
            "correct the number, or take the phrase away",
        )
    return Offer(check_phrases(tuple(phrases)), tuple(map(int, phrases.values())))


def count_actions(space: spaces.Space) -> int:
    """
    :param space: an action space
    :return: how many actions it has
    :raises SetupError: if it is not ``Discrete`` from 0
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n)
    raise SetupError(
        f"the action space {space!r}",
        "a Discrete space that starts at 0: every action is one phrase",
        "wrap the environment so that each choice, or each combination of choices, is one discrete action",
    )


def default_phrases(n_actions: int) -> tuple[str, ...]:
    """:return: "action 0", "action 1", ...: names for actions that nobody named."""
    return tuple(f"action {index}" for index in range(n_actions))
