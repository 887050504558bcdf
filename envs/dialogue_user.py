"""The user of the dialogue: a goal, and answers to the system's acts as the system hears them."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

#: How many values each slot has: food, area, people, day. A value is a number from 1; 0 stands for none.
SIZES = (6, 5, 4, 5)
N_SLOTS = len(SIZES)
VOLUNTEERS = 0.25  # told something, the user adds another slot that is still unknown
CORRECTS = 0.7  # a "no" comes with the right value
CHANGES = 0.03  # for each turn, once a dialogue: the user wants something else for a slot that is known
YES_NO_NOISE = 1 / 3  # "yes" and "no" are misheard less often than values are, by this factor


class UserAct(IntEnum):
    """What the user is heard to do."""

    GREET = 0
    TELL = 1  # the value of a slot, and perhaps of another
    YES = 2
    NO = 3
    CORRECT = 4  # no, and the right value
    CHANGE = 5  # of mind
    PUZZLED = 6  # asked to confirm what was never said
    GOODBYE = 7


class Reply(NamedTuple):
    """One turn of the user, as heard."""

    act: UserAct
    slot: int | None = None  # that it is about
    value: int = 0  # of that slot
    denied: int = 0  # a value of that slot that the user doesn't want
    extra: int | None = None  # a slot told unasked
    extra_value: int = 0


class User:
    """
    Someone who wants to eat out.

    :param random: where all chance comes from
    :param noise: how often a value is misheard
    """

    def __init__(self, random: np.random.Generator, noise: float) -> None:
        self.random, self.noise = random, noise
        self.goal = [int(random.integers(1, size + 1)) for size in SIZES]
        self.changed = False  # of mind

    def answer(self, slot: int, heard: Sequence[int]) -> Reply:
        """
        :param slot: that the user is asked for
        :param heard: what the system has heard so far, one value for each slot
        :return: its value, or a change of mind
        """
        change = self._change(heard)
        if change is not None:
            return change
        value = self._tell(slot)
        unknown = [other for other in range(N_SLOTS) if other != slot and heard[other] == 0]
        if not unknown or not self._happens(VOLUNTEERS):
            return Reply(UserAct.TELL, slot, value)
        extra = int(self.random.choice(unknown))
        return Reply(UserAct.TELL, slot, value, extra=extra, extra_value=self._tell(extra))

    def confirm(self, slot: int, heard: Sequence[int]) -> Reply:
        """
        :param slot: that the user is asked to confirm
        :param heard: what the system has heard so far
        :return: yes, no, no with the right value, or a change of mind
        """
        change = self._change(heard)
        if change is not None:
            return change
        asked = heard[slot]
        if asked == 0:
            return Reply(UserAct.PUZZLED, slot)
        right = asked == self.goal[slot]
        if right != self._happens(self.noise * YES_NO_NOISE):
            return Reply(UserAct.YES, slot, asked)
        if right or not self._happens(CORRECTS):
            return Reply(UserAct.NO, slot, denied=asked)
        return Reply(UserAct.CORRECT, slot, self._tell(slot, asked), denied=asked)

    def wants(self, heard: Sequence[int]) -> bool:
        """:return: whether the table with these values is the one the user wants."""
        return list(heard) == self.goal

    def _change(self, heard: Sequence[int]) -> Reply | None:
        known = [slot for slot in range(N_SLOTS) if heard[slot]]
        if self.changed or not known or not self._happens(CHANGES):
            return None
        self.changed = True
        slot = int(self.random.choice(known))
        self.goal[slot] = self._another(slot, self.goal[slot])
        return Reply(UserAct.CHANGE, slot, self._tell(slot))

    def _tell(self, slot: int, denied: int = 0) -> int:
        """The wanted value as heard; nobody hears "not thai, thai"."""
        goal = self.goal[slot]
        return self._another(slot, goal, denied) if self._happens(self.noise) else goal

    def _another(self, slot: int, *but: int) -> int:
        values = [value for value in range(1, SIZES[slot] + 1) if value not in but]
        return int(self.random.choice(values))

    def _happens(self, probability: float) -> bool:
        return bool(self.random.random() < probability)
