"""Episodes that a policy plays on the side, each decision with what an expert says of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sb3_llm.decisions import Question, ask, question_of
from sb3_llm.diary.guides import Companion, Guide
from sb3_llm.wrappers import TextObservation

Make = Callable[[], TextObservation]
MakeGuide = Callable[[], Guide] | None


@dataclass(frozen=True)
class Decision:
    """One decision, and what came of it."""

    question: Question  # that the policy was asked
    text: str  # observation text
    phrases: tuple[str, ...]
    probabilities: tuple[float, ...]  # of each phrase, under the policy and its masks
    action: int  # that was taken
    right: frozenset[int]  # actions, as the expert says; empty where none is known
    reward: float

    @property
    def agrees(self) -> bool:
        """:return: whether the likeliest action is right"""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__) in self.right

    @property
    def probability(self) -> float:
        """:return: of all right actions together"""
        return sum(self.probabilities[action] for action in self.right)


@dataclass
class Episode:
    """One episode."""

    seed: int
    decisions: list[Decision] = field(default_factory=list)
    success: bool | None = None  # None where the environment does not say
    ended: bool = False  # False if it was broken off
    lost: str | None = None  # why the expert fell silent, if it did

    @property
    def total(self) -> float:
        """:return: the sum of its rewards"""
        return sum(decision.reward for decision in self.decisions)


def agreement(decisions: Iterable[Decision]) -> tuple[float, float] | None:
    """
    :param decisions: of any episodes
    :return: in how many the likeliest action is right, as a share, and the mean probability of the right ones, both
        of the decisions in which an expert knows; None if there are none
    """
    known = [each for each in decisions if each.right]
    if not known:
        return None
    return float(np.mean([each.agrees for each in known])), float(np.mean([each.probability for each in known]))


def play(policy: Any, make: Make, make_guide: MakeGuide, seeds: Sequence[int], max_steps: int) -> list[Episode]:
    """
    Play one episode of each seed, side by side, sampled by random numbers of their own: equal policies play equally.

    ``policy.explain`` would be dearer, and knows no action masks.

    :param policy: an :class:`~sb3_llm.LLMPolicy` or :class:`~sb3_llm.MaskableLLMPolicy`
    :param make: makes a world of text
    :param make_guide: makes an expert for an episode
    :param seeds: of the episodes
    :param max_steps: where an episode is broken off
    :return: the episodes
    """
    players = [_Player(make(), Companion(make_guide() if make_guide else None), seed) for seed in seeds]
    going = players
    while going:
        asked = [question_of(policy, player.world, player.observation) for player in going]
        for player, question, row in zip(going, asked, ask(policy, asked).exp().cpu(), strict=True):
            player.step(question, row)
        going = [each for each in going if not each.episode.ended and len(each.episode.decisions) < max_steps]
    for player in players:
        player.world.close()
    return [player.episode for player in players]


class _Player:
    """One episode while it is played."""

    def __init__(self, world: TextObservation, companion: Companion, seed: int) -> None:
        self.world, self.companion, self.episode = world, companion, Episode(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.observation, _ = world.reset(seed=seed)
        companion.begin(world)

    def step(self, question: Question, row: torch.Tensor) -> None:
        """Act on (A,) probabilities, the answer to a question."""
        world, right = self.world, self.companion.right(self.world)
        text, phrases, action = world.text, world.phrases, int(torch.multinomial(row, 1, generator=self.generator))
        number = world.offer.actions[action]
        self.observation, reward, terminated, truncated, info = world.step(action)
        self.companion.note(world, number)
        answer = tuple(row[: len(phrases)].tolist())
        self.episode.decisions.append(Decision(question, text, phrases, answer, action, right, float(reward)))
        self.episode.ended = terminated or truncated
        self.episode.lost = self.companion.lost
        if self.episode.ended:
            self.episode.success = info.get("is_success")
