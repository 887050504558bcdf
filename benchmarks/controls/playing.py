"""The same numbered episodes for whatever plays them: language models, networks, random actions, experts."""

import contextlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn
from tqdm import tqdm

from sb3_llm import LLMPolicy, make_env
from sb3_llm.benchmarks.controls.numbers import CommonNumbers
from sb3_llm.benchmarks.controls.tasks import Task
from sb3_llm.demos.recording import BuiltInExpert
from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.worded import CANONICAL
from sb3_llm.evaluation import Evaluation, evaluate, wilson_interval
from sb3_llm.ids import gym_make
from sb3_llm.pretrain.stories import time_limit
from sb3_llm.wrappers import TextObservation

FIRST_SEED = 1_000_000  # of the first episode; nothing else in the project uses seeds from here on
N_ENVS = 20  # side by side
THINKING_SECONDS = 10.0  # of an expert in a whole episode; the bot hangs now and then


@dataclass(frozen=True)
class Words:
    """How a world is told."""

    wording: str = CANONICAL
    language: str = "en"
    history: History = SUMMARY


class Episodes(gym.Wrapper[Any, Any, Any, Any]):
    """
    Plays episodes of given seeds, and then stands still, so that the last long episodes of others cost nothing here.

    :param env: an environment
    :param seeds: of its episodes, in order
    """

    def __init__(self, env: gym.Env[Any, Any], seeds: Sequence[int]) -> None:
        super().__init__(env)
        self.seeds, self.begun = tuple(seeds), 0
        self.first: tuple[Any, dict[str, Any]]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """:return: the next episode's first observation; after the last episode, that one's again."""
        if self.begun < len(self.seeds):
            self.first = self.env.reset(seed=self.seeds[self.begun], options=options)
        self.begun += 1
        return self.first

    def step(self, action: Any) -> Any:
        """:return: what the environment says, or nothing new."""
        if self.begun > len(self.seeds):
            return self.first[0], 0.0, False, False, {}
        return self.env.step(action)


def side_by_side(make: Callable[[], gym.Env[Any, Any]], episodes: int) -> VecEnv:
    """
    :param make: an environment
    :param episodes: how many will be played
    :return: environments that play the episodes from :data:`FIRST_SEED` on between them, each once
    """
    n_envs, seeds = min(N_ENVS, episodes), range(FIRST_SEED, FIRST_SEED + episodes)
    # SB3's evaluate_policy gives an environment's successor as many episodes as it has, or one more.
    shares = [seeds[n_envs - 1 - index :: n_envs] for index in range(n_envs)]
    return DummyVecEnv([partial(_monitored, make, share) for share in shares])


def _monitored(make: Callable[[], gym.Env[Any, Any]], seeds: Sequence[int]) -> gym.Env[Any, Any]:
    return Monitor(Episodes(make(), seeds))


class RandomPlayer:
    """
    Chooses among the phrases that are offered, each as likely as the others.

    :param n_actions: how many those are
    :param seed: of the choices
    """

    def __init__(self, n_actions: int, seed: int = FIRST_SEED) -> None:
        self.n_actions, self.rng = n_actions, np.random.default_rng(seed)

    def predict(self, observation: Any, **_: Any) -> tuple[NDArray[np.int64], None]:
        """:return: actions, and no state."""
        return self.rng.integers(self.n_actions, size=len(observation)), None


class ClonedPlayer:
    """
    Samples from a network's distribution over the actions that are offered.

    :param network: from numbers to logits
    :param offered: which of its actions the world offers
    """

    def __init__(self, network: nn.Module, offered: Sequence[int]) -> None:
        self.network, self.offered = network, list(offered)

    @torch.no_grad()
    def predict(self, observation: NDArray[np.float32], **_: Any) -> tuple[NDArray[np.int64], None]:
        """:return: actions, and no state."""
        logits = self.network(torch.from_numpy(observation))
        shut = torch.full_like(logits, -torch.inf)
        shut[:, self.offered] = logits[:, self.offered]
        return torch.distributions.Categorical(logits=shut).sample().numpy(), None


def play_model(model: Any, env: VecEnv, episodes: int, title: str) -> dict[str, Any]:
    """
    :param model: with ``predict``, as SB3's policies have it
    :param env: of :func:`side_by_side`
    :param episodes: how many
    :param title: of the bar
    :return: what came of it
    """
    torch.manual_seed(zlib.crc32(title.encode()))
    with tqdm(total=episodes, desc=title, unit="episode") as bar:
        found = asdict(evaluate(model, env, episodes, greedy=False, on_episode=bar.update))
    env.close()
    return found


def play_lm(task: Task, episodes: int, model: str, words: Words, title: str) -> dict[str, Any]:
    """:return: what a language model does that was not tuned, sampled from its softmax over the phrases."""
    env = side_by_side(lambda: make_env(task.env_id, **task.env_kwargs, **asdict(words)), episodes)
    policy = LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=model)
    return play_model(policy, env, episodes, title)


def play_random(task: Task, episodes: int, title: str) -> dict[str, Any]:
    """:return: what random phrases do; it needs no memory told, which would cost most of the time."""
    env = side_by_side(lambda: make_env(task.env_id, **task.env_kwargs, history=0), episodes)
    return play_model(RandomPlayer(env.action_space.n), env, episodes, title)  # type: ignore[attr-defined]


def play_network(task: Task, episodes: int, network: nn.Module, title: str) -> dict[str, Any]:
    """:return: what a cloned network does."""

    def make() -> CommonNumbers:
        return CommonNumbers(gym_make(task.env_id, **task.env_kwargs))

    env = side_by_side(make, episodes)
    return play_model(ClonedPlayer(network, make().offered), env, episodes, title)


def play_expert(task: Task, episodes: int, use_bot: bool, title: str) -> dict[str, Any]:
    """:return: what the planner does, or BabyAI's bot; where it breaks or hangs, the episode is lost."""
    env_id = task.level if use_bot and task.level else task.env_id
    return play_built_in(env_id, task.env_kwargs, episodes, use_bot, title)


def play_built_in(env_id: str, env_kwargs: dict[str, Any], episodes: int, use_bot: bool, title: str) -> dict[str, Any]:
    """:return: as :func:`play_expert`, in any world."""
    env, expert = make_env(env_id, **env_kwargs, history=0), BuiltInExpert(use_bot)  # it has its own memory
    ends = [_play_episode(env, expert, FIRST_SEED + n) for n in tqdm(range(episodes), desc=title, unit="episode")]
    won = [end is not None and end[0] for end in ends]
    whole = [end for end in ends if end is not None]
    returns = [end[1] for end in whole] or [0.0]
    found = Evaluation(
        policy="planner" if not use_bot else "bot",
        episodes=episodes,
        success=fmean(won),
        success_interval=wilson_interval(sum(won), episodes),
        mean_return=fmean(returns),
        std_return=stdev(returns) if len(returns) > 1 else 0.0,
        mean_length=fmean([end[2] for end in whole] or [0.0]),
        spl=None,
    )
    return asdict(found) | {"broken": episodes - len(whole), "env_id": env_id}


def _play_episode(env: TextObservation, expert: BuiltInExpert, seed: int) -> tuple[bool, float, int] | None:
    """Success, return and length; None if the expert broke: the bot does so in many ways."""
    total, length = 0.0, 0
    env.reset(seed=seed)
    with contextlib.suppress(Exception), time_limit(THINKING_SECONDS):
        expert.begin(env)
        while not env.ended:
            _, reward, _, _, info = env.step(expert(env))
            total, length = total + float(reward), length + 1
        return bool(info["is_success"]), total, length
    return None
