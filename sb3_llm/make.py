"""``make_env`` and ``make_vec_env``: an environment by its id, with the describer and the phrases that suit it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.error import Error as GymnasiumError
from minigrid.minigrid_env import MiniGridEnv
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_llm.candidates import DEFAULT_SLOTS, Candidates
from sb3_llm.describe.maze import describe_maze, describe_maze_map
from sb3_llm.describe.minigrid import PHRASES as MINIGRID_PHRASES
from sb3_llm.describe.minigrid import describe_minigrid
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.rewards import Reward
from sb3_llm.spaces import DEFAULT_MAX_BYTES
from sb3_llm.wrappers import Describe, TextObservation


@dataclass(frozen=True)
class Family:
    """How environments of one kind are put into words."""

    describe: Describe | None = None  # None: numbers are told as numbers
    phrases: tuple[str, ...] | None = None  # None: the environment's own, else "action 0", ...
    history: int = 0  # past turns in the text; one is enough not to turn back and forth for ever
    sparse: bool = False  # a positive reward at the end means success


def family_of(env: gym.Env[Any, Any]) -> Family:
    """
    :param env: any environment
    :return: the describer, phrases and history that suit it
    """
    inner = env.unwrapped
    if isinstance(inner, MiniGridEnv):
        n_actions = int(getattr(inner.action_space, "n", 0))  # Dynamic-Obstacles has only the first three
        return Family(describe_minigrid, MINIGRID_PHRASES[:n_actions], history=1, sparse=True)
    if isinstance(inner, MazeEnv):
        return Family(describe_maze_map if inner.view == "full" else describe_maze, history=1)
    if isinstance(inner, FrozenLakeEnv):
        return Family(phrases=("left", "down", "right", "up"), sparse=True)
    return Family()


def make_env(
    env_id: str,
    *,
    describe: Describe | None = None,
    phrases: Sequence[str] | None = None,
    history: int | None = None,
    reward: Reward | None = None,
    render_mode: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    candidates: Candidates | None = None,
    slots: int = DEFAULT_SLOTS,
    **env_kwargs: Any,
) -> TextObservation:
    """
    Make a registered environment whose observations are text and whose actions are phrases.

    :param env_id: a Gymnasium id with discrete actions, "module:id" included; with ``candidates``, with any
    :param describe: a callable from the environment's observation to a str; by default one that suits the environment
    :param phrases: the words of each action, in action order; by default those that suit the environment
    :param history: how many past turns the text tells; by default one for MiniGrid, BabyAI and mazes, else none
    :param reward: replaces the reward: ``(state, action, next_state, info) -> float``
    :param render_mode: as in ``gymnasium.make``
    :param max_bytes: how long an observation text, with its phrases, can be in UTF-8 bytes
    :param candidates: instead of ``phrases``: ``(obs, info)`` -> the phrases possible now, as a mapping to the
        environment's actions or, if they are its actions themselves, as a list
    :param slots: with ``candidates``, how many phrases one state can offer, at most 64
    :param env_kwargs: the environment's own keyword arguments
    :return: the environment in a :class:`TextObservation`
    :raises SetupError: for an unknown id, an action space that is not discrete, or options that don't fit
    """
    env = gym_make(env_id, render_mode=render_mode, **env_kwargs)
    family = family_of(env)
    if phrases is None and candidates is None:
        phrases = family.phrases
    return TextObservation(
        env,
        describe=describe or family.describe,
        phrases=phrases,
        history=family.history if history is None else history,
        reward=reward,
        sparse=family.sparse,
        max_bytes=max_bytes,
        candidates=candidates,
        slots=slots,
    )


def gym_make(env_id: str, **env_kwargs: Any) -> gym.Env[Any, Any]:
    """
    ``gymnasium.make`` with an error that says what to do.

    :param env_id: a Gymnasium id
    :param env_kwargs: ``render_mode`` and the environment's own keyword arguments
    :return: the environment
    :raises SetupError: if there is no such id, or its module can't be imported
    """
    try:
        return gym.make(env_id, **env_kwargs)
    except (GymnasiumError, ModuleNotFoundError) as error:
        raise SetupError(
            f"the environment id {env_id!r}: {error}",
            "an id that Gymnasium knows, such as 'MiniGrid-DoorKey-8x8-v0' or 'sb3_llm/Maze-v0'",
            "check the spelling, install the package it comes from, or name its module as 'module:id'",
        ) from None
    except TypeError as error:  # Gymnasium's, for an argument that the environment doesn't take
        raise SetupError(
            f"the environment {env_id!r} with {env_kwargs}: {error}",
            "an id, and options of make_env or keyword arguments of the environment",
            "check the spelling of the options",
        ) from error


def make_vec_env(
    env_id: str,
    n_envs: int = 8,
    seed: int | None = None,
    *,
    vec_env_cls: type[DummyVecEnv] | type[SubprocVecEnv] | None = None,
    **options: Any,
) -> VecEnv:
    """
    Several of :func:`make_env`'s environments side by side, each in SB3's ``Monitor``.

    :param env_id: a Gymnasium id with discrete actions
    :param n_envs: how many
    :param seed: seeds the first environment; the others get seed + 1, seed + 2, ...
    :param vec_env_cls: ``DummyVecEnv`` by default: stepping is cheap beside the language model
    :param options: as in :func:`make_env`
    :return: a vectorised environment
    :raises SetupError: as :func:`make_env`
    """
    return sb3_make_vec_env(
        lambda: make_env(env_id, **options),
        n_envs=n_envs,
        seed=seed,
        vec_env_cls=vec_env_cls,
    )
