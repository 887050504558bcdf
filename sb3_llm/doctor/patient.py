"""The model under examination: what it was asked in a rollout, and one update that it is given."""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from sb3_llm.decisions import Question, read_rollout
from sb3_llm.doctor.playing import now, play
from sb3_llm.doctor.unchanged import weights
from sb3_llm.scoring import PhraseScores

MINIBATCHES = 4  # of the update: what starts at zero hides the gradient of what stands before it, for one step


class Patient:
    """
    A model that has played its environment.

    :param model: any of SB3's on-policy algorithms, with an environment and a policy that is a language model
    """

    def __init__(self, model: Any) -> None:
        self.model, self.policy = model, model.policy
        self.learning_rate, self.n_epochs = float(model.lr_schedule(1.0)), getattr(model, "n_epochs", 1)
        self.rollout = play(model)
        #: Distinct prompts with their phrases and masks.
        self.questions: list[Question] = list(read_rollout(model).counts)

    def some(self, most: int) -> list[Question]:
        """:return: so many questions at most, evenly from the one with the shortest prompt to the longest"""
        ordered = sorted(self.questions, key=lambda question: len(question[0]))
        places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))
        return [ordered[place] for place in places]

    def score(self, questions: list[Question], remembered: bool = False) -> PhraseScores:
        """:return: what the policy's scorer says of them, out of its memory only if ``remembered``"""
        if not remembered:
            self.policy.clear_memo()
        prompts, phrases = split(questions)
        return self.policy._ask(prompts, phrases)

    @cached_property
    def update(self) -> "Update":
        """One small update on made-up returns. Checks that ask for it find the model after it."""
        return Update(self)


def split(questions: list[Question]) -> tuple[list[str], list[tuple[str, ...]] | None]:
    """:return: prompts, and the phrases that came with each, if they did"""
    prompts, phrases = [each[0] for each in questions], [each[1] for each in questions]
    known = [each for each in phrases if each is not None]
    return prompts, known or None


class Update:
    """
    One small update, and what it did to the weights.

    Returns and advantages are random numbers: where no reward was met there is nothing to learn, and weights that then
    stay are no fault. The value warm-up counts as over, for the same reason.

    :param patient: with a rollout
    """

    def __init__(self, patient: Patient) -> None:
        model, policy = patient.model, patient.policy
        before = {name: tensor.detach().clone() for name, tensor in weights(policy)}
        _make_small(model)
        for group in policy.optimizer.param_groups:
            group["updates"] = max(group.get("updates", 0), policy._settings["value_warmup"])
        start = now()
        for _ in range(1 if hasattr(model, "n_epochs") else 2):  # A2C and TRPO take one step with all there is
            model.train()
        self.seconds = now() - start
        #: Names of the tensors that moved.
        self.moved = {name for name, tensor in weights(policy) if not torch.equal(tensor, before[name])}
        gradients = [each.grad for each in policy.parameters() if each.grad is not None]
        self.gradient = torch.stack([each.norm() for each in gradients]).norm().item() if gradients else 0.0


def _make_small(model: Any) -> None:
    buffer, numbers = model.rollout_buffer, np.random.default_rng(0)
    buffer.returns[:] = numbers.normal(size=buffer.returns.shape)
    buffer.advantages[:] = numbers.normal(size=buffer.advantages.shape)
    if hasattr(model, "batch_size"):
        model.batch_size = max(2, min(model.batch_size, buffer.returns.size // MINIBATCHES))
    if hasattr(model, "n_epochs"):
        model.n_epochs, model.target_kl = 1, None  # it may end an epoch early
    if hasattr(model, "cg_max_steps"):  # TRPO: its direction need not be exact to show what moves
        model.cg_max_steps, model.n_critic_updates = 2, 1
