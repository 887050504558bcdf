"""The same information as numbers: what a baseline without a language model sees of a task."""

import zlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from sb3_llm.candidates import absent
from sb3_llm.describe.describer import SUMMARY, History, turns_told
from sb3_llm.describe.maze_memory import MazeMemory
from sb3_llm.describe.memory import Memory
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.envs.render import Code
from sb3_llm.family import family_of
from sb3_llm.ids import gym_make
from sb3_llm.numeric_past import encode_maze_past, encode_past
from sb3_llm.rewards import Reward
from sb3_llm.wrappers import Phrases, Task, fixed_offer

Encode = Callable[[Any], NDArray[np.float32]]
MISSION_BUCKETS = 64  # mission words are hashed into so many inputs


class NumericObservation(Task):
    """
    One-hot numbers that say at least what the observation text says: SB3's own MiniGrid recipes lose part of it.

    ``FlatObsWrapper`` drops the compass, ``VecNormalize`` corrupts uint8 observations (SB3 #2163), and raw object ids
    are no magnitudes. Here every id is one-hot, and the compass, the mission's words and the last actions are there. In
    mazes the numbers even show the corners of the window, which the text leaves out.

    :param env: an environment with a ``Discrete`` action space
    :param history: how many past actions the observation tells, or "summary": the text's, as numbers
    :param reward: replaces the environment's reward: ``(state, action, next_state, info) -> float``
    :param sparse: the environment pays only for success
    :param phrases: as in :class:`TextObservation`: which actions are offered, by the names of the text's
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        history: History = 0,
        reward: Reward | None = None,
        sparse: bool = False,
        phrases: Phrases | None = None,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, history=history, reward=reward, sparse=sparse, phrases=phrases)
        super().__init__(env, history, reward, sparse)
        self.offer = fixed_offer(env, phrases)
        self.n_actions = len(self.offer.actions)
        self.action_space = spaces.Discrete(self.n_actions)
        self._encode = _encoder(env)
        self.memory: Memory | MazeMemory | None = None
        self.state = _a_state(env)
        self.began(None)
        self.observation_space = spaces.Box(-np.inf, np.inf, self.observe().shape, np.float32)

    def choose(self, action: int) -> tuple[int, int]:
        """
        :param action: the index of an offered action
        :return: the action of the environment, and the index
        :raises SetupError: if there is no such action
        """
        if not 0 <= action < self.n_actions:
            raise absent(action, self.offer, False)
        return self.offer.actions[action], action

    def observe(self) -> NDArray[np.float32]:
        """:return: float32 of one shape for all states of the task."""
        past = np.zeros((turns_told(self.history), self.n_actions), np.float32)
        for index, turn in enumerate(self.turns):
            past[index, turn] = 1.0
        return np.concatenate((self._encode(self.state), past.ravel(), self._remembered()))

    def began(self, seed: int | None) -> None:
        """Begin a new memory, where a summary is told."""
        if self.history == SUMMARY:
            self.memory = (MazeMemory if isinstance(self.unwrapped, MazeEnv) else Memory)(self.state)

    def stepped(self, action: Any) -> None:
        """Take in a step."""
        if isinstance(self.memory, MazeMemory):
            self.memory.note(self.state)
        elif self.memory is not None:
            self.memory.note(action, self.state)

    def _remembered(self) -> NDArray[np.float32]:
        if isinstance(self.memory, MazeMemory):
            return encode_maze_past(self.memory)
        return np.zeros(0, np.float32) if self.memory is None else encode_past(self.memory)


def make_numeric_env(
    env_id: str,
    *,
    history: History | None = None,
    reward: Reward | None = None,
    render_mode: str | None = None,
    **env_kwargs: Any,
) -> NumericObservation:
    """
    The counterpart of :func:`make_env` for ``MlpPolicy``: the same task, actions, rewards and information, as numbers.

    :param env_id: a Gymnasium id with discrete actions
    :param history: how many past actions the observation tells; by default as many as :func:`make_env`'s text
    :param reward: replaces the reward
    :param render_mode: as in ``gymnasium.make``
    :param env_kwargs: the environment's own keyword arguments
    :return: the environment in a :class:`NumericObservation`
    """
    env = gym_make(env_id, render_mode=render_mode, **env_kwargs)
    family = family_of(env)
    history = family.history if history is None else history
    return NumericObservation(env, history, reward, family.sparse, family.actions)


def _encoder(env: gym.Env[Any, Any]) -> Encode:
    if isinstance(env.unwrapped, MiniGridEnv):
        return _encode_minigrid
    if isinstance(env.unwrapped, MazeEnv):
        size = env.unwrapped.size
        return lambda obs: _encode_maze(obs, size)
    return lambda obs: np.asarray(spaces.flatten(env.observation_space, obs), np.float32)


def _encode_minigrid(obs: dict[str, Any]) -> NDArray[np.float32]:
    things, colors, states = np.moveaxis(np.asarray(obs["image"]), -1, 0)
    parts = [
        _one_hot(things, len(OBJECT_TO_IDX)),
        _one_hot(colors, len(COLOR_TO_IDX)),
        _one_hot(states, len(STATE_TO_IDX)),
        _one_hot(np.array(obs["direction"]), 4),
        bag_of_words(obs["mission"]),
    ]
    return np.concatenate(parts)


def _encode_maze(obs: dict[str, Any], size: int) -> NDArray[np.float32]:
    offset = obs["goal"] - obs["position"] + size - 1  # 0 .. 2 * size - 2
    parts = [
        _one_hot(obs["view"], len(Code)),
        _one_hot(obs["position"], size),
        _one_hot(offset, 2 * size - 1),
    ]
    return np.concatenate(parts)


def _one_hot(values: NDArray[Any], n: int) -> NDArray[np.float32]:
    return np.eye(n, dtype=np.float32)[values.astype(np.int64)].ravel()


def bag_of_words(text: str) -> NDArray[np.float32]:
    """:return: 1 at the bucket of each of a mission's words, shape (MISSION_BUCKETS,)"""
    words = np.zeros(MISSION_BUCKETS, np.float32)
    for word in text.split():
        words[zlib.crc32(word.encode()) % MISSION_BUCKETS] = 1.0
    return words


def _a_state(env: gym.Env[Any, Any]) -> Any:
    """Any observation of the right shape, without a reset that would move the environment's random numbers."""
    if isinstance(env.unwrapped, MazeEnv):
        return env.unwrapped.observe()  # a sampled view may hold no agent
    if not isinstance(env.unwrapped, MiniGridEnv):
        return env.observation_space.sample()
    view = env.unwrapped.agent_view_size
    return {"image": np.ones((view, view, 3), np.uint8), "direction": 0, "mission": ""}
