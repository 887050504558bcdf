"""A judge that is a model: one call for all environments of a step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_llm.errors import SetupError
from sb3_llm.observations import phrase_reader
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
        self._phrases = phrase_reader(venv.observation_space)
        self._acted: tuple[list[str], list[str]] = ([], [])  # texts, and the phrases that were acted on

    def reset(self) -> VecEnvObs:
        """:return: the first observations."""
        self._obs = self.venv.reset()
        return self._obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note what is acted on."""
        obs: Any = self._obs
        own: Any = getattr(self.action_space, "phrases", None)
        offered = self._phrases(obs) if self._phrases else [own] * len(actions)
        chosen = [phrases[action] for phrases, action in zip(offered, actions.tolist(), strict=True)]
        self._acted = [self._space.decode(row) for row in obs], chosen
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as the environments', with the judge's scores in the rewards and, as "judged", in the infos."""
        obs, rewards, dones, infos = self.venv.step_wait()
        scores = np.asarray(self.judge(*self._acted), float)
        if scores.shape != rewards.shape or not np.isfinite(scores).all():
            raise SetupError(
                f"the judge returned {scores.tolist()} for {len(rewards)} steps",
                "a finite number for each",
                "return as many scores as there are texts",
            )
        for info, score in zip(infos, scores, strict=True):
            info["judged"] = float(score)
        self._obs = obs
        return obs, rewards + (self.weight * scores).astype(rewards.dtype), dones, infos
