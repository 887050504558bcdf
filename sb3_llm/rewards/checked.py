"""Reward functions of the user: their type, and the check that each value they return is a usable number."""

import math
import numbers
from collections.abc import Callable
from typing import Any

from sb3_llm.errors import SetupError

#: ``(state, action, next_state, info) -> float``; states and action are the environment's own.
Reward = Callable[[Any, Any, Any, dict[str, Any]], float]


def checked_reward(value: Any) -> float:
    """
    Turn what a reward function returned into a float, or say what is wrong with it.

    :param value: the returned object
    :return: the same number as a Python float
    :raises SetupError: if it is no real number, NaN or infinite
    """
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise SetupError(
            f"the reward function returned {value!r} ({type(value).__name__})",
            "a finite number from reward(state, action, next_state, info)",
            "return a float on every path of the function, such as 0.0 where nothing is paid",
        )
    return float(value)
