"""What a diary refuses, before training."""

import importlib
from functools import partial
from typing import Any, cast

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_llm.core import LanguageModelCore
from sb3_llm.demos.recording import require_text
from sb3_llm.diary.playing import Make
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env
from sb3_llm.spaces import is_whole
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


def whole(name: str, value: Any, least: int = 1) -> int:
    """
    :param name: of an argument
    :param value: that was given
    :param least: that it can be
    :return: the same
    :raises SetupError: if it is no whole number, or too small
    """
    if not is_whole(value) or value < least:
        raise SetupError(f"{name}={value!r}", f"a whole number, {least} or more", f"leave {name} out")
    return int(value)


def require_matplotlib() -> None:
    """:raises SetupError: if figures can't be drawn"""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        mend = "pip install 'sb3_llm[benchmarks]', or pass figures=False"
        raise SetupError("Diary with figures, without matplotlib", "matplotlib", mend) from None


def require_language_model(policy: Any) -> None:
    """:raises SetupError: if a policy is none"""
    if not isinstance(policy, LanguageModelCore):
        raise SetupError(
            f"Diary with a {type(policy).__name__}",
            "a policy that is a language model: LLMPolicy, or MaskableLLMPolicy with MaskablePPO",
            "leave the callback out, or train PPO(LLMPolicy, env)",
        )


def checked_world(make: Make, model: BaseAlgorithm) -> TextObservation:
    """
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
        mend = "make the diary's environment like the training's, both by make_env with the same options"
        raise SetupError(f"a diary in {given}", f"as in the training, {expected}", mend)
    return world
