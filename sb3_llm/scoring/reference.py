"""The definition of right: one unpadded row for each prompt and continuation, through the model's own head."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from sb3_llm.scoring.model import head_input, widen
from sb3_llm.scoring.rows import Row, Scores


class ReferenceScorer:
    """
    Score with one unpadded row for each prompt and continuation; slow, and the specification of every other route.

    :param lm: causal language model
    """

    name = "reference"

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        log_probs = pad_sequence([self._log_probs(row) for row in rows], batch_first=True)  # (U, A)
        return Scores(log_probs, torch.stack([self._feature(row.prompt) for row in rows]))

    def forget(self) -> None:
        """Nothing is remembered here."""

    def _log_probs(self, row: Row) -> Tensor:
        return torch.stack([self._log_prob(row.prompt, ids) for ids in row.continuations])  # (A,)

    def _log_prob(self, prompt: Sequence[int], continuation: Sequence[int]) -> Tensor:
        logits = self._forward([*prompt, *continuation])  # (S, V)
        log_probs = widen(logits).log_softmax(dim=-1)
        target = torch.tensor(continuation, device=logits.device)  # (K,)
        reads = torch.arange(len(prompt) - 1, len(logits) - 1, device=logits.device)  # (K,) one before each target
        return log_probs[reads, target].sum()

    def _feature(self, prompt: Sequence[int]) -> Tensor:
        with head_input(self.lm) as hidden:
            self._forward(prompt)
        return widen(hidden[-1][0, -1])  # (H,)

    def _forward(self, ids: Sequence[int]) -> Tensor:
        row = torch.tensor([list(ids)], device=self.lm.device)  # (1, S)
        return self.lm(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0]
