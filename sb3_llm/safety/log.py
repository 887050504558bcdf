"""What safety has to do, in SB3's logs: forbidden phrases that were wanted, and costs against their limit."""

from statistics import fmean
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_llm.safety.costs import CostLimit


class SafetyLog(BaseCallback):
    """
    Logs after each rollout what the policy's ``forbid`` and a :class:`CostLimit` had to do.

    - ``safety/forbidden_wanted``: of the rollout's decisions, the share whose likeliest phrase was a forbidden one
    - ``safety/forbidden_probability``: what forbidden phrases would have had, mean over decisions
    - ``safety/forbidden_example``: the last such phrase with its text, to TensorBoard
    - ``safety/episode_cost`` of the last 100 episodes, its ``safety/cost_limit``, and ``safety/multiplier``
    """

    def _on_rollout_start(self) -> None:
        wanting = getattr(self.model.policy, "wanting", None)
        self._before = (0, 0, 0.0) if wanting is None else (wanting.decisions, wanting.wanted, wanting.probability)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._tell_wanting(getattr(self.model.policy, "wanting", None))
        limit = find_cost_limit(self.training_env)
        if limit is not None:
            self.logger.record("safety/multiplier", limit.multiplier)
            self.logger.record("safety/cost_limit", limit.limit)
            if limit.episode_costs:
                self.logger.record("safety/episode_cost", fmean(limit.episode_costs))

    def _tell_wanting(self, wanting: Any) -> None:
        decisions, wanted, probability = self._before
        count = 0 if wanting is None else wanting.decisions - decisions
        if not count:
            return
        self.logger.record("safety/forbidden_wanted", (wanting.wanted - wanted) / count)
        self.logger.record("safety/forbidden_probability", (wanting.probability - probability) / count)
        if wanting.wanted > wanted:
            text, phrase, share = wanting.examples[-1]
            told = f"{phrase!r} at {share:.3f} after {text!r}"
            self.logger.record("safety/forbidden_example", told, exclude=("stdout", "log", "csv"))


def find_cost_limit(venv: VecEnv) -> CostLimit | None:
    """:return: the :class:`CostLimit` among the wrappers of an environment, if there is one."""
    inner: Any = venv
    while isinstance(inner, VecEnvWrapper):
        if isinstance(inner, CostLimit):
            return inner
        inner = inner.venv
    return None
