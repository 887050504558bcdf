"""Whoever plays: makes a model for a cell, and the worlds that it is trained and tested in."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm import LLMPolicy, export, make_env
from sb3_llm.benchmarks.controls.cloning import kept_network
from sb3_llm.benchmarks.controls.fresh import fresh_weights
from sb3_llm.benchmarks.controls.numbers import CommonNumbers, kind_of
from sb3_llm.benchmarks.controls.playing import RandomPlayer, play_built_in, side_by_side
from sb3_llm.benchmarks.suite.config import Cell
from sb3_llm.benchmarks.suite.networks import EXTRACTORS, ClonedTrunk, take_over
from sb3_llm.benchmarks.suite.worlds import Offered, Reworded, TextVectors, open_ways
from sb3_llm.evaluation import Evaluation, Masked, evaluate
from sb3_llm.ids import gym_make
from sb3_llm.numeric import make_numeric_env
from sb3_llm.runs import Run

N_ENVS = 16  # side by side, in training
DEMONSTRATIONS = 200_000  # corpus lines that networks are cloned from: all that the embedded model read
#: What generalisation is tested on: keywords of the test world that differ from what was trained on.
AXES: dict[str, dict[str, Any]] = {
    **{axis: {"wording": f"held-out {axis}"} for axis in ("phrases", "nouns", "colors", "missions", "templates")},
    "zh": {"language": "zh"},
    "layouts-of-training": {"split": "train"},
    "size-8": {"size": 8, "max_episode_steps": 256},
    "wilson": {"generator": "wilson"},
    "kruskal": {"generator": "kruskal"},
}
MAZES = ("layouts-of-training", "size-8", "wilson", "kruskal")  # what needs no words
IN_MISSIONS = ("nouns", "colors", "missions")  # other words that numbers hold too: a mission's, and no others are there


class Player(ABC):
    """
    What a method needs on a task.

    :param cell: which
    :param work: folder for what several cells share
    """

    def __init__(self, cell: Cell, work: Path) -> None:
        self.cell, self.work, self.method = cell, work, cell.method
        self.kwargs = cell.task.env_kwargs | cell.method.env_kwargs
        self.test_kwargs = cell.task.test_kwargs | cell.method.env_kwargs

    @abstractmethod
    def make(self) -> Any:
        """:return: a model with ``predict`` and, if it trains, ``learn``."""

    @abstractmethod
    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        """:return: the task's world in the form that the player reads."""

    def test_env(self, episodes: int, **other: Any) -> VecEnv:
        """:return: worlds that play the test episodes once each."""
        return side_by_side(self._making(self.test_kwargs | other), episodes)

    def test(self, model: Any, episodes: int, greedy: bool) -> Evaluation:
        """:return: how it does in the first test episodes."""
        return play(model, self.test_env(episodes), episodes, greedy, self.cell.seed)

    def generalise(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        """:return: how it does where one thing differs, sampled; None if it can't play there."""
        return None

    def generalise_numbers(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        """:return: as ``generalise``, of a network that reads numbers; None where these are no others."""
        if axis in MAZES:
            env = self.test_env(episodes, **AXES[axis])
        elif axis in IN_MISSIONS:
            env = side_by_side(lambda: Reworded(self.world(self.test_kwargs), AXES[axis]["wording"]), episodes)
        else:
            return None
        return play(model, env, episodes, False, self.cell.seed)

    def _run(self, policy_kwargs: dict[str, Any], policy: str = "mlp", model: str = "embedded") -> Run:
        method = self.method
        own = self.kwargs, policy_kwargs, method.settings
        return Run(self.cell.task.env_id, method.algorithm, policy, model, self.cell.seed, N_ENVS, *own)

    def _making(self, kwargs: dict[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
        return lambda: self.world(kwargs)


class LanguageModel(Player):
    """A language model as the policy."""

    def make(self) -> Any:
        model = self.method.model
        if model == "fresh":
            self.fresh = tempfile.TemporaryDirectory()  # for as long as this is
            model = fresh_weights("embedded", Path(self.fresh.name), self.cell.seed)
        run = self._run(self.method.policy_kwargs, "llm", model)
        return run.make_model(sb3_make_vec_env(self._making(self.kwargs), run.n_envs, run.seed))

    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        env = make_env(self.cell.task.env_id, **kwargs)
        return ActionMasker(env, open_ways) if self.method.algorithm == "maskable_ppo" else env

    def test(self, model: Any, episodes: int, greedy: bool) -> Evaluation:
        env = self.test_env(episodes)
        player = Masked(model, env) if isinstance(model, MaskablePPO) else model
        return play(player, env, episodes, greedy, self.cell.seed)

    def generalise(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        """Another wording is another space of texts and phrases, so the tuned weights go into a policy of its own."""
        env = self.test_env(episodes, **AXES[axis])
        with tempfile.TemporaryDirectory() as folder:
            export(model, folder)
            policy = LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=folder)
        return play(policy, env, episodes, False, self.cell.seed)


class Network(Player):
    """SB3's MlpPolicy over numbers, with its own features or with others."""

    def make(self) -> Any:
        method = self.method
        kwargs = dict(method.policy_kwargs)
        if method.extractor is not None:
            kwargs |= {"features_extractor_class": EXTRACTORS[method.extractor], "net_arch": [64]}
        run = self._run(kwargs)
        return run.make_model(sb3_make_vec_env(self._making(self.kwargs), run.n_envs, run.seed))

    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        return make_numeric_env(self.cell.task.env_id, **kwargs)

    def generalise(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        return None if axis == "size-8" else self.generalise_numbers(model, axis, episodes)


class Cloned(Player):
    """A network cloned from the language model's own stories."""

    def __init__(self, cell: Cell, work: Path) -> None:
        super().__init__(cell, work)
        assert self.method.network is not None
        self.network, _ = kept_network(work, self.method.network, self._kind(), DEMONSTRATIONS)

    def make(self) -> Any:
        method, env = self.method, sb3_make_vec_env(self._making(self.kwargs), N_ENVS, self.cell.seed)
        extractor = {"network": method.network, "kind": self._kind()}
        kwargs = {
            "features_extractor_class": ClonedTrunk,
            "features_extractor_kwargs": extractor,
            "net_arch": [],
        }
        model = self._run(kwargs).make_model(env)
        take_over(model.policy, self.network, self._world(self.kwargs).offered)
        return model

    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        return self._world(kwargs)

    def generalise(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        return self.generalise_numbers(model, axis, episodes)

    def _world(self, kwargs: dict[str, Any]) -> Offered:
        numbers = CommonNumbers(gym_make(self.cell.task.env_id, **kwargs))
        return Offered(numbers, numbers.offered)

    def _kind(self) -> str:
        return kind_of(gym_make(self.cell.task.env_id, **self.kwargs))


class TextEmbedding(Player):
    """An MLP over what the frozen language model makes of the prompt."""

    def make(self) -> Any:
        run = self._run({})
        return run.make_model(TextVectors(sb3_make_vec_env(self._making(self.kwargs), run.n_envs, run.seed)))

    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        return make_env(self.cell.task.env_id, **kwargs)

    def test_env(self, episodes: int, **other: Any) -> VecEnv:
        return TextVectors(super().test_env(episodes, **other))

    def generalise(self, model: Any, axis: str, episodes: int) -> Evaluation | None:
        env = self.test_env(episodes, **AXES[axis])
        return play(model, env, episodes, False, self.cell.seed)


class Random(Player):
    """Each phrase that is offered is as likely as the others."""

    def make(self) -> Any:
        n_actions: int = self.world(self.kwargs).action_space.n  # type: ignore[attr-defined]
        return RandomPlayer(n_actions, self.cell.seed)

    def world(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        return make_env(self.cell.task.env_id, **kwargs, history=0)  # a memory would cost most of the time


class Expert(Random):
    """The planner whose stories the language model read; it has its own memory too."""

    def make(self) -> Any:
        return None

    def test(self, model: Any, episodes: int, greedy: bool) -> Evaluation:
        found = play_built_in(self.cell.task.env_id, self.test_kwargs, episodes, False, self.cell.key)
        return Evaluation(**{name: found[name] for name in Evaluation.__dataclass_fields__})


def play(model: Any, env: VecEnv, episodes: int, greedy: bool, seed: int) -> Evaluation:
    """:return: how a model does; torch's random numbers are those of the seed, and as before when it has ended."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = evaluate(model, env, episodes, greedy)
    env.close()
    return found


PLAYERS: dict[str, type[Player]] = {
    "language_model": LanguageModel,
    "network": Network,
    "cloned": Cloned,
    "text_embedding": TextEmbedding,
    "random": Random,
    "expert": Expert,
}
