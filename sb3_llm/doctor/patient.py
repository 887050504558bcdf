"""The model under examination: a rollout it has played, one update it is given, and all as before in the end."""

import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from sb3_llm.callbacks import undisturbed
from sb3_llm.core import LanguageModelCore
from sb3_llm.decisions import Question, read_rollout
from sb3_llm.errors import SetupError
from sb3_llm.observations import _split
from sb3_llm.scoring import PhraseScores

DECISIONS = 128  # to play
MINIBATCHES = 4  # of the update: what starts at zero hides the gradient of what stands before it, for one step


class Patient:
    """
    A model that has played its environment.

    :param model: any of SB3's on-policy algorithms, with an environment and a policy that is a language model
    """

    def __init__(self, model: Any) -> None:
        self.model, self.policy = model, model.policy
        self.learning_rate, self.n_epochs = float(model.lr_schedule(1.0)), getattr(model, "n_epochs", 1)
        self.rollout = play(model)
        #: Distinct prompts with their phrases and masks.
        self.questions: list[Question] = list(read_rollout(model).counts)

    def some(self, most: int) -> list[Question]:
        """:return: so many questions at most, evenly from the one with the shortest prompt to the longest"""
        ordered = sorted(self.questions, key=lambda question: len(question[0]))
        places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))
        return [ordered[place] for place in places]

    def score(self, questions: list[Question], remembered: bool = False) -> PhraseScores:
        """:return: what the policy's scorer says of them, out of its memory only if ``remembered``"""
        if not remembered:
            self.policy.clear_memo()
        prompts, phrases = split(questions)
        return self.policy._ask(prompts, phrases)

    @cached_property
    def update(self) -> "Update":
        """One small update on made-up returns. Checks that ask for it find the model after it."""
        return Update(self)


def split(questions: list[Question]) -> tuple[list[str], list[tuple[str, ...]] | None]:
    """:return: prompts, and the phrases that came with each, if they did"""
    prompts, phrases = [each[0] for each in questions], [each[1] for each in questions]
    known = [each for each in phrases if each is not None]
    return prompts, known or None


# -- playing -----------------------------------------------------------------------------------------------------------


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
        rows = _split(observations) if isinstance(observations, Mapping) else list(observations)
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


# -- one update --------------------------------------------------------------------------------------------------------


class Update:
    """
    One small update, and what it did to the weights.

    Returns and advantages are random numbers: where no reward was met there is nothing to learn, and weights that then
    stay are no fault. The value warm-up counts as over, for the same reason.

    :param patient: with a rollout
    """

    def __init__(self, patient: Patient) -> None:
        model, policy = patient.model, patient.policy
        before = {name: tensor.detach().clone() for name, tensor in weights(policy)}
        _make_small(model)
        for group in policy.optimizer.param_groups:
            group["updates"] = max(group.get("updates", 0), policy._settings["value_warmup"])
        start = now()
        for _ in range(1 if hasattr(model, "n_epochs") else 2):  # A2C and TRPO take one step with all there is
            model.train()
        self.seconds = now() - start
        #: Names of the tensors that moved.
        self.moved = {name for name, tensor in weights(policy) if not torch.equal(tensor, before[name])}
        gradients = [each.grad for each in policy.parameters() if each.grad is not None]
        self.gradient = torch.stack([each.norm() for each in gradients]).norm().item() if gradients else 0.0


def _make_small(model: Any) -> None:
    buffer, numbers = model.rollout_buffer, np.random.default_rng(0)
    buffer.returns[:] = numbers.normal(size=buffer.returns.shape)
    buffer.advantages[:] = numbers.normal(size=buffer.advantages.shape)
    if hasattr(model, "batch_size"):
        model.batch_size = max(2, min(model.batch_size, buffer.returns.size // MINIBATCHES))
    if hasattr(model, "n_epochs"):
        model.n_epochs, model.target_kl = 1, None  # it may end an epoch early


def weights(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """:return: every tensor of the language model and the value head by its name, frozen ones and buffers included"""
    seen: set[int] = set()
    for child, module in policy.named_children():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{child}.{name}", tensor


# -- before and after --------------------------------------------------------------------------------------------------


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Have a model, its weights, its optimizer and all random numbers as they were; its environment begins anew."""
    _require_language_model(model)
    policy = model.policy
    own, numbers = dict(vars(model)), np.random.get_state()
    before = [(tensor, tensor.detach().clone()) for _, tensor in weights(policy)]
    optimizer, steps = deepcopy(policy.optimizer.state_dict()), dict(vars(policy._steps))
    with undisturbed(policy):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in before:
                    tensor.copy_(old)
            policy.optimizer.load_state_dict(optimizer)
            policy.optimizer.zero_grad()
            vars(policy._steps).update(steps)
            vars(model).clear()
            vars(model).update(own | {"_last_obs": None})
            np.random.set_state(numbers)


def _require_language_model(model: Any) -> None:
    if not isinstance(model.policy, LanguageModelCore):
        given = f"{type(model).__name__} with a {type(model.policy).__name__}"
        raise SetupError(given, "a policy that is a language model", "make it as PPO(LLMPolicy, env)")
    if model.env is None:
        raise SetupError("a model without an environment", "one to play", "load it with PPO.load(path, env=env)")
