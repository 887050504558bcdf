"""A judge that is a model: one call for all environments of a step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_llm.errors import SetupError
from sb3_llm.spaces import TextSpace

#: From the texts that were acted in and the phrases that were acted on, one for each environment, to a score of each.
Judge = Callable[[list[str], list[str]], Sequence[float]]


class JudgedVecEnv(VecEnvWrapper):
    """
    Adds what a judge says of each step to the reward; asked once for all environments.

    Returns in SB3's logs stay the environments' own, as their monitors see them.

    :param venv: of text, as :func:`sb3_llm.make_vec_env` makes it
    :param judge: ``(texts, phrases) -> scores``
    :param weight: of its scores
    :raises SetupError: for environments without text
    """

    def __init__(self, venv: VecEnv, judge: Judge, weight: float = 1.0) -> None:
        if not isinstance(venv.observation_space, TextSpace):
            raise SetupError(
                f"observations in {venv.observation_space}", "texts", "make the environments with make_vec_env"
            )
        super().__init__(venv)
        self.judge, self.weight = judge, weight
        self._space: TextSpace = venv.observation_space
        self._texts: list[str] = []

    def reset(self) -> VecEnvObs:
        """:return: the first observations."""
        obs = self.venv.reset()
        self._texts = self._read(obs)
        return obs

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as the environments', with the judge's scores in the rewards and, as "judged", in the infos."""
        obs, rewards, dones, infos = self.venv.step_wait()
        scores = np.asarray(self.judge(self._texts, [info["phrase"] for info in infos]), float)
        if scores.shape != rewards.shape or not np.isfinite(scores).all():
            raise SetupError(
                f"the judge returned {scores.tolist()} for {len(rewards)} steps",
                "a finite number for each",
                "return as many scores as there are texts",
            )
        for info, score in zip(infos, scores, strict=True):
            info["judged"] = float(score)
        self._texts = self._read(obs)
        return obs, rewards + (self.weight * scores).astype(rewards.dtype), dones, infos

    def _read(self, obs: Any) -> list[str]:
        return [self._space.decode(row) for row in obs]
