"""Letting a policy play on the side: training does not notice what is drawn, remembered or switched there."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from sb3_llm.callbacks import undisturbed
from sb3_llm.scoring import PackedScorer, PhraseScorer
from sb3_llm.scoring.past import Store


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
