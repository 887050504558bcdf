"""What explanations need to see of a policy: the one place that looks inside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sb3_llm.explain.attribution import LogPolicyOfScores
from sb3_llm.scoring import Continuations, PackedScorer, PhraseScores, Row
from sb3_llm.scoring.past import Store

Offered = Sequence[tuple[str, ...]] | None


class Window:
    """
    A policy seen by prompts instead of observations.

    :param policy: an :class:`~sb3_llm.LLMPolicy`
    """

    def __init__(self, policy: Any) -> None:
        self.policy, self.lm, self.tokenizer = policy, policy.lm, policy.tokenizer
        self.route: str = policy.scoring_route
        self.special_tokens: bool = policy._template.special_tokens
        self.start = len(policy._template.before)  # of the observation text in a prompt

    def prompt(self, text: str) -> str:
        """:return: the prompt of an observation text."""
        return str(self.policy._template.prompt(text))

    def varying(self, offered: Sequence[Sequence[str]]) -> list[tuple[str, ...]] | None:
        """:return: phrases as the policy's methods take them: None where it has its own."""
        return None if self.policy.phrases else [tuple(each) for each in offered]

    def continuations(self, prompts: list[str], varying: Offered) -> list[Continuations]:
        """:return: what may follow each prompt."""
        return list(self.policy._continuations(prompts, varying))

    def rows(self, prompts: list[str], continuations: list[Continuations]) -> list[Row]:
        """:return: the same as token ids; an error names a prompt that does not fit the context."""
        return list(self.policy._scorer.tokens.rows(prompts, continuations))

    @torch.no_grad()
    def values(self, prompts: list[str], varying: Offered) -> list[float]:
        """:return: the value of each prompt."""
        found: list[float] = self.policy._score(prompts, varying)[1][:, 0].tolist()
        return found

    @torch.no_grad()
    def scores(self, rows: Sequence[Row]) -> list[list[float]]:
        """:return: of all continuations of all rows, by the policy's route."""
        found: list[list[float]] = self.policy._scorer.scorer.score(rows).log_probs.tolist()
        return found

    @contextmanager
    def keeping_no_keys(self) -> Iterator[None]:
        """
        Score texts that nothing goes on from: to keep their keys and values takes a tenth of the time, and memory.

        Those kept before are used, and the scores are remembered.
        """
        route = self.policy._scorer.scorer
        if not isinstance(route, PackedScorer):
            yield
            return
        mine, route.store = route.store, _Borrowed(route.store)
        try:
            yield
        finally:
            route.store = mine

    def allowed(self, prompts: list[str], varying: Offered, action_masks: Any) -> Tensor:
        """:return: (B, A) bool, where a phrase may be said; an error names a mask that leaves nothing."""
        may: Tensor = self.policy._allowed(prompts, varying, action_masks)
        return may

    def log_policy(self, continuations: Sequence[Continuations], allowed: Tensor) -> LogPolicyOfScores:
        """
        :return: from scores (U, A) of U decisions, given by number, to log pi (U, A), with the policy's normalisation,
            temperature and what it may not say; differentiable
        """

        def found(scores: Tensor, which: Sequence[int]) -> Tensor:
            asked, device = [continuations[one] for one in which], scores.device
            tokens = [torch.tensor([len(ids) for ids in each.ids], device=device) for each in asked]
            words = [torch.tensor(each.word_counts, device=device) for each in asked]
            n_tokens, n_words = (pad_sequence(each, batch_first=True, padding_value=1) for each in (tokens, words))
            present = allowed[list(which), : scores.shape[1]]
            log_policy: Tensor = self.policy._log_softmax(PhraseScores(scores, scores, n_tokens, n_words, present))
            return log_policy

        return found


class _Borrowed(Store):
    """Another store's keys and values, to which nothing is added."""

    def __init__(self, store: Store) -> None:
        vars(self).update(vars(store))
        self._lender = store

    def clear(self) -> None:
        """Forget everything, for the weights have changed: the lender too."""
        self._lender.clear()
        vars(self).update(vars(self._lender))

    def trim(self) -> None:
        """Leave all as it is."""

    def keep(self, *_: Any) -> None:
        """Take over nothing."""
