"""The model under examination: a rollout it has played, one update it is given, and all as before in the end."""

import time
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_llm.decisions import Question, read_rollout
from sb3_llm.doctor.watches import Stopwatch
from sb3_llm.scoring import PhraseScores
from sb3_llm.spaces import TextSpace

DECISIONS = 128  # to play
MINIBATCHES = 4  # of the update: what starts at zero hides the gradient of what stands before it for one step


class Patient:
    """
    A model that has played its environment.

    :param model: any of SB3's on-policy algorithms, with an environment and a policy that is a language model
    """

    def __init__(self, model: OnPolicyAlgorithm) -> None:
        self.model: Any = model
        self.policy: Any = model.policy
        self.learning_rate = float(self.model.lr_schedule(1.0))
        self.n_epochs = getattr(model, "n_epochs", 1)
        self.rollout = play(model)
        #: Distinct prompts with their phrases and masks.
        self.questions: list[Question] = list(read_rollout(model).counts)

    def some(self, most: int) -> list[Question]:
        """:return: so many questions at most, evenly from the one with the shortest prompt to the longest"""
        ordered = sorted(self.questions, key=lambda question: len(question[0]))
        places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))
        return [ordered[place] for place in places]

    def score(self, questions: list[Question], remembered: bool = False) -> PhraseScores:
        """:return: what the policy's scorer says, out of its memory only if ``remembered``"""
        if not remembered:
            self.policy.clear_memo()
        prompts, phrases, _ = zip(*questions, strict=True)
        return self.policy._ask(list(prompts), None if phrases[0] is None else list(phrases))

    @cached_property
    def update(self) -> "Update":
        """One small update on made-up returns; the checks that ask for it find the model after it."""
        return Update(self)


class Rollout(BaseCallback):
    """What was seen while the environment was played, and how long it took."""

    def __init__(self) -> None:
        super().__init__()
        self.acting, self.forward = Stopwatch(), Stopwatch()
        self.env_seconds = 0.0
        self.decisions = 0
        self.states: set[bytes] = set()  # what the environment itself observes
        self.seen: Counter[bytes] = Counter()  # what the policy gets of it
        self.texts: dict[bytes, str] = {}

    def see(self, observations: Any) -> None:
        """:param observations: of all environments, as they stand now"""
        space = self.model.observation_space
        rows = [digest(row) for row in _rows(observations)]
        self.seen.update(rows)
        if not isinstance(space, TextSpace):
            self.states.update(rows)
            return
        for row, observation in zip(rows, observations, strict=True):
            self.texts.setdefault(row, observation)
        if self.training_env.has_attr("state"):
            self.states.update(digest(state) for state in self.training_env.get_attr("state"))

    def _on_training_start(self) -> None:
        self.see(self.model._last_obs)  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        self.env_seconds += time.perf_counter() - self.acting.ended
        self.decisions += self.model.n_envs
        self.see(self.locals["new_obs"])
        return True
