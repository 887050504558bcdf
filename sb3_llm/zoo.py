"""What RL Zoo's configuration files name: it makes an environment by its id and wraps it by a dotted path."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from sb3_llm.make import family_of
from sb3_llm.wrappers import TextObservation


def text_observation(
    env: gym.Env[Any, Any],
    phrases: Sequence[str] | None = None,
    history: int | None = None,
    **options: Any,
) -> TextObservation:
    """
    Wrap an environment as ``make_env`` does: RL Zoo's ``env_wrapper: sb3_llm.zoo.text_observation``.

    :param env: an environment with discrete actions, wrapped or not
    :param phrases: the words of each action; by default those that suit the environment
    :param history: how many past turns the text tells; by default as many as suit the environment
    :param options: further ones of :class:`TextObservation`, such as ``max_bytes``
    :return: the environment in a :class:`TextObservation`
    :raises SetupError: for an action space that is not discrete, or options that don't fit
    """
    family = family_of(env)
    fitting = {"describe": family.describe, "sparse": family.sparse} | options
    if phrases is None and "candidates" not in options:
        phrases = family.phrases
    return TextObservation(env, phrases=phrases, history=family.history if history is None else history, **fitting)
