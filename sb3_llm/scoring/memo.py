"""Scores remembered for exactly as long as the weights stay the same."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sb3_llm.scoring.reference import Scorer, Scores

MAX_BYTES = 64 * 2**20


class MemoScorer:
    """
    Another scorer, asked only for prompts not seen since the weights last changed.

    Agents come back to the same places: on MiniGrid a rollout's distinct prompts are 3 to 30 % of its decisions. With
    gradients every prompt is scored afresh.

    A change of weights is seen by the version counters of the parameters, which every in-place operation raises. Some
    writers go round them (``Adam(fused=True)``, ``parameter.data``), so whoever starts an update calls :meth:`clear`.

    :param scorer: what scores a prompt for the first time
    :param lm: the model whose weights count
    :param max_bytes: of remembered numbers; beyond it the memo starts anew
    """

    def __init__(self, scorer: Scorer, lm: PreTrainedModel, max_bytes: int = MAX_BYTES) -> None:
        self.scorer = scorer
        self.name = scorer.name
        self.token_counts = scorer.token_counts
        self._lm = lm
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._place: dict[str, int] = {}  # prompt -> row of the two stores
        self._log_probs: list[Tensor] = []  # (A,) each
        self._features: list[Tensor] = []  # (H,) each
        self._bytes = 0
        self._weights: tuple[int, torch.device] | None = None

    def score(self, prompts: Sequence[str]) -> Scores:
        """
        Score every continuation after every prompt; differentiably, if gradients are on.

        :param prompts: B prompts
        :return: scores (B, A) and value features (B, H)
        :raises SetupError: as the scorer behind it
        :raises FloatingPointError: as the scorer behind it
        """
        if torch.is_grad_enabled():
            return self.scorer.score(prompts)
        weights = sum(parameter._version for parameter in self._lm.parameters()), self._lm.device
        if weights != self._weights or self._bytes > self._max_bytes:
            self.clear()
            self._weights = weights
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._place]
        if fresh:
            self._remember(fresh, self.scorer.score(fresh))
        places = [self._place[prompt] for prompt in prompts]
        return Scores(
            torch.stack([self._log_probs[place] for place in places]),
            torch.stack([self._features[place] for place in places]),
        )

    def _remember(self, prompts: Sequence[str], scores: Scores) -> None:
        for prompt, log_probs, features in zip(prompts, scores.log_probs, scores.features, strict=True):
            self._place[prompt] = len(self._log_probs)
            self._log_probs.append(log_probs)
            self._features.append(features)
        self._bytes += scores.log_probs.nbytes + scores.features.nbytes + sum(map(len, prompts))
