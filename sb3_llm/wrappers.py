"""The environment's side of the text: observation texts, phrases, history, reward functions and ``is_success``."""

import contextlib
import io
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.describe.generic import generic_describer
from sb3_llm.errors import SetupError
from sb3_llm.rewards import Reward, checked_reward
from sb3_llm.spaces import DEFAULT_MAX_BYTES, PhraseSpace, TextSpace, check_phrases

Describe = Callable[[Any], str]


class Task(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs, ABC):
    """
    An environment's rules as every policy meets them, whatever form its observations take.

    :param env: an environment with a ``Discrete`` action space
    :param history: how many past actions the observation tells
    :param reward: replaces the environment's reward: ``(state, action, next_state, info) -> float``
    :param sparse: the environment pays only for success
    """

    def __init__(self, env: gym.Env[Any, Any], history: int, reward: Reward | None, sparse: bool) -> None:
        super().__init__(env)
        if isinstance(history, bool) or not isinstance(history, int) or history < 0:
            raise SetupError(f"history={history!r}", "how many past turns to tell, 0 or more", "pass history=1")
        if reward is not None and not callable(reward):
            raise SetupError(f"reward={reward!r}", "a callable (state, action, next_state, info) -> float", "pass one")
        self.n_actions = count_actions(env.action_space)
        self.history, self.reward, self.sparse = history, reward, sparse
        self.turns: deque[int] = deque(maxlen=history)  # the last actions, newest last
        self.state: Any = None  # the environment's own observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """:return: the first observation, and the environment's info."""
        # BabyAI prints "Sampling rejected: ..." while it looks for a solvable level.
        with contextlib.redirect_stdout(io.StringIO()):
            self.state, info = self.env.reset(seed=seed, options=options)
        self.turns.clear()
        return self.observe(), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """:return: observation, reward, terminated, truncated, info; ``is_success`` in the info at an episode's end."""
        before, index = self.state, int(action)
        self.state, reward, terminated, truncated, info = self.env.step(index)
        self.turns.append(index)
        if self.sparse and (terminated or truncated):
            info.setdefault("is_success", bool(terminated and float(reward) > 0))
        if self.reward is not None:
            reward = checked_reward(self.reward(before, index, self.state, info))
        return self.observe(), float(reward), terminated, truncated, info

    @abstractmethod
    def observe(self) -> Any:
        """:return: the present state and the last actions, as this task's observation."""


class TextObservation(Task):
    """
    Any discrete-action environment, seen as text and acted in by phrases.

    The observation becomes UTF-8 bytes in a :class:`TextSpace`, the action space a :class:`PhraseSpace`. What the
    agent needs to remember travels in the text (``history``), never in the policy, so that rollout, update and SB3's
    bootstrap at a time limit all see the same prompt. ``render`` is the environment's own.

    :param env: an environment with a ``Discrete`` action space
    :param describe: any callable from an observation of ``env`` to a str; by default numbers are told as numbers
    :param phrases: the words of each action, in action order; by default the environment's own attribute
        ``phrases``, else "action 0", "action 1", ...
    :param history: how many past turns the text tells, each by the phrase that was acted on
    :param reward: replaces the environment's reward: ``(state, action, next_state, info) -> float``, where the states
        are observations of ``env`` and ``info`` holds ``is_success`` at an episode's end
    :param sparse: the environment pays only for success, so ``info["is_success"]`` is set at the end of an episode:
        True if the environment ended it with a positive reward of its own. An ``is_success`` of the environment's
        own is kept
    :param max_bytes: how long an observation text can be, in UTF-8 bytes; a longer one raises, none is ever cut
    :raises SetupError: for another action space, phrases that don't fit it, or an observation that needs ``describe``
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        describe: Describe | None = None,
        phrases: Sequence[str] | None = None,
        history: int = 0,
        reward: Reward | None = None,
        sparse: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            describe=describe,
            phrases=phrases,
            history=history,
            reward=reward,
            sparse=sparse,
            max_bytes=max_bytes,
        )
        super().__init__(env, history, reward, sparse)
        if describe is not None and not callable(describe):
            raise SetupError(f"describe={describe!r}", "a callable obs -> str", "pass one")
        if phrases is None:
            phrases = getattr(env.unwrapped, "phrases", None) or default_phrases(self.n_actions)
        self.describe = describe or generic_describer(env.observation_space)
        self.text_space = self.observation_space = TextSpace(max_bytes)
        self.phrases = check_phrases(phrases, self.n_actions)
        self.action_space = PhraseSpace(self.phrases)
        self.text = ""  # the present observation text

    def observe(self) -> NDArray[np.uint8]:
        """:return: the observation text, encoded, shape ``(max_bytes,)``."""
        text = self.describe(self.state)
        if self.history and isinstance(text, str):
            past = ", ".join(self.phrases[turn] for turn in self.turns) or "none"
            text = f"{text} Last action{'s' if self.history > 1 else ''}: {past}."
        encoded = self.text_space.encode(text)
        self.text = text
        return encoded


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
