"""How good a policy is: success with an interval, return, length, and how direct its paths are."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

from rich.table import Table
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """What a number of episodes showed."""

    policy: str  # "sampled" or "greedy"
    episodes: int
    success: float | None  # share of episodes; None where the environment does not say what success is
    success_interval: Interval | None  # 95 %, Wilson
    mean_return: float
    std_return: float
    mean_length: float  # steps
    spl: float | None  # success weighted by path length, where the shortest path is known


def evaluate(
    model: Any, env: VecEnv, episodes: int, greedy: bool, on_episode: Callable[[], None] = lambda: None
) -> Evaluation:
    """
    Play whole episodes with a policy as it stands.

    :param model: any SB3 model, or a policy
    :param env: vectorised and monitored, as :func:`sb3_llm.make_vec_env` makes it; seed it beforehand
    :param episodes: how many in all, shared out evenly so that short ones are not favoured
    :param greedy: take the likeliest action instead of a sampled one
    :param on_episode: called at each episode's end, to show progress
    :return: the figures
    """
    ends: list[dict[str, Any]] = []

    def note_end(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            ends.append(local["info"])
            on_episode()

    played: Any = evaluate_policy(
        model, env, episodes, deterministic=greedy, return_episode_rewards=True, callback=note_end
    )
    returns, lengths = played
    successes = [bool(end["is_success"]) for end in ends if "is_success" in end]
    known = len(successes) == len(ends)
    return Evaluation(
        policy="greedy" if greedy else "sampled",
        episodes=len(ends),
        success=fmean(successes) if known else None,
        success_interval=wilson_interval(sum(successes), len(successes)) if known else None,
        mean_return=fmean(returns),
        std_return=stdev(returns) if len(returns) > 1 else 0.0,
        mean_length=fmean(lengths),
        spl=_spl(ends) if known and all("optimal_length" in end for end in ends) else None,
    )


class Masked:
    """
    A MaskablePPO model, or its policy, that asks its environments which actions are possible; SB3's
    ``evaluate_policy`` does not.

    :param model: the model
    :param env: what it plays in
    """

    def __init__(self, model: Any, env: VecEnv) -> None:
        self.model, self.env = model, env

    def predict(self, observation: Any, **options: Any) -> tuple[Any, Any]:
        """:return: as ``MaskablePPO.predict``."""
        return self.model.predict(observation, action_masks=get_action_masks(self.env), **options)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """
    An interval for a share, good at 0 and 1 too (Wilson 1927).

    :param successes: how many trials succeeded
    :param trials: how many there were, at least one
    :param confidence: between 0 and 1
    :return: its lower and upper end
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / trials) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _spl(ends: Iterable[dict[str, Any]]) -> float:
    """Success weighted by path length (Anderson et al., arXiv 1807.06757): 1 where every path was a shortest one."""
    return fmean(
        end["is_success"] * end["optimal_length"] / max(end["optimal_length"], end["episode"]["l"]) for end in ends
    )


def as_json(title: str, evaluations: Iterable[Evaluation], **more: Any) -> str:
    """:return: the evaluations as one JSON object with the title under "what", and whatever else is to be told."""
    return json.dumps({"what": title, "evaluations": [asdict(each) for each in evaluations], **more}, indent=1)


def as_table(title: str, evaluations: Iterable[Evaluation]) -> Table:
    """:return: the evaluations for the terminal."""
    table = Table("policy", "episodes", "success", "95 %", "return", "length", "SPL", title=title)
    for each in evaluations:
        interval = "{:.2f} to {:.2f}".format(*each.success_interval) if each.success_interval else "-"
        table.add_row(
            each.policy,
            str(each.episodes),
            _figure(each.success),
            interval,
            f"{each.mean_return:.2f} ± {each.std_return:.2f}",
            f"{each.mean_length:.1f}",
            _figure(each.spl),
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
