"""The definition of right: one unpadded row for each prompt and phrase, through the model's own head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.tokens import PromptTokenizer


class Scores(NamedTuple):
    """
    What a scorer says of B prompts and A phrases, in float32, or float64 from a float64 model.

    :param log_probs: (B, A) sums of token log-probabilities of each continuation given its prompt, in nats
    :param features: (B, H) hidden state that enters the output head at the last prompt token
    """

    log_probs: Tensor
    features: Tensor


class Scorer(Protocol):
    """
    A route from prompts to scores; all routes agree with the reference.

    :param name: ``"reference"`` or ``"packed"``
    :param token_counts: (A,) tokens of each continuation
    """

    name: str
    token_counts: Tensor

    def score(self, prompts: Sequence[str]) -> Scores:
        """
        Score every continuation after every prompt, differentiably.

        :param prompts: B prompts
        :return: scores (B, A) and value features (B, H)
        :raises SetupError: if a prompt is empty or too long for the model
        :raises FloatingPointError: if a score is NaN or infinite
        """
        ...


class ReferenceScorer:
    """
    Score with one unpadded row for each prompt and phrase; slow, and the specification of every other route.

    :param lm: causal language model
    :param tokens: tokenizer that holds the continuations
    """

    name = "reference"

    def __init__(self, lm: PreTrainedModel, tokens: PromptTokenizer) -> None:
        self.lm = lm
        self.tokens = tokens
        self.token_counts = torch.tensor([len(ids) for ids in tokens.continuation_ids])  # (A,)

    def score(self, prompts: Sequence[str]) -> Scores:
        """
        Score every continuation after every prompt, differentiably.

        :param prompts: B prompts
        :return: scores (B, A) and value features (B, H)
        :raises SetupError: if a prompt is empty or too long for the model
        :raises FloatingPointError: if a score is NaN or infinite
        """
        rows = self.tokens.encode(prompts)
        log_probs = torch.stack(
            [torch.stack([self._log_prob(row, ids) for ids in self.tokens.continuation_ids]) for row in rows]
        )  # (B, A)
        require_finite(log_probs, prompts, self.tokens.continuations)
        return Scores(log_probs, torch.stack([self._feature(row) for row in rows]))

    def _log_prob(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> Tensor:
        logits = self._forward([*prompt_ids, *continuation_ids])  # (S, V)
        log_probs = widen(logits).log_softmax(dim=-1)
        target = torch.tensor(continuation_ids, device=logits.device)  # (K,)
        reads = torch.arange(len(prompt_ids) - 1, len(logits) - 1, device=logits.device)  # (K,) one before each target
        return log_probs[reads, target].sum()

    def _feature(self, prompt_ids: Sequence[int]) -> Tensor:
        with head_input(self.lm) as hidden:
            self._forward(prompt_ids)
        return widen(hidden[-1][0, -1])  # (H,)

    def _forward(self, ids: Sequence[int]) -> Tensor:
        row = torch.tensor([list(ids)], device=self.lm.device)  # (1, S)
        return self.lm(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0]


@contextmanager
def head_input(lm: PreTrainedModel) -> Iterator[list[Tensor]]:
    """
    Watch the hidden states that enter the output head, for the length of a ``with`` block.

    They are the last hidden states after the final norm for every architecture, at no cost: ``output_hidden_states``
    would keep those of all layers.

    :param lm: causal language model
    :return: list that each forward pass appends to: (B, K, H), K the positions the head was applied to
    :raises SetupError: if the model shows no output head, or never calls it
    """
    head = lm.get_output_embeddings()
    if not isinstance(head, nn.Module):
        given = f"{type(lm).__name__} shows no output head"
        raise SetupError(given, "get_output_embeddings() to return a module", "choose another language model")
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
    if not seen:
        given = f"{type(lm).__name__} never calls its output head"
        raise SetupError(given, "logits made by get_output_embeddings()", "choose another language model")


def widen(values: Tensor) -> Tensor:
    """
    Cast to float32 at least, because log-probabilities in bfloat16 make PPO's ratio differ from 1.

    :param values: any floating-point tensor
    :return: the same values; float64 stays float64
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def require_finite(log_probs: Tensor, prompts: Sequence[str], continuations: Sequence[str]) -> None:
    """
    Raise on a score that is NaN or infinite, naming the first.

    :param log_probs: (B, A) scores
    :param prompts: B prompts
    :param continuations: A continuations
    :raises FloatingPointError: naming prompt, phrase and value
    """
    finite = log_probs.detach().isfinite()
    if bool(finite.all()):
        return
    row, action = (~finite).nonzero()[0].tolist()
    raise FloatingPointError(
        f"the score of {continuations[action]!r} after the prompt ending in {prompts[row][-60:]!r} is "
        f"{log_probs[row, action].item()}: the language model's weights have most likely diverged. Lower the learning "
        "rate of the language model, or start again from a checkpoint."
    )
