"""What callbacks that look on have in common: checks before training, and a policy that plays on the side."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from sb3_llm.core import LanguageModelCore
from sb3_llm.errors import SetupError
from sb3_llm.scoring import PackedScorer, PhraseScorer
from sb3_llm.scoring.past import Store
from sb3_llm.spaces import is_whole


def whole(name: str, value: Any, least: int = 1) -> int:
    """
    :param name: of an argument
    :param value: that was given
    :param least: that it can be
    :return: the same
    :raises SetupError: if it is no whole number, or too small
    """
    if not is_whole(value) or value < least:
        raise SetupError(f"{name}={value!r}", f"a whole number, {least} or more", f"leave {name} out")
    return int(value)


def require_language_model(who: str, policy: Any) -> None:
    """
    :param who: needs one
    :param policy: of a training
    :raises SetupError: if it is no language model
    """
    if not isinstance(policy, LanguageModelCore):
        raise SetupError(
            f"{who} with a {type(policy).__name__}",
            "a policy that is a language model: LLMPolicy, or MaskableLLMPolicy with MaskablePPO",
            "leave the callback out, or train PPO(LLMPolicy, env)",
        )


@contextmanager
def undisturbed(policy: Any) -> Iterator[None]:
    """Have the policy, and torch's random numbers, the only ones drawn here, as they were before."""
    modes = [(module, module.training) for module in policy.modules()]
    device = policy.device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            policy._scorer.clear()  # scores computed in other company differ in their last bits


@contextmanager
def apart(policy: Any, with_base: bool) -> Iterator[None]:
    """
    Have everything as it was before: random numbers, the policy's mode, and all that it and its base model remember.

    A score computed in other company differs in its last bits, so nothing remembered is used, forgotten or added to.
    Worlds of the user may draw from Python's and NumPy's global generators.

    :param policy: in evaluation mode in here
    :param with_base: whether the base model is asked too; it is loaded if it is not yet
    """
    mine, drawn = policy._scorer, (random.getstate(), np.random.get_state())
    policy._scorer = _empty(policy.lm, mine)
    try:
        with undisturbed(policy), _base_apart(policy, with_base):
            policy.set_training_mode(False)
            yield
    finally:
        policy._scorer = mine
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])


@contextmanager
def _base_apart(policy: Any, with_base: bool) -> Iterator[None]:
    if not with_base:
        yield
        return
    base = policy._base_model()
    theirs = base._scorer
    base._scorer = _empty(base.lm, theirs)
    try:
        yield
    finally:
        base._scorer = theirs


def _empty(lm: PreTrainedModel, scorer: PhraseScorer) -> PhraseScorer:
    """A scorer of the same route that remembers nothing, and computes frozen layers like any others."""
    route = copy(scorer.scorer)
    if isinstance(route, PackedScorer):
        route.store, route.frozen = Store(), None
    return PhraseScorer(lm, scorer.tokens, route)
