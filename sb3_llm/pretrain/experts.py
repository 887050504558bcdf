"""Experts that stories are told by: each says what to do next, and sees no more than a walker in the world can know."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv
from minigrid.utils.baby_ai_bot import BabyAIBot

from sb3_llm.describe.actions import KEYS
from sb3_llm.describe.maze_memory import MazeMemory
from sb3_llm.describe.memory import Memory
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.pretrain.planner import Planner
from sb3_llm.words.mission import parse


class Expert(ABC):
    """Plays along: it is told of every step, also of those that it did not choose."""

    @abstractmethod
    def advice(self) -> tuple[str, str]:
        """:return: the key of the action to take now, and what it is for: a mission in English, or other words."""

    @abstractmethod
    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step: the environment's number of the action, and what was seen after it."""


class MazeExpert(Expert):
    """Tries the most promising cell that was seen and not walked; never lost in a maze without loops."""

    def __init__(self, obs: Mapping[str, Any]) -> None:
        self.memory = MazeMemory(obs)

    def advice(self) -> tuple[str, str]:
        """:return: a direction's key."""
        return self.memory.untried()[0].direction, "reach the goal"

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step."""
        self.memory.note(obs)


class PlanningExpert(Expert):
    """The planner over its own memory: for every MiniGrid and BabyAI world whose mission is understood."""

    def __init__(self, obs: Mapping[str, Any], says_done: bool) -> None:
        mission = parse(obs["mission"])
        if mission is None:
            raise SetupError(
                f"the mission {obs['mission']!r}", "a mission of MiniGrid, BabyAI or this project", "plan it yourself"
            )
        says_done = says_done or getattr(mission, "done", False)
        self.memory, self.planner = Memory(obs), Planner(mission, says_done)

    def advice(self) -> tuple[str, str]:
        """:return: an action's key."""
        return self.planner.action(self.memory)

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step."""
        self.memory.note(action, obs)


class BotExpert(Expert):
    """The BabyAI bot that ships with minigrid; it re-plans from the action really taken."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.bot = BabyAIBot(env)
        self.taken: int | None = None

    def advice(self) -> tuple[str, str]:
        """:return: an action's key."""
        return KEYS[int(self.bot.replan(self.taken))], ""

    def note(self, action: int, obs: Mapping[str, Any]) -> None:
        """Take in a step."""
        self.taken = action


def make_expert(env: gym.Env[Any, Any], obs: Mapping[str, Any], use_bot: bool = False) -> Expert:
    """
    :param env: a MiniGrid or BabyAI world or a maze, just reset
    :param obs: its first observation
    :param use_bot: the BabyAI bot, for BabyAI levels
    :return: its expert
    :raises SetupError: for another environment, or a mission nobody understands
    """
    inner = env.unwrapped
    if isinstance(inner, MazeEnv):
        return MazeExpert(obs)
    if not isinstance(inner, MiniGridEnv):
        raise SetupError(f"{env}", "a MiniGrid or BabyAI world, or a maze", "write an expert of your own")
    return BotExpert(inner) if use_bot else PlanningExpert(obs, ends_by_done(inner))


def ends_by_done(env: MiniGridEnv) -> bool:
    """:return: whether arriving is not enough, though no mission says so: the action "done" ends the episode."""
    return type(env).__name__ in ("GoToDoorEnv", "GoToObjectEnv")
