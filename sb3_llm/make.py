"""``make_env`` and ``make_vec_env``: an environment by its id, with the describer and the phrases that suit it."""

from typing import Any

import gymnasium as gym
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_llm.candidates import DEFAULT_SLOTS, Candidates
from sb3_llm.describe.describer import Describer, History
from sb3_llm.describe.textworld import describe_textworld
from sb3_llm.describe.worded import CANONICAL
from sb3_llm.envs.textworld_games import textworld_candidates, textworld_env
from sb3_llm.family import told_as
from sb3_llm.ids import gym_make
from sb3_llm.rewards import Reward
from sb3_llm.spaces import DEFAULT_MAX_BYTES
from sb3_llm.wrappers import Describe, Phrases, TextObservation

TEXTWORLD = "textworld:"  # before the name of a kind of text game
DIALOGUE = "sb3_llm/Dialogue-v0"  # takes the language itself


def make_env(
    env_id: str,
    *,
    describe: Describe | Describer | None = None,
    phrases: Phrases | None = None,
    history: History | None = None,
    language: str = "en",
    wording: str = CANONICAL,
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
    :param phrases: other words for the actions that are offered by default, in their order, or for all that the
        environment has; or a mapping from phrases to the environment's actions, which offers those alone. By default
        those that suit the environment, in MiniGrid without actions that do nothing (``envs/README.md`` lists them)
    :param history: what the text tells of the past: the last k actions, or "summary" of all the agent saw and did: how
        often it was here, ways to what it knows, openings not yet tried. By default the summary in MiniGrid, BabyAI and
        mazes, the last action there with a callable of your own as describe, and nothing elsewhere
    :param language: "en" or "zh", for MiniGrid, BabyAI, mazes and the dialogue
    :param wording: how things are said in MiniGrid, BabyAI and mazes: "canonical"; "drawn", anew for every episode, so
        that a policy does not overfit one way to say it; or one that the embedded model never read, such as
        "held-out phrases" (:data:`sb3_llm.describe.worded.WORDINGS`)
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
    if str(env_id).startswith(TEXTWORLD):
        env: gym.Env[Any, Any] = textworld_env(env_id.removeprefix(TEXTWORLD), render_mode=render_mode, **env_kwargs)
        describe, candidates = describe or describe_textworld, candidates or textworld_candidates
    else:
        spoken = {"language": language} if str(env_id).endswith(DIALOGUE) else {}
        env = gym_make(env_id, render_mode=render_mode, **spoken, **env_kwargs)
    told = told_as(env, describe, phrases, history, language, wording, candidates)
    return TextObservation(env, **({"slots": slots} | told), reward=reward, max_bytes=max_bytes)


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
