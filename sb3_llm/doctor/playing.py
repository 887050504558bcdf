"""Playing the environment as SB3 does for a rollout, with an eye on what is seen and on the clock."""

import pickle
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_llm.observations import split_batch

DECISIONS = 128  # to play


class Stopwatch:
    """
    Seconds spent in a module's forward pass.

    :param module: to time, from now until :meth:`remove`
    """

    def __init__(self, module: nn.Module) -> None:
        self.seconds, self.ended, self._began = 0.0, 0.0, 0.0
        before = module.register_forward_pre_hook(lambda *_: self._begin())
        self._handles = [before, module.register_forward_hook(lambda *_: self._end())]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _begin(self) -> None:
        self._began = now()

    def _end(self) -> None:
        self.ended = now()
        self.seconds += self.ended - self._began


def now() -> float:
    """:return: seconds on a clock, once the GPU has done what it was told"""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Rollout(BaseCallback):
    """
    What was seen while the environment was played, and how long it took.

    :param policy: whose time is taken
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.acting, self.forward = Stopwatch(policy), Stopwatch(policy.lm)
        self.env_seconds, self.decisions = 0.0, 0
        #: Distinct observations as the policy gets them, and distinct ones as the environment itself makes them.
        self.observations: dict[bytes, Any] = {}
        self.states: set[bytes] = set()

    def see(self, observations: Any) -> None:
        """:param observations: of all environments, as they stand now"""
        rows = split_batch(observations) if isinstance(observations, dict) else list(observations)
        self.observations.update((digest(row), row) for row in rows)
        own = self.training_env.get_attr("state") if self._knows_states else rows
        self.states.update(map(digest, own))

    @cached_property
    def _knows_states(self) -> bool:
        """Whether text was made of them; numbers are told as the policy gets them."""
        return hasattr(self.model.observation_space, "decode") and self.training_env.has_attr("state")

    def _on_step(self) -> bool:
        self.env_seconds += time.perf_counter() - self.acting.ended
        self.decisions += self.training_env.num_envs
        self.see(self.locals["new_obs"])
        return True


def play(model: Any) -> Rollout:
    """
    :param model: gets a short rollout buffer, filled; ``unchanged`` gives it its own back
    :return: what was seen
    """
    model.verbose, model.tensorboard_log = 0, None
    model.n_steps = -(-DECISIONS // model.n_envs)
    model.rollout_buffer = type(model.rollout_buffer)(
        model.n_steps,
        model.observation_space,
        model.action_space,
        device=model.device,
        gae_lambda=model.gae_lambda,
        gamma=model.gamma,
        n_envs=model.n_envs,
        **model.rollout_buffer_kwargs,
    )
    rollout = Rollout(model.policy)
    try:
        _, callback = model._setup_learn(10**6, rollout)
        rollout.see(model._last_obs)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
    finally:
        rollout.acting.remove()
        rollout.forward.remove()
    return rollout


def digest(value: Any) -> bytes:
    """:return: bytes that are equal for equal observations: arrays, numbers, texts, and dicts or lists of them"""
    if isinstance(value, Mapping):
        return b"{%s}" % b",".join(repr(key).encode() + b":" + digest(value[key]) for key in sorted(value))
    if isinstance(value, list | tuple):
        return b"[%s]" % b",".join(map(digest, value))
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return repr(value).encode() if isinstance(value, str | int | float | np.generic) else pickle.dumps(value)
