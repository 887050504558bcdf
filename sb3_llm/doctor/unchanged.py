"""A model as it was, whatever was done to it in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sb3_llm.core import LanguageModelCore
from sb3_llm.errors import SetupError
from sb3_llm.looking_on import undisturbed


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


def weights(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """:return: every tensor of the language model and the value head by its name, frozen ones and buffers included"""
    seen: set[int] = set()
    for child, module in policy.named_children():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{child}.{name}", tensor
