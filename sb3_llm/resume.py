"""What a run needs, beside SB3's zip, to go on as if it had never stopped."""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import EzPickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.distributed import Ranks

FRESH = "with fresh episodes, so that the result is not bit for bit that of a run without a stop"
#: Of the model: where the environments stand. All else is the same in every process, and in SB3's part of the zip.
ATTRIBUTES = ("_last_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")


class Checkpoints(BaseCallback):
    """
    Save at the start, and at each rollout that begins past a further multiple of ``every`` steps.

    Multiples count from step 0, so a resumed run saves where the uninterrupted one does. That matters: answers that the
    policy remembers were computed in batches of some shape, and other shapes round differently in the last bit. Both
    runs forget them at the same steps.

    :param write: saves the model with the states of all processes
    :param every: environment steps of all processes between two saves
    :param ranks: the processes
    :param others: callbacks whose numbers to keep
    :param state: to resume from: of this process when the checkpoint was written
    """

    def __init__(
        self,
        write: Callable[[list[bytes]], None],
        every: int,
        ranks: Ranks,
        others: Sequence[BaseCallback] = (),
        state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._write, self._every, self._ranks, self._others, self._state = write, every, ranks, others, state
        self._last: int | None = None
        self._picklable = True
        self.saved_at: int | None = None

    @property
    def steps(self) -> int:
        """:return: environment steps of all processes."""
        return self.model.num_timesteps * self._ranks.size

    def _on_training_start(self) -> None:
        self._began = [_numbers(each) for each in self._others]

    def _on_rollout_start(self) -> None:
        now, last = self.steps, self._last
        if last is None and self._state is not None:
            self._restore(self._state)
        elif last is None or now // self._every > last // self._every:
            self.save()
        self._last = now

    def _on_step(self) -> bool:
        return True

    def save(self) -> None:
        """
        Save, between two updates.

        :raises FloatingPointError: if the weights are not fit to go on from; the earlier checkpoint stays
        """
        model: Any = self.model
        _require_fit(model)
        _forget(model)
        state = {
            "random": random_states(),
            "envs": self._pack_envs(),
            "model": {name: getattr(model, name) for name in ATTRIBUTES},
            "callbacks": self._changed(),
        }
        states = self._ranks.gather(cloudpickle.dumps(state))
        if states is not None:
            self._write(states)
        self.saved_at = self.steps

    def _pack_envs(self) -> bytes | None:
        """Report once if they can't be packed."""
        if not self._picklable:
            return None
        try:
            return pack_envs(self.training_env)
        except Exception as error:  # whatever an environment raises
            self._picklable = False
            warnings.warn(f"the environments can't be saved ({error}): a stopped run will go on {FRESH}", stacklevel=2)
            return None

    def _changed(self) -> list[tuple[str, dict[str, Any]]]:
        """What the other callbacks have counted since training began; their settings are not touched by a resume."""
        return [
            (type(each).__name__, {name: value for name, value in _numbers(each).items() if began.get(name) != value})
            for each, began in zip(self._others, self._began, strict=True)
        ]

    def _restore(self, state: dict[str, Any]) -> None:
        """The last thing before training goes on: nothing may draw a random number in between."""
        for callback, (name, numbers) in zip(self._others, state["callbacks"], strict=False):
            if type(callback).__name__ == name:
                vars(callback).update(numbers)
        self.saved_at = self.steps
        _forget(self.model)
        set_random_states(state["random"])


def _numbers(callback: BaseCallback) -> dict[str, Any]:
    """A callback's plain attributes, such as EvalCallback's best mean reward."""
    plain = (bool, int, float, str, np.generic, type(None))
    return {name: value for name, value in vars(callback).items() if isinstance(value, plain)}


def _forget(model: Any) -> None:
    if hasattr(model.policy, "clear_memo"):
        model.policy.clear_memo()


def _require_fit(model: OnPolicyAlgorithm) -> None:
    """Weights can be finite and of no use all the same, so the policy has to show that it can act on them."""
    if not weights_are_finite(model):
        raise FloatingPointError("weights are NaN or infinite")
    last: Any = model._last_obs
    with torch.no_grad():
        values = model.policy.predict_values(obs_as_tensor(last, model.device))
    if not bool(values.isfinite().all()):
        raise FloatingPointError("the values of the present states are NaN or infinite")


def weights_are_finite(model: BaseAlgorithm) -> bool:
    """:return: whether all weights that are trained are numbers."""
    return all(bool(each.isfinite().all()) for each in model.policy.parameters() if each.requires_grad)


def pack_envs(envs: VecEnv) -> bytes:
    """
    :param envs: environments in any state
    :return: the environments as they stand
    :raises Exception: whatever an environment raises that can't be pickled
    """
    for env in _every_env(envs):
        if type(env).__getstate__ is EzPickle.__getstate__:
            raise TypeError(f"{type(env).__name__} pickles how it was made and not where it stands: EzPickle")
    return cloudpickle.dumps(envs)


def unpack_envs(packed: bytes | None) -> VecEnv | None:
    """:return: the environments as they stood; None where that was not kept or can't be read, which is reported."""
    why = ""
    if packed is not None:
        try:
            return cloudpickle.loads(packed)
        except Exception as error:  # a module that is gone, another version of an environment
            why = f", as the saved environments can't be read ({error})"
    warnings.warn(f"resuming {FRESH}{why}", stacklevel=2)
    return None


def _every_env(envs: VecEnv) -> Iterator[Any]:
    for env in getattr(envs.unwrapped, "envs", []):
        while isinstance(env, gym.Wrapper):
            yield env
            env = env.env
        yield env


def random_states() -> dict[str, Any]:
    """:return: of every global random number generator."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """:param states: from :func:`random_states`"""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
