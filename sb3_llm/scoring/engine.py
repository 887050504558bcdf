"""From prompts and phrases to scores: what the policy asks. Each distinct question is put to the model once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.continuations import Continuations
from sb3_llm.scoring.memo import Memo
from sb3_llm.scoring.rows import Row, Scorer, Scores
from sb3_llm.scoring.tokens import PromptTokenizer
from sb3_llm.scoring.weights import WeightsWatch


class PhraseScores(NamedTuple):
    """
    What the language model says of B prompts and A slots for phrases, in float32, or float64 from a float64 model.

    :param log_probs: (B, A) sums of token log-probabilities of each continuation given its prompt, in nats; 0 in a slot
        without a phrase
    :param features: (B, H) hidden state that enters the output head at the last prompt token
    :param token_counts: (B, A) tokens of each continuation, 1 in a slot without a phrase
    :param word_counts: (B, A) words of each phrase, 1 in a slot without a phrase
    :param present: (B, A) bool, which slots have a phrase
    """

    log_probs: Tensor
    features: Tensor
    token_counts: Tensor
    word_counts: Tensor
    present: Tensor


class PhraseScorer:
    """
    Score phrases after prompts by any route, computing equal questions once.

    Agents come back to the same places: on MiniGrid a rollout's distinct prompts are 3 to 30 % of its decisions. So
    answers are remembered while weights stay the same; with gradients, equal rows of a batch are computed once.

    :param lm: the model whose weights count
    :param tokens: its tokenizer
    :param scorer: the route
    :param micro_batch: distinct rows computed at a time with gradients, ``None`` for all. The backward pass computes
        each part again, so that memory grows with the part and not with the batch, for one more forward pass
    """

    def __init__(
        self, lm: PreTrainedModel, tokens: PromptTokenizer, scorer: Scorer, micro_batch: int | None = None
    ) -> None:
        whole = isinstance(micro_batch, int) and not isinstance(micro_batch, bool) and micro_batch > 0
        if micro_batch is not None and not whole:
            mend = "leave micro_batch out to compute all rows at once"
            raise SetupError(f"micro_batch={micro_batch!r}", "a whole number of rows, 1 or more, or None", mend)
        self.tokens, self.scorer = tokens, scorer
        self._micro_batch = micro_batch
        self._watch = WeightsWatch(lm.parameters())
        self.memo = Memo()

    def clear(self, frozen: bool = False) -> None:
        """
        Forget everything that depends on the weights.

        :param frozen: also what depends on weights that never change
        """
        self.memo.clear()
        self.scorer.forget()
        layers = getattr(self.scorer, "frozen", None)
        if frozen and layers is not None:
            layers.clear()

    def score(self, prompts: Sequence[str], continuations: Sequence[Continuations], slots: int) -> PhraseScores:
        """
        Score the continuations of every prompt; differentiably, if gradients are on.

        :param prompts: B prompts
        :param continuations: of each prompt
        :param slots: A, as many as the longest list of continuations or more
        :return: scores, value features, counts, and which slots have a phrase
        :raises SetupError: if a prompt is empty or too long for the model
        :raises FloatingPointError: if a score is NaN or infinite
        """
        asked = list(zip(prompts, continuations, strict=True))
        scores = self._fresh(asked, slots) if torch.is_grad_enabled() else self._remembered(asked, slots)
        return PhraseScores(*scores, *_counts(continuations, slots, scores.log_probs.device))

    def _remembered(self, asked: list[tuple[str, Continuations]], slots: int) -> Scores:
        if self._watch.changed():
            self.clear()
        self.memo.trim()
        missing = [each for each in dict.fromkeys(asked) if each not in self.memo]
        if missing:
            self.memo.keep(missing, self._fresh(missing, slots))
        return self.memo.get(asked)

    def _fresh(self, asked: list[tuple[str, Continuations]], slots: int) -> Scores:
        rows = self.tokens.rows(*map(list, zip(*asked, strict=True)))
        distinct = sorted(dict.fromkeys(rows), key=lambda row: len(row.prompt))  # U rows, those of like length together
        log_probs, features = self._in_parts(distinct)
        place = {row: index for index, row in enumerate(distinct)}
        expand = torch.tensor([place[row] for row in rows], device=log_probs.device)  # (B,)
        scores = Scores(pad(log_probs, (0, slots - log_probs.shape[1]))[expand], features[expand])
        _require_finite(scores.log_probs, asked)
        return scores

    def _in_parts(self, rows: list[Row]) -> Scores:
        size = self._micro_batch
        if size is None or len(rows) <= size or not torch.is_grad_enabled():
            return self.scorer.score(rows)
        parts = [
            checkpoint(self.scorer.score, rows[start : start + size], use_reentrant=False, preserve_rng_state=False)
            for start in range(0, len(rows), size)
        ]
        width = max(part.log_probs.shape[1] for part in parts)
        wide = [pad(part.log_probs, (0, width - part.log_probs.shape[1])) for part in parts]
        return Scores(torch.cat(wide), torch.cat([part.features for part in parts]))


def _counts(continuations: Sequence[Continuations], slots: int, device: torch.device) -> list[Tensor]:
    """Tokens and words of each phrase, and where there is one: (B, A) each."""
    if len(continuations) > 1 and len(set(continuations)) == 1:  # one fixed list
        return [part.expand(len(continuations), -1) for part in _counts(continuations[:1], slots, device)]
    tokens = [[len(ids) for ids in each.ids] for each in continuations]
    words = [list(each.word_counts) for each in continuations]
    present = [[1] * len(row) for row in tokens]
    fill = ((tokens, 1), (words, 1), (present, 0))
    tables = [torch.tensor([row + [value] * (slots - len(row)) for row in rows]) for rows, value in fill]
    return [tables[0].to(device), tables[1].to(device), tables[2].bool().to(device)]


def _require_finite(log_probs: Tensor, asked: list[tuple[str, Continuations]]) -> None:
    """Name the first prompt and phrase whose score is NaN or infinite."""
    finite = log_probs.detach().isfinite()
    if bool(finite.all()):
        return
    row, action = (~finite).nonzero()[0].tolist()
    prompt, continuations = asked[row]
    raise FloatingPointError(
        f"the score of {continuations.texts[action]!r} after the prompt ending in {prompt[-60:]!r} is "
        f"{log_probs[row, action].item()}: the language model's weights have most likely diverged. Lower the learning "
        "rate of the language model, or start again from a checkpoint."
    )
