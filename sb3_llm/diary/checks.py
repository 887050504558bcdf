"""What callbacks that play in worlds of their own refuse, before training."""

import importlib
from functools import partial
from typing import Any, cast

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_llm.demos.recording import require_text
from sb3_llm.diary.playing import Make
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env
from sb3_llm.wrappers import TextObservation


def maker(make: Any) -> Make:
    """
    :param make: an environment's id, or a callable
    :return: a callable that makes the environment
    :raises SetupError: if it is something else
    """
    if isinstance(make, str):
        return partial(make_env, make)
    if not callable(make):
        mend = "pass the training's environment id, or lambda: make_env(...)"
        raise SetupError(f"make={make!r}", "an environment's id, or a callable that makes a TextObservation", mend)
    return cast(Make, make)


def require_matplotlib() -> None:
    """:raises SetupError: if figures can't be drawn"""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        mend = "pip install 'sb3_llm[benchmarks]', or pass figures=False"
        raise SetupError("Diary with figures, without matplotlib", "matplotlib", mend) from None


def checked_world(who: str, make: Make, model: BaseAlgorithm) -> TextObservation:
    """
    :param who: plays there
    :param make: makes an environment
    :param model: that is trained
    :return: a new environment
    :raises SetupError: if it is not one of text and phrases, and new, and like the training's
    """
    world, other = make(), make()
    require_text(world)
    if world.unwrapped is other.unwrapped:  # perhaps the very one that training plays in
        mend = 'pass make=lambda: make_env("...")'
        raise SetupError("a make= that returns the same environment again", "a new one at each call", mend)
    other.close()
    mine, trained = ((each.observation_space, each.action_space) for each in (world, model))
    if mine != trained:
        given, expected = (f"{each[0]!r} and {each[1]!r}" for each in (mine, trained))
        mend = "make both environments by make_env with the same options"
        raise SetupError(f"{who} in {given}", f"as in the training, {expected}", mend)
    return world
