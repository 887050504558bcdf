"""How others score phrases, as right as it can be done: what ours is compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from sb3_llm.scoring import Row, Scores
from sb3_llm.scoring.fallback import padded
from sb3_llm.scoring.model import head_input


class AllRows:
    """
    One whole row for each prompt and phrase, logits and their softmax at every position: TWOSOME's actor.

    Its padding by BOS and its slices by the length of a bare phrase are mended here.

    :param lm: causal language model
    :param critic_pass: run the prompts once more for the value features, without gradients, as TWOSOME does
    """

    def __init__(self, lm: PreTrainedModel, critic_pass: bool = False) -> None:
        self.lm = lm
        self.name = "all rows + critic pass (TWOSOME)" if critic_pass else "all rows"
        self._critic_pass = critic_pass

    def score(self, rows: Sequence[Row]) -> Scores:
        """:return: scores (U, A) and features (U, H), for equally many continuations in each row."""
        whole = [row.prompt + continuation for row in rows for continuation in row.continuations]
        ids, mask = padded(whole, self.lm.device, left=False)
        with head_input(self.lm) as hidden:
            logits = self.lm(input_ids=ids, attention_mask=mask, use_cache=False).logits
        log_probs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # (U * A, S - 1)
        starts = torch.tensor([len(row.prompt) - 1 for row in rows for _ in row.continuations])[:, None]
        ends = torch.tensor([len(each) - 1 for each in whole])[:, None]
        place = torch.arange(log_probs.shape[1])
        scores = (log_probs * ((place >= starts) & (place < ends))).sum(1).reshape(len(rows), -1)
        first = torch.arange(len(rows)) * len(rows[0].continuations)
        features = hidden[-1][first, starts[first, 0]]
        return Scores(scores, self._critic(rows) if self._critic_pass else features)

    def _critic(self, rows: Sequence[Row]) -> Tensor:
        ids, mask = padded([row.prompt for row in rows], self.lm.device, left=False)
        with torch.no_grad(), head_input(self.lm) as hidden:
            self.lm(input_ids=ids, attention_mask=mask, use_cache=False)
        return hidden[-1][torch.arange(len(rows)), mask.sum(1) - 1]


class CachedPrompt:
    """
    Every prompt but its last token once, with a cache; then a row for each phrase over it (lamorel).

    Its missing positions and its padding by token 0 are mended here.

    :param lm: causal language model
    """

    name = "cached prompt, a row per phrase (lamorel)"

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm

    def score(self, rows: Sequence[Row]) -> Scores:
        """:return: scores (U, A) and features (U, H), for equally many continuations in each row."""
        repeats = len(rows[0].continuations)
        ids, mask = padded([row.prompt[:-1] for row in rows], self.lm.device, left=True)
        cache = DynamicCache()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.lm(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(repeats)
        short = [row.prompt[-1:] + continuation for row in rows for continuation in row.continuations]
        ids, real = padded(short, self.lm.device, left=False)
        mask = torch.cat([mask.repeat_interleave(repeats, 0), real], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with head_input(self.lm) as hidden:
            logits = self.lm(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            ).logits
        log_probs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        scores = (log_probs * real[:, 1:]).sum(1).reshape(len(rows), repeats)
        return Scores(scores, hidden[-1][::repeats, 0])


class PromptOnly:
    """
    One forward pass over the prompts, logits at the last position: no scores, and the bound that others are told in.

    :param lm: causal language model
    """

    name = "prompt only"

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm

    def score(self, rows: Sequence[Row]) -> Scores:
        """:return: log-probabilities of the next token, (U, V), and features (U, H)."""
        ids, mask = padded([row.prompt for row in rows], self.lm.device, left=True)
        with head_input(self.lm) as hidden:
            logits = self.lm(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits
        return Scores(logits[:, -1].float().log_softmax(-1), hidden[-1][:, -1])
