"""The base model beside the tuned one: what the language model said before any RL."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sb3_llm.language_model import load_language_model
from sb3_llm.scoring import Continuations, PhraseScorer, PhraseScores, PromptTokenizer, Row, choose_scorer


class BaseModel:
    """
    The language model as loaded, loaded once more when first asked for.

    Weights that the tuned model never changes are shared with it, so that with adapters or upper layers the second
    model costs memory for the trained part alone. Each distinct prompt is scored once.

    :param settings: the policy's keywords
    :param lm: the tuned model
    :param tokens: the policy's
    :param probes: rows on which the route is verified
    """

    def __init__(
        self, settings: dict[str, Any], lm: PreTrainedModel, tokens: PromptTokenizer, probes: Sequence[Row]
    ) -> None:
        self.lm, _ = load_language_model(settings["model"], settings["revision"], settings["dtype"])
        self.lm.requires_grad_(False)
        _share_frozen(self.lm, lm)
        self.lm.to(lm.device)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tuned model's route was reported already
            scorer, _ = choose_scorer(self.lm, probes)
        self._scorer = PhraseScorer(self.lm, tokens, scorer)

    def score(self, prompts: Sequence[str], continuations: Sequence[Continuations], slots: int) -> PhraseScores:
        """:return: as :meth:`PhraseScorer.score`, without gradients."""
        with torch.no_grad():
            return self._scorer.score(prompts, continuations, slots)

    def clear(self) -> None:
        """Forget remembered scores."""
        self._scorer.clear()


def _share_frozen(base: nn.Module, tuned: nn.Module) -> None:
    """Let frozen weights be one tensor in both; adapters call the layer beside them ``base_layer``."""
    ours = dict(base.named_parameters(remove_duplicate=False))
    for name, parameter in tuned.named_parameters(remove_duplicate=False):
        name = name.replace(".base_layer.", ".")
        if not parameter.requires_grad and name in ours:
            ours[name].data = parameter.data


def kl_divergence(log_probs: Tensor, base: Tensor) -> Tensor:
    """
    KL(pi || pi_base), safe where an action is masked or absent: ``torch.distributions`` gives NaN gradients there.

    :param log_probs: (B, A) log pi; however low where an action can't be
    :param base: (B, A) log pi of the base model, under the same masks
    :return: (B,) nats
    """
    impossible = log_probs.exp() == 0
    mine, theirs = (each.masked_fill(impossible, 0.0) for each in (log_probs, base))
    return (log_probs.exp() * (mine - theirs)).sum(dim=-1)
