"""Gradient checkpointing: a checkpointed layer drops the cache it is given, and gradients stay as they were."""

import random

import pytest
import torch
from transformers import PreTrainedModel

from sb3_llm.language_model import zero_dropouts
from sb3_llm.scoring import ReferenceScorer, Scores
from tests.families import FAMILIES, family_lm
from tests.test_routes import chosen, gradients, some_rows


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_layers(family: str, reentrant: bool) -> None:
    """In float64 with the models' own casts to float32, since layers computed again don't see what widens those."""
    random.seed(0)
    lm = family_lm(family)
    zero_dropouts(lm)
    scorer, rows = chosen(lm), some_rows()
    right = gradients(lm, ReferenceScorer(lm).score(rows))
    lm.gradient_checkpointing_enable({"use_reentrant": reentrant})
    lm.enable_input_require_grads()  # reentrant checkpointing needs it
    lm.train()  # checkpointing is on in training only
    assert (by_backward(lm, scorer.score(rows)) - right).norm() / right.norm() < 1e-5


def by_backward(lm: PreTrainedModel, scores: Scores) -> torch.Tensor:
    """As :func:`gradients`; reentrant checkpointing works with ``backward()`` alone."""
    generator = torch.Generator().manual_seed(1)
    parts = [(part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in scores]
    (parts[0] + parts[1]).backward()
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in lm.parameters()]
    return torch.cat([each.flatten() for each in found])
