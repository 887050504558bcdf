"""What a policy's language model says of prompts: scores, instructions, explanations, and what it would rather say."""

import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm import masks
from sb3_llm.base import BaseModel
from sb3_llm.errors import SetupError
from sb3_llm.explain import Explanation, explain
from sb3_llm.explain.explaining import METHODS
from sb3_llm.forbid import Rules, Wanting, as_table
from sb3_llm.instruct import MAX_TOKENS, Instruction, Limits, instruct
from sb3_llm.prompt import Template
from sb3_llm.scoring import Continuations, PhraseScorer, PhraseScores, Row, action_logits


class AskedPolicy(BasePolicy):
    """
    The part of a policy that its language model is asked through; :class:`~sb3_llm.core.LanguageModelCore` makes the
    parts that stand here.
    """

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    #: In action order; empty where they come with each observation.
    phrases: list[str]
    #: How often the policy would have said what ``forbid`` keeps it from.
    wanting: Wanting

    _settings: dict[str, Any]
    _slots: int  # the most actions there can be
    _read: Callable[[Any], list[str]]
    _read_phrases: Callable[[Any], list[tuple[str, ...]]] | None
    _template: Template
    _rules: Rules
    _scorer: PhraseScorer
    _fixed: Continuations | None  # of the policy's own phrases
    _probes: list[Row]
    _base: BaseModel | None

    def clear_memo(self) -> None:
        """
        Forget all that was remembered: scores, keys and values, what frozen layers said, what the base model said.

        Only needed after weights were changed in a way that leaves no trace, and where a run must go on exactly like
        one that starts here: what is remembered was rounded as the batch it was computed in.
        """
        self._scorer.clear(frozen=True)
        if self._base is not None:
            self._base.clear()

    @property
    def scoring_route(self) -> str:
        """The route the start-up probe chose: "packed", or "cache", "rows", "reference" where only that was right."""
        return self._scorer.scorer.name

    def render(self, obs: PyTorchObs) -> list[str]:
        """
        :param obs: a batch of B observations, as tensors or arrays
        :return: B prompts
        """
        return [self._template.prompt(text) for text in self._read(obs)]

    def sequence_log_probs(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None = None) -> Tensor:
        """
        :param prompts: B prompts
        :param phrases: of each prompt, where phrases come with each observation; else the policy's own
        :return: scores (B, A): the log-probability of each continuation, summed over its tokens; differentiable; 0 in a
            slot without a phrase
        """
        return self._ask(prompts, phrases).log_probs

    def action_log_probs(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None = None) -> Tensor:
        """
        :param prompts: B prompts
        :param phrases: of each prompt, where phrases come with each observation; else the policy's own
        :return: (B, A) log pi(a | prompt), normalised over the actions; differentiable; minus infinity in a slot
            without a phrase
        """
        scores = self._ask(prompts, phrases)
        return self._log_softmax(scores)

    def base_log_probs(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None = None) -> Tensor:
        """
        :param prompts: B prompts
        :param phrases: as in :meth:`action_log_probs`
        :return: (B, A) log pi of the base model, as it was before any training; each distinct prompt is computed once
        """
        return self._log_softmax(self._ask_base(prompts, phrases))

    def offered(self, obs: PyTorchObs) -> list[tuple[str, ...]]:
        """
        :param obs: a batch of B observations, as tensors or arrays
        :return: the phrases that each of them offers
        """
        if self._read_phrases:
            return self._read_phrases(obs)
        return [tuple(self.phrases)] * len(self._read(obs))

    def allowed(self, obs: PyTorchObs, action_masks: Any = None) -> list[list[bool]]:
        """
        :param obs: a batch of B observations, as tensors or arrays
        :param action_masks: (B, A), true where the environment allows an action
        :return: of each phrase that they offer, whether ``forbid`` and the mask leave it
        :raises SetupError: for a mask of another shape, or one that leaves nothing
        """
        offered = self.offered(obs)
        table = self._allowed(self.render(obs), offered if self._read_phrases else None, action_masks)
        return [row[: len(own)] for row, own in zip(table.tolist(), offered, strict=True)]

    @torch.no_grad()
    def instruct(
        self,
        obs: PyTorchObs,
        greedy: bool = False,
        constrained: bool = False,
        max_tokens: int = MAX_TOKENS,
        temperature: float = 1.0,
        action_masks: Any = None,
    ) -> list[Instruction]:
        """
        Let the model write what to do, and parse it into an action.

        What it writes freely is another policy than the one that is trained, which scores whole phrases.

        :param obs: a batch of B observations, as tensors or arrays
        :param greedy: always the likeliest token; otherwise sampled with torch's random numbers
        :param constrained: token by token inside the phrases, so that it is always understood
        :param max_tokens: how many tokens it may write at most; to the end of the line
        :param temperature: of sampling
        :param action_masks: (B, A), true where the environment allows an action; no other is understood
        :return: B instructions
        :raises SetupError: if a prompt leaves no room in the model's context
        """
        limits = Limits(greedy, constrained, max_tokens, temperature)
        prompts, offered = self.render(obs), self.offered(obs)
        phrases = offered if self._read_phrases else None
        rows = self._scorer.tokens.rows(prompts, self._continuations(prompts, phrases))
        with self._evaluating():
            return instruct(self.lm, self.tokenizer, rows, offered, self.allowed(obs, action_masks), limits)

    def explain(
        self,
        obs: PyTorchObs | Sequence[str],
        actions: Sequence[int] | None = None,
        attribution: Sequence[str] = METHODS,
        phrases: Sequence[Sequence[str]] | None = None,
        action_masks: Any = None,
    ) -> list[Explanation]:
        """
        Say why: probabilities beside the base model's, phrases token by token, the value, and what each part of the
        text is worth, by integrated gradients over words and by leaving clauses out.

        :param obs: a batch of B observations; or B observation texts, such as edited ones: what if it said this?
        :param actions: which action of each is explained; the likeliest by default
        :param attribution: "gradient", "deletion", both or neither
        :param phrases: of each text, where phrases come with each observation and texts are given
        :param action_masks: (B, A), true where the environment allows an action, as MaskablePPO knows it
        :return: B explanations
        :raises SetupError: for an unknown method or action, a mask that leaves nothing, a text that does not fit the
            model's context, or a gradient that can't be taken
        """
        if isinstance(obs, list | tuple):
            texts = [self._template.harmless(str(text)) for text in obs]
            self._continuations(texts, phrases)  # which says so if phrases are lacking, or the policy has its own
            offered = phrases or [tuple(self.phrases)] * len(texts)
        else:
            texts = [self._template.harmless(text) for text in self._read(cast(PyTorchObs, obs))]
            offered = self.offered(cast(PyTorchObs, obs))
        with self._evaluating():
            return explain(self, texts, offered, actions, attribution, action_masks)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while: in training mode, checkpointed layers have no cache. Nothing is forgotten."""
        mode, self.training = self.training, False
        self.lm.eval()
        try:
            yield
        finally:
            self.training = mode
            self.lm.train(mode)

    def base_lm(self) -> PreTrainedModel:
        """:return: the base model, loaded once more; what the tuned model never changes is shared with it"""
        return self._base_model().lm

    def _base_model(self) -> BaseModel:
        if self._base is None:
            self._base = BaseModel(self._settings, self.lm, self._scorer.tokens, self._probes)
        return self._base

    def _ask_base(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> PhraseScores:
        scores = self._base_model().score(prompts, self._continuations(prompts, phrases), self._slots)
        return self._ruled(scores, prompts, phrases)

    def _log_softmax(self, scores: PhraseScores) -> Tensor:
        return self._logits(scores).log_softmax(dim=-1).masked_fill(~scores.present, -torch.inf)

    def _ask(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> PhraseScores:
        scores = self._scorer.score(prompts, self._continuations(prompts, phrases), self._slots)
        return self._ruled(scores, prompts, phrases)

    def _ruled(self, scores: PhraseScores, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> PhraseScores:
        """A forbidden phrase is one that is not there: its probability is exactly 0, whoever asks."""
        if not self._rules:
            return scores
        return scores._replace(present=scores.present & self._allowed(prompts, phrases))

    def _allowed(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None, action_masks: Any = None) -> Tensor:
        """(B, A), true where there is a phrase that neither a rule nor the environment's mask forbids."""
        may = as_table(self._may(prompts, phrases), self._slots, self.device)
        return may if action_masks is None else masks.within(action_masks, may)

    def _may(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> list[list[bool]]:
        offered = [self.phrases] * len(prompts) if phrases is None else phrases
        return self._rules.may([self._template.observation(prompt) for prompt in prompts], offered)

    def _note_wanting(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> None:
        """Once it has acted, when scores are remembered."""
        if not self._rules or torch.is_grad_enabled():
            return
        free = self._scorer.score(prompts, self._continuations(prompts, phrases), self._slots)
        offered = [self.phrases] * len(prompts) if phrases is None else phrases
        texts = [self._template.observation(prompt) for prompt in prompts]
        self.wanting.note(texts, offered, self._log_softmax(free).exp(), self._may(prompts, phrases))

    def _continuations(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> list[Continuations]:
        if (phrases is None) == (self._fixed is None):
            expected = "no phrases= for a policy that has its own" if self._fixed else "phrases= of each prompt"
            given = f"phrases={reprlib.repr(phrases)} for {reprlib.repr(self.phrases)}"
            raise SetupError(given, expected, "see policy.phrases: it is empty where they come with each observation")
        if phrases is None:
            return [cast(Continuations, self._fixed)] * len(prompts)
        tokens, harmless = self._scorer.tokens, self._template.harmless
        said = [tuple(map(harmless, each)) for each in phrases]
        return [tokens.continuations(each, prompt) for each, prompt in zip(said, prompts, strict=True)]

    def _logits(self, scores: PhraseScores) -> Tensor:
        how = self._settings["normalization"], self._settings["temperature"]
        logits = action_logits(scores.log_probs, scores.token_counts, scores.word_counts, *how)
        # Not minus infinity, whose gradients in a KL divergence are NaN; the probability is exactly 0 all the same.
        return logits.masked_fill(~scores.present, torch.finfo(logits.dtype).min)
