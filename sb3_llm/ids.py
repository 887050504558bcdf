"""``gymnasium.make`` with errors that say what to do."""

import difflib
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
from gymnasium.error import Error as GymnasiumError

import sb3_llm.envs  # noqa: F401  # registers this project's worlds, so that they can be named as the nearest ids
from sb3_llm.errors import SetupError

#: What minigrid's worlds by wave function collapse need beside minigrid: its extra "wfc".
WFC_PACKAGES = ("networkx", "imageio")


def gym_make(env_id: str, **env_kwargs: Any) -> gym.Env[Any, Any]:
    """
    ``gymnasium.make`` with an error that says what to do.

    :param env_id: a Gymnasium id
    :param env_kwargs: ``render_mode`` and the environment's own keyword arguments
    :return: the environment
    :raises SetupError: if there is no such id, or what it needs is not installed
    """
    _check_wfc_packages(env_id)
    try:
        env = gym.make(env_id, **env_kwargs)
    except (GymnasiumError, ModuleNotFoundError) as error:
        raise _cannot_make(env_id, error) from None
    except TypeError as error:  # Gymnasium's, for an argument that the environment doesn't take
        raise SetupError(
            f"the environment {env_id!r} with {env_kwargs}: {error}",
            "an id, and options of make_env or keyword arguments of the environment",
            "check the spelling of the options",
        ) from error
    if type(env.unwrapped).__module__.startswith("minigrid.envs.wfc"):
        _check_wfc_pattern(env_id, env)
    return env


def _cannot_make(env_id: str, error: Exception) -> SetupError:
    name = _name(env_id)
    if name in gym.registry:
        expected, mend = "an id whose packages are installed", "install what it says, or choose another id"
        return SetupError(f"the environment id {env_id!r}: {error}", expected, mend)
    nearest = difflib.get_close_matches(name, gym.registry, n=3)
    examples = nearest or ["MiniGrid-DoorKey-8x8-v0", "sb3_llm/Maze-v0"]
    return SetupError(
        f"the environment id {env_id!r}: {str(error).partition(' Did you mean')[0]}",
        f"an id that Gymnasium knows, {'of which the nearest are' if nearest else 'such as'} {', '.join(examples)}",
        "check the spelling, install the package it comes from, or name its module as 'module:id'",
    )


def _name(env_id: str) -> str:
    """:return: the id without the module that registers it."""
    return str(env_id).rpartition(":")[2]


def _check_wfc_packages(env_id: str) -> None:
    missing = [name for name in WFC_PACKAGES if find_spec(name) is None]
    if missing and _name(env_id).startswith("MiniGrid-WFC-") and _name(env_id) in gym.registry:
        raise SetupError(
            f"the environment {env_id!r} without {' and '.join(missing)}",
            f"{' and '.join(WFC_PACKAGES)}, which minigrid needs for its WFC worlds alone",
            'pip install "minigrid[wfc]"',
        )


def _check_wfc_pattern(env_id: str, env: gym.Env[Any, Any]) -> None:
    """Say now what would fail at reset only: minigrid 3.2.0's wheel has no images, as its build has no MANIFEST.in."""
    pattern = env.unwrapped.config.pattern_path  # type: ignore[attr-defined]
    if not pattern.exists():
        raise SetupError(
            f"the environment {env_id!r}: minigrid {version('minigrid')} is installed without the image {pattern.name}",
            "the pattern images, which are in minigrid's source and not in what pip installs",
            'pip install -e ".[wfc]" in a clone of Farama-Foundation/Minigrid, or choose another id',
        )
