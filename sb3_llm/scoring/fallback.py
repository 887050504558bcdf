"""Right but dearer routes, for models that take no attention mask of ours: alibi, windows in columns, recurrence."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from sb3_llm.scoring.model import drops_caches, head_input, keywords, widen
from sb3_llm.scoring.rows import Row, Scores


class CachedScorer:
    """
    Score each continuation in a short row of its own, over the keys and values of its prompt.

    Needs only the plain mask of what is padding, which every attention model takes: for alibi (BLOOM, MPT, Falcon) and
    for windows that are counted in columns (GPT-Neo). Prompts are padded on the left, so distances stay as they are.

    :param lm: causal language model with attention in all layers
    """

    name = "cache"

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm
        self._whole = PlainRowsScorer(lm)
        self._named = keywords(lm)

    def forget(self) -> None:
        """Nothing is remembered here."""

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        if drops_caches(self.lm):
            return self._whole.score(rows)
        ids, mask = padded([row.prompt for row in rows], self.lm.device, left=True)
        cache = DynamicCache()
        with head_input(self.lm) as hidden:
            first = self._forward(ids, mask, cache, keep=1)[:, -1]  # (U, V)
        features = widen(hidden[-1][:, -1])
        owner = [place for place, row in enumerate(rows) for _ in row.continuations]  # (N,) row of each continuation
        targets, real = padded(list(chain(*(row.continuations for row in rows))), self.lm.device, left=False)
        index = torch.tensor(owner, device=self.lm.device)
        logits = first[index][:, None]  # (N, 1, V)
        if targets.shape[1] > 1:
            layers: list[Any] = cache.layers
            for layer in layers:
                layer.keys, layer.values = layer.keys[index], layer.values[index]
            inputs, seen = targets[:, :-1], torch.cat([mask[index], real[:, :-1]], dim=1)
            logits = torch.cat([logits, self._forward(inputs, seen, cache, keep=inputs.shape[1])], dim=1)
        return Scores(_regroup(_picked(logits, targets, real), rows), features)

    def _forward(self, ids: Tensor, mask: Tensor, cache: DynamicCache, keep: int) -> Tensor:
        named: dict[str, Any] = {"logits_to_keep": keep} if "logits_to_keep" in self._named else {}
        if "position_ids" in self._named:
            named["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.lm(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **named).logits


class PlainRowsScorer:
    """
    Score whole rows, prompt and continuation, many at a time: right for any causal model, recurrent ones too.

    Rows are padded on the right, behind all that is read.

    :param lm: causal language model
    :param max_columns: computed at a time, padding included, so that memory stays bounded
    """

    name = "rows"

    def __init__(self, lm: PreTrainedModel, max_columns: int = 16384) -> None:
        self.lm = lm
        self._max_columns = max_columns
        self._named = keywords(lm)

    def forget(self) -> None:
        """Nothing is remembered here."""

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        asked = [(row.prompt, continuation) for row in rows for continuation in row.continuations]
        width = max(len(prompt) + len(continuation) for prompt, continuation in asked)
        size = max(self._max_columns // width, 1)
        parts = [self._score(asked[start : start + size]) for start in range(0, len(asked), size)]
        log_probs, features = (torch.cat(each) for each in zip(*parts, strict=True))
        starts = [0]
        for row in rows[:-1]:
            starts.append(starts[-1] + len(row.continuations))
        return Scores(_regroup(log_probs, rows), features[torch.tensor(starts, device=features.device)])

    def _score(self, asked: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[Tensor, Tensor]:
        """Scores (N,) and features (N, H) of N whole rows."""
        ids, mask = padded([prompt + continuation for prompt, continuation in asked], self.lm.device, left=False)
        targets, real = padded([continuation for _, continuation in asked], self.lm.device, left=False)
        named = {"position_ids": torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)}
        named = named if "position_ids" in self._named else {}
        lengths = torch.tensor([len(prompt) for prompt, _ in asked], device=ids.device)[:, None]
        reads = (lengths - 1 + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)  # (N, K)
        with head_input(self.lm) as hidden:
            logits = self.lm(input_ids=ids, attention_mask=mask, use_cache=False, **named).logits
        kept = logits.gather(1, reads[..., None].expand(-1, -1, logits.shape[-1]))  # (N, K, V)
        last = (lengths - 1)[..., None].expand(-1, -1, hidden[-1].shape[-1])
        return _picked(kept, targets, real), widen(hidden[-1].gather(1, last)[:, 0])


def padded(rows: Sequence[Sequence[int]], device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """
    :param rows: N rows of token ids
    :param device: of the model
    :param left: pad on the left, else on the right; any id stands for padding
    :return: ids, and 1 where they are real, (N, W) each
    """
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [gap + list(row) if left else list(row) + gap for row, gap in zip(rows, gaps, strict=True)]
    real = [gap + [1] * len(row) if left else [1] * len(row) + gap for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(real, device=device)


def _picked(logits: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Add up the log-probabilities of N continuations: (N,) from logits (N, K, V)."""
    log_probs = widen(logits).log_softmax(dim=-1).gather(2, targets[..., None])[..., 0]  # (N, K)
    return log_probs.masked_fill(real == 0, 0.0).sum(dim=1)


def _regroup(log_probs: Tensor, rows: Sequence[Row]) -> Tensor:
    """Put the scores of all continuations into a row for each prompt: (U, A), 0 behind the last."""
    counts = [len(row.continuations) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(log_probs.split(counts), batch_first=True)
