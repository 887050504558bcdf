"""Scores remembered while weights stay the same, within a bound of memory."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from sb3_llm.scoring.rows import Scores

ENTRY_BYTES = 2048  # of a question's texts, the two tensors themselves, and their place


class Memo:
    """
    Answers by question. Whoever keeps it clears it when weights change.

    :param max_bytes: of remembered numbers and texts; beyond it the answers not asked for longest are dropped
    """

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._answers: OrderedDict[Hashable, tuple[Tensor, Tensor]] = OrderedDict()  # (A,) and (H,) each
        self._bytes = 0

    def __contains__(self, question: Hashable) -> bool:
        return question in self._answers

    def trim(self) -> None:
        """Drop answers until the rest is within the bound."""
        while self._bytes > self.max_bytes:
            self._bytes -= _cost(self._answers.popitem(last=False)[1])

    def keep(self, questions: Sequence[Hashable], scores: Scores) -> None:
        """
        Remember, until the next :meth:`trim` at least.

        :param questions: U distinct questions that are not remembered
        :param scores: their answers
        """
        # Copies: a row of a batch would keep the whole batch alive.
        answers = [(log_probs.clone(), features.clone()) for log_probs, features in zip(*scores, strict=True)]
        self._answers.update(zip(questions, answers, strict=True))
        self._bytes += sum(map(_cost, answers))

    def get(self, questions: Sequence[Hashable]) -> Scores:
        """
        :param questions: B remembered questions
        :return: their answers
        """
        for question in questions:
            self._answers.move_to_end(question)
        answers = [self._answers[question] for question in questions]
        return Scores(*(torch.stack(parts) for parts in zip(*answers, strict=True)))


def _cost(answer: tuple[Tensor, Tensor]) -> int:
    return sum(part.nbytes for part in answer) + ENTRY_BYTES
