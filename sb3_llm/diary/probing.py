"""Probe prompts, asked at every look, with what was said of them before."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_llm.decisions import Question, ask
from sb3_llm.diary.pages import probe_page
from sb3_llm.diary.playing import Decision
from sb3_llm.probes import Probes, check_probes, choose_probes, read_probes


class Probing:
    """
    The probes of a training, and their answers so far.

    :param probes: prompts, (prompt, phrases), or a number of them to choose
    :raises SetupError: if it is something else
    """

    def __init__(self, probes: Probes) -> None:
        self.number, self.questions = read_probes(probes)
        #: Steps of training and the probabilities of each probe's phrases, at each look.
        self.history: list[tuple[int, list[list[float]]]] = []

    def begin(self, policy: Any, step: int) -> None:
        """
        :param policy: that will be asked
        :param step: of training; where it is one before the last look's, another training begins
        :raises SetupError: if a probe lacks phrases, or has some where the policy has its own
        """
        check_probes(self.questions, policy)
        if self.history and step < self.history[-1][0]:
            self.history = []

    def choose(self, decisions: Iterable[Decision]) -> None:
        """
        Take as many probes as are wanted, unless there are some already.

        :param decisions: out of which they are taken
        """
        if not self.questions and self.number:
            self.questions = choose_probes(list(dict.fromkeys(each.question for each in decisions)), self.number)

    def ask(self, policy: Any, step: int, with_base: bool) -> list[str]:
        """
        :param policy: as it is now
        :param step: of training
        :param with_base: ask its base model too
        :return: a page for each probe
        """
        if not self.questions:
            return []
        now = _shares(policy, self.questions)
        base = _shares(policy, self.questions, base=True) if with_base else [None] * len(now)
        last = self.history[-1][1] if self.history else [None] * len(now)
        self.history.append((step, now))
        prompts = [prompt for prompt, *_ in self.questions]
        return list(map(probe_page, prompts, self.phrases(policy), now, base, last))

    def phrases(self, policy: Any) -> list[tuple[str, ...]]:
        """:return: of each probe."""
        return [phrases or tuple(policy.phrases) for _, phrases, _ in self.questions]

    def tables(self) -> tuple[list[int], list[NDArray[np.float64]]]:
        """:return: (L,) steps of the looks, and of each probe (L, A) probabilities."""
        steps = [step for step, _ in self.history]
        return steps, [np.array([rows[place] for _, rows in self.history]) for place in range(len(self.questions))]


def _shares(policy: Any, questions: list[Question], base: bool = False) -> list[list[float]]:
    """Of each question, the probability of each of its phrases."""
    rows = ask(policy, questions, base).exp().tolist()
    counts = [len(phrases or policy.phrases) for _, phrases, _ in questions]
    return [row[:count] for row, count in zip(rows, counts, strict=True)]
