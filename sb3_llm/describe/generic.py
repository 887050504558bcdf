"""Any numeric observation in words: numbers as short text, in the order and under the names the space gives them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_llm.errors import SetupError

MAX_NUMBERS = 256  # beyond this, a list of numbers is no text that a language model could read


def generic_describer(space: spaces.Space) -> Callable[[Any], str]:
    """
    A describer for observations of a numeric space.

    :param space: ``Box``, ``Discrete``, ``MultiDiscrete``, ``MultiBinary``, or a ``Dict`` or ``Tuple`` of such
    :return: a function from one observation to its observation text
    :raises SetupError: if the space holds text (SB3 can't carry that) or too many numbers to be read as words
    """
    if count_numbers(space) > MAX_NUMBERS:
        raise SetupError(
            f"an observation of {count_numbers(space)} numbers in {_short(space)}",
            f"at most {MAX_NUMBERS} numbers for the generic describer",
            "pass describe=, a function from an observation to a str, to make_env",
        )
    return lambda obs: f"Observation: {_say(space, obs)}."


def count_numbers(space: spaces.Space) -> int:
    """
    :param space: an observation space
    :return: how many numbers one observation holds
    :raises SetupError: if a part of it is no space of numbers
    """
    if isinstance(space, spaces.Dict):
        return sum(count_numbers(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return sum(count_numbers(part) for part in space.spaces)
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise SetupError(
        f"the observation space {_short(space)}, which holds text or no fixed numbers",
        "numbers, or text carried by a TextSpace",
        'use make_env("ENV-ID"), or TextObservation(env, describe=...), which turn observations into text that '
        "Stable-Baselines3 can carry",
    )


def _say(space: spaces.Space, obs: Any) -> str:
    if isinstance(space, spaces.Dict):
        return "; ".join(f"{name} {_say(part, obs[name])}" for name, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return "; ".join(_say(part, value) for part, value in zip(space.spaces, obs, strict=True))
    return ", ".join(_number(value) for value in np.asarray(obs).ravel().tolist())


def _number(value: float) -> str:
    """Three significant digits: enough to act on, and few tokens."""
    return f"{value:.3g}" if isinstance(value, float) else str(int(value))


def _short(space: spaces.Space) -> str:
    text = repr(space)
    return text if len(text) <= 120 else f"{text[:117]}..."
