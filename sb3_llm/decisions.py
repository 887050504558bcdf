"""What a rollout's decisions were made from, and figures about them: entropy, drift, the ratio before an update."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from sb3_llm.base import kl_divergence
from sb3_llm.core import LanguageModelCore
from sb3_llm.masks import renormalised
from sb3_llm.wrappers import TextObservation

Phrases = tuple[str, ...]
Question = tuple[str, Phrases | None, bytes | None]  # prompt, the phrases that came with it, its action mask


@dataclass(frozen=True)
class Decisions:
    """
    The decisions of a rollout, equal questions together.

    :param counts: how often each question came; its prompt, its phrases (None where the policy has its own), its mask
    :param chosen: how often each phrase was chosen, where there was a choice
    :param log_probs: (Q, A) log pi over the actions allowed, minus infinity elsewhere
    """

    counts: dict[Question, int]
    chosen: Counter[str]
    log_probs: Tensor

    def __len__(self) -> int:
        return sum(self.counts.values())

    def some(self, most: int) -> "Decisions":
        """:return: the same, with ``most`` of its distinct questions at most, evenly from the first to the last"""
        if len(self.counts) <= most:
            return self
        places = np.linspace(0, len(self.counts) - 1, most).astype(int).tolist()
        questions = list(self.counts.items())
        return replace(self, counts=dict(questions[place] for place in places), log_probs=self.log_probs[places])


def read_rollout(model: BaseAlgorithm) -> Decisions:
    """
    :param model: its buffer as it is when a rollout ends, and its policy as it acted
    :return: the decisions
    """
    policy: Any = model.policy
    observations, actions, masks = (_flat(model, name) for name in ("observations", "actions", "action_masks"))
    prompts = policy.render(observations)
    phrases = policy._read_phrases(observations) if policy._read_phrases else [None] * len(prompts)
    keys = [None] * len(prompts) if masks is None else [row.astype(bool).tobytes() for row in masks]
    questions: list[Question] = list(zip(prompts, phrases, keys, strict=True))
    counts = Counter(questions)
    log_probs = ask(policy, list(counts))
    free = (log_probs.isfinite().sum(dim=1) > 1).tolist()
    choice = dict(zip(counts, free, strict=True))
    taken = [
        (question[1] or policy.phrases)[int(action)]
        for question, action in zip(questions, actions.ravel(), strict=True)
        if choice[question]
    ]
    return Decisions(counts, Counter(taken), log_probs)


def question_of(policy: Any, world: TextObservation, observation: Any) -> Question:
    """
    :param policy: that will be asked
    :param world: in its present state
    :param observation: that it gave last
    :return: what the policy is asked there, with the masks if it knows any
    """
    masked = isinstance(policy, MaskableActorCriticPolicy) and is_masking_supported(world)
    mask = np.asarray(get_action_masks(world)).astype(bool).tobytes() if masked else None
    return policy.render(observation[None])[0], tuple(world.phrases) if policy._read_phrases else None, mask


def ask(policy: LanguageModelCore, questions: Sequence[Question], base: bool = False) -> Tensor:
    """
    :param policy: with phrases of its own or not, with masks or not
    :param questions: Q of them
    :param base: ask the base model instead
    :return: (Q, A) log pi over the actions allowed, minus infinity elsewhere
    """
    prompts, phrases, keys = zip(*questions, strict=True)
    score = policy.base_log_probs if base else policy.action_log_probs
    with torch.no_grad():
        log_probs = score(list(prompts), None if phrases[0] is None else list(phrases)).double()
    if keys[0] is None:
        return log_probs
    allowed = torch.from_numpy(np.stack([np.frombuffer(key, dtype=bool) for key in keys])).to(log_probs.device)
    return renormalised(log_probs, allowed)


def entropy(window: Sequence[Decisions]) -> dict[str, float]:
    """
    :param window: rollouts, or what another policy says of them
    :return: the policy's entropy, mean over all decisions, and its share of the greatest possible, which is the
        logarithm of the number of actions allowed; no share where there was never a choice
    """
    mean = _mean([torch.special.entr(each.log_probs.exp()).sum(dim=1) for each in window], window)
    most = _mean([each.log_probs.isfinite().sum(dim=1).double().log() for each in window], window)
    return {"watch/entropy": mean} | ({"watch/entropy_share": mean / most} if most > 0 else {})


def asked_again(window: Sequence[Decisions], policy: LanguageModelCore, base: bool = False) -> list[Decisions]:
    """
    :param window: rollouts
    :param policy: as it is now
    :param base: ask its base model instead
    :return: the same rollouts, with what is now said of their questions, under the same masks
    """
    return [replace(each, log_probs=ask(policy, list(each.counts), base)) for each in window]


def drift(window: Sequence[Decisions], base: Sequence[Decisions]) -> float:
    """
    :param window: rollouts
    :param base: the same, as the base model sees them
    :return: KL(pi || pi of the base model) in nats, mean over all decisions
    """
    pairs = zip(window, base, strict=True)
    # Equal ones are off 0 by rounding.
    return _mean([kl_divergence(mine.log_probs, theirs.log_probs).clamp(min=0) for mine, theirs in pairs], window)


def _mean(values: Sequence[Tensor], window: Sequence[Decisions]) -> float:
    """The mean of a figure of each question, which counts as often as the question came."""
    counts = torch.tensor([count for each in window for count in each.counts.values()], dtype=torch.double)
    return ((torch.cat(list(values)).cpu() * counts).sum() / counts.sum()).item()


def ratio_error(model: BaseAlgorithm, samples: int) -> float:
    """
    How far the update's first ratios are from 1, which they would all be if it saw what acted.

    Computed as the update does: in training mode, with gradients on, so that nothing remembered is returned, and never
    more decisions at once than it takes itself.

    :param model: before an update
    :param samples: decisions at most, evenly out of the buffer
    :return: max |pi_now / pi_acting - 1|
    """
    buffer: Any = model.rollout_buffer  # type: ignore[attr-defined]
    names = ("observations", "actions", "log_probs", "action_masks")
    observations, actions, before, masks = (_flat(model, name) for name in names)
    places = np.unique(np.linspace(0, len(before) - 1, min(samples, len(before))).astype(int))
    size = min(samples, getattr(model, "batch_size", None) or samples)
    policy: Any = model.policy
    policy.set_training_mode(True)  # also forgets scores: in value warm-up the update has no gradients either
    worst = [0.0]
    for start in range(0, len(places), size):
        some = places[start : start + size]
        given = {} if masks is None else {"action_masks": buffer.to_torch(masks[some])}
        with torch.enable_grad():
            _, now, _ = policy.evaluate_actions(
                _some(buffer, observations, some), buffer.to_torch(actions[some]).long().flatten(), **given
            )
        error = (now.detach() - buffer.to_torch(before[some]).flatten()).exp() - 1
        worst.append(error.abs().max().item())
    return float(np.max(worst))  # NaN if one is


def _flat(model: BaseAlgorithm, name: str) -> Any:
    """An array of the buffer, or a dict of them, from (n_steps, n_envs, ...) to (N, ...); None if it has no such."""
    buffer: Any = model.rollout_buffer  # type: ignore[attr-defined]
    part = getattr(buffer, name, None)
    if part is None or buffer.generator_ready:  # flat already: another callback has called its get()
        return part
    if isinstance(part, dict):
        return {key: RolloutBuffer.swap_and_flatten(each) for key, each in part.items()}
    return RolloutBuffer.swap_and_flatten(part)


def _some(buffer: RolloutBuffer, observations: Any, places: np.ndarray) -> Any:
    if isinstance(observations, dict):
        return {key: buffer.to_torch(part[places]) for key, part in observations.items()}
    return buffer.to_torch(observations[places])
