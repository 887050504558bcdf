"""What RL Zoo's configuration files name: it makes an environment by its id and wraps it by a dotted path."""

from typing import Any

import gymnasium as gym

from sb3_llm.describe.describer import History
from sb3_llm.family import told_as
from sb3_llm.wrappers import Phrases, TextObservation

HOW = ("describe", "candidates", "language", "wording")


def text_observation(
    env: gym.Env[Any, Any],
    phrases: Phrases | None = None,
    history: History | None = None,
    **options: Any,
) -> TextObservation:
    """
    Wrap an environment as ``make_env`` does: RL Zoo's ``env_wrapper: sb3_llm.zoo.text_observation``.

    :param env: an environment with discrete actions, wrapped or not
    :param phrases: as in ``make_env``
    :param history: as in ``make_env``
    :param options: ``describe``, ``candidates``, ``language``, ``wording`` as in ``make_env``, and further ones of
        :class:`TextObservation`, such as ``max_bytes``
    :return: the environment in a :class:`TextObservation`
    :raises SetupError: for an action space that is not discrete, or options that don't fit
    """
    how = {name: options.pop(name) for name in HOW if name in options}
    return TextObservation(env, **(told_as(env, phrases=phrases, history=history, **how) | options))
