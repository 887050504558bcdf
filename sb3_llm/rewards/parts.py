"""
Parts of a reward that can be added up: ``reward=Goal() + StepCost(0.1) + Potential(closeness, gamma=0.99)``.

Each is a reward function by itself. :func:`~sb3_llm.make_env`'s worlds tell them more than a function of one's own: in
``info`` there are also ``terminated``, ``own_reward`` and ``phrase``, the words that were acted on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from sb3_llm.errors import SetupError

Info = dict[str, Any]


class Part(ABC):
    """A part of a reward; named in the report of what was paid."""

    name: str

    @abstractmethod
    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        """:return: what it pays for a step."""

    def __add__(self, other: Any) -> "RewardSum":
        return RewardSum((self,)) + other


@dataclass(frozen=True)
class Goal(Part):
    """Pays for success, at an episode's end."""

    amount: float = 1.0
    name: str = "goal"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        return self.amount if info.get("is_success") else 0.0


@dataclass(frozen=True)
class Own(Part):
    """The environment's own reward."""

    weight: float = 1.0
    name: str = "own"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        return self.weight * float(info["own_reward"])


@dataclass(frozen=True)
class StepCost(Part):
    """Takes the same for every step; ``but_success`` spares the one that succeeds, as in this project's mazes."""

    amount: float = 0.1
    but_success: bool = False
    name: str = "step cost"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        return 0.0 if self.but_success and info.get("is_success") else -self.amount


@dataclass(frozen=True)
class Potential(Part):
    """
    Pays for coming nearer and takes it back for going away: ``gamma * potential(next) - potential(state)``.

    Whatever the potential, the optimal policy stays the same (Ng, Harada and Russell 1999): over an episode the terms
    cancel. For that ``gamma`` must be the algorithm's, and a state that ends the task has the potential 0; a time limit
    does not end the task.

    :param potential: from a state, the environment's own observation, to a number
    :param gamma: of the algorithm; SB3's default is 0.99
    :param weight: of the whole part
    """

    potential: Callable[[Any], float]
    gamma: float = 0.99
    weight: float = 1.0
    name: str = "potential"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        after = 0.0 if info["terminated"] else float(self.potential(next_state))
        return self.weight * (self.gamma * after - float(self.potential(state)))


@dataclass(frozen=True)
class Forbidden(Part):
    """
    Takes something for acts that are forbidden; they stay possible.

    :param acts: the environment's numbers of them, or a callable ``(state, action) -> bool``
    :param amount: what each costs
    """

    acts: Collection[Any] | Callable[[Any, Any], bool]
    amount: float = 1.0
    name: str = "forbidden"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        hit = self.acts(state, action) if callable(self.acts) else action in self.acts
        return -self.amount if hit else 0.0


@dataclass(frozen=True)
class Quality(Part):
    """
    Pays for the words that were acted on; for a judge that is a model, see :class:`sb3_llm.rewards.judge.JudgedVecEnv`.

    :param score: from the phrase to a number
    :param weight: of it
    """

    score: Callable[[str], float]
    weight: float = 1.0
    name: str = "quality"

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        return self.weight * float(self.score(info["phrase"]))


@dataclass(frozen=True)
class RewardSum:
    """
    Parts added up.

    :param parts: what they are
    """

    parts: tuple[Part, ...]
    #: What each part paid for the last step, by its name; :class:`~sb3_llm.TextObservation` puts it into the info as
    #: "reward_parts".
    breakdown: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SetupError(f"two parts of a reward named {twice[0]!r}", "a name of its own for each", "pass name=")

    def __call__(self, state: Any, action: Any, next_state: Any, info: Info) -> float:
        self.breakdown.clear()
        self.breakdown.update({part.name: float(part(state, action, next_state, info)) for part in self.parts})
        return sum(self.breakdown.values())

    def __add__(self, other: Any) -> "RewardSum":
        if isinstance(other, RewardSum):
            return RewardSum((*self.parts, *other.parts))
        if isinstance(other, Part):
            return RewardSum((*self.parts, other))
        raise SetupError(f"a reward plus {other!r}", "a part of a reward, such as StepCost(0.1)", "add parts only")
