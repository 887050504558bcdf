"""A limit on what episodes may cost, kept by a Lagrange multiplier that any algorithm of SB3 can be trained under."""

import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_llm.errors import SetupError

Cost = Callable[[dict[str, Any]], float]
KEPT_EPISODES = 100


class CostLimit(VecEnvWrapper):
    """
    Keeps the mean cost of an episode near or below a limit: what is learnt from is ``(reward - m * cost) / (1 + m)``.

    The multiplier m follows the costs of ended episodes by proportional and integral control (Stooke, Achiam and Abbeel
    2020, arXiv 2007.03964; the scaling by 1 + m is that of Ray, Achiam and Amodei 2019). It is 0 where costs stay below
    the limit. Returns in SB3's logs stay the environments' own. The limit holds on average and once m has settled, not
    in every episode and not from the start; what must never happen belongs into the policy's ``forbid``.

    :param venv: any vectorised environments
    :param limit: of an episode's summed cost
    :param cost: the key of the info that holds a step's cost, or a callable from the info to it
    :param rate: by how much m grows for each episode whose cost is twice the limit, in the long run
    :param answer: by how much m is higher at once while costs of late are twice the limit
    :raises SetupError: for a limit, rate or answer that is no positive number
    """

    def __init__(
        self, venv: VecEnv, limit: float, cost: str | Cost = "cost", rate: float = 0.002, answer: float = 0.1
    ) -> None:
        for name, value in (("limit", limit), ("rate", rate), ("answer", answer)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                mend = (
                    "for a cost that must stay 0, use forbid= of the policy" if name == "limit" else f"leave {name} out"
                )
                raise SetupError(f"{name}={value!r}", "a positive number", mend)
        super().__init__(venv)
        self.limit, self.rate, self.answer = float(limit), rate, answer
        self.cost = cost
        self.integral = 0.0  # of the overspending, relative to the limit
        #: Costs of the last episodes that ended.
        self.episode_costs: deque[float] = deque(maxlen=KEPT_EPISODES)
        self.episodes = 0
        self._running: NDArray[np.float64] = np.zeros(venv.num_envs)
        self._late = 0.0  # overspending of late, relative to the limit

    @property
    def multiplier(self) -> float:
        """:return: what a unit of cost weighs at present, in units of reward."""
        return max(0.0, self.rate * self.integral + self.answer * self._late)

    def save(self, path: Path | str) -> None:
        """
        :param path: where to write, as JSON, what a resumed training needs beside the model's zip
        """
        state: dict[str, Any] = {
            "limit": self.limit,
            "rate": self.rate,
            "answer": self.answer,
            "integral": self.integral,
        }
        state |= {"late": self._late, "episodes": self.episodes, "episode_costs": list(self.episode_costs)}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, venv: VecEnv, cost: str | Cost = "cost") -> "CostLimit":
        """
        :param path: what :meth:`save` wrote
        :param venv: environments to go on with
        :param cost: as it was
        :return: the limit with its multiplier
        :raises SetupError: if it can't be read
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            found = cls(venv, state["limit"], cost, state["rate"], state["answer"])
            found.integral, found._late = float(state["integral"]), float(state["late"])
            found.episodes = int(state["episodes"])
            found.episode_costs.extend(map(float, state["episode_costs"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "a file that CostLimit.save wrote"
            raise SetupError(f"{path}, which can't be read ({error})", expected, "start with a new CostLimit") from None
        return found

    def reset(self) -> VecEnvObs:
        """:return: the first observations."""
        self._running[:] = 0.0
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as the environments', with the cost weighed into the rewards; "episode_cost" in an end's info."""
        obs, rewards, dones, infos = self.venv.step_wait()
        costs = np.array([self._cost_of(info) for info in infos])
        self._running += costs
        weighed = (rewards - self.multiplier * costs) / (1.0 + self.multiplier)
        for place in np.flatnonzero(dones):
            infos[place]["episode_cost"] = float(self._running[place])
            self._ended(float(self._running[place]))
            self._running[place] = 0.0
        return obs, weighed.astype(rewards.dtype), dones, infos

    def _ended(self, cost: float) -> None:
        self.episodes += 1
        self.episode_costs.append(cost)
        over = cost / self.limit - 1.0
        self.integral = max(0.0, self.integral + over)
        share = max(1.0 / self.episodes, 2.0 / KEPT_EPISODES)
        self._late += share * (over - self._late)

    def _cost_of(self, info: dict[str, Any]) -> float:
        if not callable(self.cost) and self.cost not in info:
            raise SetupError(
                f"cost={self.cost!r}, and a step whose info has only {sorted(info)}",
                "a key of every step's info, or a callable from the info to a number",
                'pass cost=lambda info: -info["reward_parts"]["forbidden"], or the like',
            )
        value = float(self.cost(info) if callable(self.cost) else info[self.cost])
        if not 0 <= value < math.inf:
            raise SetupError(f"a step of cost {value}", "a finite number, 0 or more", "mend cost=")
        return value
