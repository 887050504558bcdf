"""Wrappers that show a world to a player: only some actions, masks, a mission in other words, the text as a vector."""

from collections.abc import Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_llm import LLMPolicy
from sb3_llm.benchmarks.controls.numbers import CELLS, GRID, PLANES
from sb3_llm.describe.worded import draw
from sb3_llm.envs.layout import open_directions
from sb3_llm.numeric import MISSION_BUCKETS, bag_of_words

COMPASS = 4
MISSION_FROM = CELLS * sum(PLANES[GRID]) + COMPASS  # where a mission's words stand in a MiniGrid world's numbers
MISSION = slice(MISSION_FROM, MISSION_FROM + MISSION_BUCKETS)


class Offered(gym.ActionWrapper[Any, Any, Any]):
    """
    Only some of the actions, numbered anew.

    :param env: an environment
    :param offered: its actions
    """

    def __init__(self, env: gym.Env[Any, Any], offered: Sequence[int]) -> None:
        super().__init__(env)
        self.offered = list(offered)
        self.action_space = spaces.Discrete(len(self.offered))

    def action(self, action: int) -> int:
        """:return: the environment's own number."""
        return self.offered[int(action)]


class Reworded(gym.Wrapper[Any, Any, Any, Any]):
    """
    A mission in a wording's words, of which a network's numbers hold all; the rest of them stays, memory included.

    :param env: a MiniGrid world in numbers
    :param wording: one of :data:`sb3_llm.describe.worded.WORDINGS`, drawn anew for every episode as for the text
    """

    def __init__(self, env: gym.Env[Any, Any], wording: str) -> None:
        super().__init__(env)
        self.wording, self.rng = wording, np.random.default_rng()
        self.said = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """:return: an episode's first numbers; a seed restarts the draws of wordings too."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        numbers, info = self.env.reset(seed=seed, options=options)
        world: Any = self.env.unwrapped
        self.said = draw(self.wording, "en", self.rng).mission(world.mission)
        return self._told(numbers), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """:return: as the environment's, the mission in the episode's words."""
        numbers, reward, terminated, truncated, info = self.env.step(action)
        return self._told(numbers), reward, terminated, truncated, info

    def _told(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        told = numbers.copy()
        told[MISSION] = bag_of_words(self.said)
        return told


def open_ways(env: gym.Env[Any, Any]) -> NDArray[np.bool_]:
    """:return: true for each step in a maze that no wall blocks, shape (4,)"""
    maze: Any = env.unwrapped
    return np.isin(np.arange(4), open_directions(maze.walls, maze.position))


class TextVectors(VecEnvWrapper):
    """
    Observation texts as what a frozen language model makes of their prompts: its last hidden state.

    :param venv: of text
    :param model: of the language model
    """

    def __init__(self, venv: VecEnv, model: str = "embedded") -> None:
        self.reader = LLMPolicy(venv.observation_space, venv.action_space, lambda _: 0.0, model=model, finetune="head")
        width = self.reader.lm.config.hidden_size
        self.read: list[torch.Tensor] = []
        self.reader.value_net.register_forward_pre_hook(lambda _, given: self.read.append(given[0]))
        super().__init__(venv, spaces.Box(-np.inf, np.inf, (width,), np.float32))

    def reset(self) -> VecEnvObs:
        """:return: vectors of the first observations."""
        return self._read(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as the environments', with vectors; the last observation of an episode too."""
        obs, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self._read(info["terminal_observation"][None])[0]
        return self._read(obs), rewards, dones, infos

    @torch.no_grad()
    def _read(self, obs: Any) -> NDArray[np.float32]:
        self.reader.predict_values(torch.as_tensor(obs))  # the value head gets the hidden state that is wanted here
        return self.read.pop().numpy().astype(np.float32)
