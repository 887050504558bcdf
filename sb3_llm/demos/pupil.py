"""A policy that learns from demonstrations: what is optimised is what acts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import get_device
from torch import Tensor

from sb3_llm.demos.folder import Figures
from sb3_llm.demos.lines import Demo
from sb3_llm.errors import SetupError
from sb3_llm.policy import LLMPolicy
from sb3_llm.spaces import MAX_SLOTS, SEPARATOR, PhraseSpace, TextSpace

CHUNK = 256  # lines that are rendered at a time


def all_phrases(demos: Sequence[Demo]) -> tuple[str, ...]:
    """:return: all phrases of some demonstrations, in the order in which they come up"""
    return tuple(dict.fromkeys(phrase for demo in demos for phrase in (*(demo.phrases or ()), demo.phrase)))


class Lesson:
    """
    Demonstrations in the spaces that a policy reads, checked before any model is loaded.

    :param demos: to learn from, and to measure on
    :raises SetupError: if their phrases differ from line to line and are too many, or a text can't be encoded
    """

    def __init__(self, demos: Sequence[Demo]) -> None:
        union = all_phrases(demos)
        offers = [demo.phrases or union for demo in demos]
        slots = 0 if len(set(offers)) == 1 else max(map(len, offers))
        if slots > MAX_SLOTS:
            raise SetupError(
                f'{slots} phrases on one line, where "phrases" differ from line to line',
                f"at most {MAX_SLOTS}, as a policy takes them",
                'name "phrases" on every line, the same or fewer',
            )
        self.targets = [offer.index(demo.phrase) for offer, demo in zip(offers, demos, strict=True)]
        self.offers = offers if slots else None  # None: always the same
        self.actions = spaces.Discrete(slots) if slots else PhraseSpace(offers[0])
        self._said = [(demo.observation, offer if slots else None) for demo, offer in zip(demos, offers, strict=True)]
        longest = max(len(SEPARATOR.join((text, *(offer or ()))).encode()) for text, offer in self._said)
        self.texts = TextSpace(max(longest, 1 + 2 * slots), slots)
        for said in self._said:
            self.texts.encode(*said)  # its checks

    def observations(self) -> Iterator[np.ndarray]:
        """:return: batches of observations, as an environment would give them"""
        for start in range(0, len(self._said), CHUNK):
            yield np.stack([self.texts.encode(*said) for said in self._said[start : start + CHUNK]])


class Pupil:
    """
    A policy and the demonstrations that it learns from. Lines are named by their place among these.

    :param lesson: the demonstrations
    :param settings: keywords of the policy
    :param lr: learning rate
    :param seed: of adapters
    :param device: "cpu", "cuda" or "auto"
    :raises SetupError: as the policy, or if a prompt is too long for the model
    """

    def __init__(self, lesson: Lesson, settings: dict[str, Any], lr: float, seed: int, device: str = "auto") -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = LLMPolicy(lesson.texts, lesson.actions, lambda _: lr, **settings)
        self.policy.to(get_device(device))
        self._offers = lesson.offers
        self._targets = torch.tensor(lesson.targets, device=self.policy.device)
        self._prompts = [
            prompt for batch in lesson.observations() for prompt in self.policy.render(torch.from_numpy(batch))
        ]
        self._require_room()

    def log_probs(self, lines: Sequence[int]) -> Tensor:
        """
        :param lines: B of them
        :return: (B, A) log pi over what could be said, as :meth:`LLMPolicy.action_log_probs`; differentiable
        """
        offers = [self._offers[line] for line in lines] if self._offers else None
        return self.policy.action_log_probs([self._prompts[line] for line in lines], offers)

    def said(self, lines: Sequence[int], log_probs: Tensor) -> Tensor:
        """:return: (B,) of (B, A) log-probabilities, those of what was said"""
        return log_probs.gather(1, self._targets[list(lines)].unsqueeze(1)).squeeze(1)

    def loss(self, lines: Sequence[int]) -> Tensor:
        """:return: the mean cross-entropy of what was said, in nats; differentiable"""
        return -self.said(lines, self.log_probs(lines)).mean()

    @torch.no_grad()
    def measure(self, lines: Sequence[int], batch: int) -> Figures | None:
        """:return: accuracy and mean log-probability; None without lines"""
        if not len(lines):
            return None
        right, total = 0, 0.0
        for start in range(0, len(lines), batch):
            part = lines[start : start + batch]
            log_probs = self.log_probs(part)
            right += int((log_probs.argmax(dim=1) == self._targets[list(part)]).sum())
            total += float(self.said(part, log_probs).double().sum())
        return Figures(right / len(lines), total / len(lines))

    def _require_room(self) -> None:
        """Tokenise everything once: a prompt that is too long should show now, and not after an hour."""
        tokens = self.policy._scorer.tokens
        for start in range(0, len(self._prompts), CHUNK):
            prompts = self._prompts[start : start + CHUNK]
            offers = self._offers[start : start + CHUNK] if self._offers else None
            tokens.rows(prompts, self.policy._continuations(prompts, offers))
