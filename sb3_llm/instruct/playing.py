"""Whole episodes by what the model writes, and what became of its words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sb3_llm.fluency import perplexity
from sb3_llm.instruct.instruction import Instruction

SAMPLES = 256  # of what was written, to measure fluency on


class Speaker:
    """
    Plays by instructions: an action for each, and a random allowed one for what is forbidden or not understood.

    :param policy: an :class:`~sb3_llm.LLMPolicy`
    :param constrained: token by token inside the phrases
    :param seed: of the random actions
    """

    def __init__(self, policy: Any, constrained: bool = False, seed: int = 0) -> None:
        self.policy, self.constrained = policy, constrained
        self.understood: Counter[str] = Counter()  # by how
        self._rng = np.random.default_rng(seed)
        self._samples: list[tuple[str, str]] = []  # (prompt, what was written)

    def predict(
        self, observation: Any, deterministic: bool = False, action_masks: Any = None, **_: Any
    ) -> tuple[NDArray[np.int64], None]:
        """:return: an action for each observation, and no state."""
        how = {"greedy": deterministic, "constrained": self.constrained, "action_masks": action_masks}
        found = self.policy.instruct(observation, **how)
        self.understood.update(each.how for each in found)
        if len(self._samples) < SAMPLES:
            prompts = self.policy.render(observation)
            self._samples += [(prompt, each.text) for prompt, each in zip(prompts, found, strict=True)]
        allowed = self.policy.allowed(observation, action_masks)
        return np.array([self._act(each, rights) for each, rights in zip(found, allowed, strict=True)]), None

    def _act(self, instruction: Instruction, rights: Sequence[bool]) -> int:
        if instruction.action is not None:
            return instruction.action
        return int(self._rng.choice([action for action, right in enumerate(rights) if right]))

    @property
    def not_understood(self) -> float:
        """:return: the share of instructions."""
        return self.understood["not understood"] / max(1, self.understood.total())

    def fluency(self, lm: PreTrainedModel) -> float:
        """
        :param lm: a judge, such as ``policy.base_lm()``
        :return: its perplexity per token on what was written, given the prompts; NaN if nothing was
        """
        template, tokenizer = self.policy._template, self.policy.tokenizer
        parts, given = [], []
        for prompt, text in self._samples[:SAMPLES]:
            before, whole = tokenizer(
                [prompt, f"{prompt}{template.separator}{text}"], add_special_tokens=template.special_tokens
            )["input_ids"]
            if len(whole) > len(before):
                parts.append(whole)
                given.append(len(before))
        return perplexity(lm, parts, given) if parts else float("nan")
