"""Behaviour cloning: tune a language model on demonstrations, before RL, by the loss that its policy acts on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import get_device
from tqdm import tqdm

from sb3_llm.demos.folder import CloneFolder, CloneReport, Figures
from sb3_llm.demos.lines import Demo, checked_lines, read_demos
from sb3_llm.demos.pupil import Lesson, Pupil
from sb3_llm.errors import SetupError
from sb3_llm.prompt import Template
from sb3_llm.settings import complete
from sb3_llm.spaces import is_whole
from sb3_llm.training import TrainingStopped

SETTINGS = ("revision", "normalization", "temperature", "dtype", "micro_batch")  # keywords of the policy that fit here
WARM_UP = 0.1  # of all steps, in which the learning rate grows; in the rest it falls


@dataclass(frozen=True)
class Plan:
    """How lines are gone through."""

    train: Sequence[int]
    held_out: Sequence[int]
    epochs: int
    batch: int
    lr: float
    seed: int
    save_every: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def lines(self, step: int) -> list[int]:
        """:return: the lines of a step; no step depends on another, so that a run can go on anywhere"""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.train)
        return order[place * self.batch : (place + 1) * self.batch].tolist()

    def rate(self, step: int) -> float:
        """:return: the learning rate of a step: a straight line up, and one down to nearly nothing"""
        warm = max(1, round(WARM_UP * self.steps))
        return self.lr * min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm), 1.0)


def clone(
    model: str | Path,
    demos: str | Path | Sequence[Demo],
    out: str | Path,
    epochs: int = 3,
    lr: float = 1e-4,
    finetune: str | dict[str, Any] = "full",
    template: str | dict[str, str] | None = None,
    seed: int = 0,
    batch: int = 32,
    held_out: float = 0.1,
    progress: bool = True,
    *,
    save_every: int = 20,
    device: str = "auto",
    **settings: Any,
) -> CloneReport:
    """
    Tune a causal language model on demonstrations, and save it for ``policy_kwargs={"model": out}``.

    The loss is the cross-entropy of the phrase that was said among those that could be said, as the policy scores them:
    same template, tokens, normalization and temperature. Called again with the same arguments after Ctrl-C or a kill,
    it goes on from its last state, and on a CPU ends in the same weights, bit for bit.

    :param model: "embedded", a local folder, or a hub name
    :param demos: a file of demonstrations, or demonstrations
    :param out: folder for model, ``clone.json`` and, until it is finished, the state to go on from
    :param epochs: how often every line is gone through
    :param lr: the largest learning rate; 1e-4 suits models of some million parameters, 1e-5 those of hundreds
    :param finetune: what is trained, as :class:`~sb3_llm.LLMPolicy` takes it; adapters are merged in the end
    :param template: as the policy will have it; its default by default
    :param seed: of the order of lines, of adapters, and of what is held out
    :param batch: lines of a step
    :param held_out: share of lines to measure on, whole episodes where these are known; 0 for none
    :param progress: show a bar
    :param save_every: steps between two states
    :param device: "cpu", "cuda" or "auto"
    :param settings: ``revision``, ``normalization``, ``temperature``, ``dtype``, ``micro_batch``, as the policy has
    :return: accuracy and mean log-probability on held-out lines before and after
    :raises SetupError: for bad arguments, before a model is loaded; or for what the model can't do
    :raises TrainingStopped: if weights are not numbers any more
    """
    chosen = _settings(str(model), finetune, template, settings)
    _check_numbers(epochs, lr, seed, batch, held_out, save_every)
    _check_device(device)
    lines = _demos(demos)
    train, kept = split(lines, held_out, seed)
    plan = Plan(train, kept, epochs, batch, float(lr), seed, save_every)
    numbers: dict[str, Any] = {
        "epochs": int(epochs),
        "seed": int(seed),
        "batch": int(batch),
        "save_every": int(save_every),
    }
    numbers |= {"lr": float(lr), "held_out": float(held_out)}
    folder = CloneFolder(Path(out), {**_told(chosen), **numbers, "demos": _digest(lines)})
    finished = folder.claim()
    if finished is not None:
        return finished
    lesson = Lesson(lines)
    pupil = Pupil(lesson, chosen, plan.lr, seed, device)
    folder.begin()
    before = _train(pupil, plan, folder, progress)
    seen = {lines[line][:2] for line in train}
    report = CloneReport(
        folder=str(out),
        policy_kwargs=folder.policy_kwargs(),
        lines=len(train),
        held_out_lines=len(kept),
        held_out_seen=sum(lines[line][:2] in seen for line in kept),
        steps=plan.steps,
        before=before,
        after=pupil.measure(kept, batch),
    )
    folder.finish(pupil.policy, report)
    return report


def split(demos: Sequence[Demo], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """
    :param demos: demonstrations
    :param held_out: share of lines to hold out
    :param seed: which
    :return: places of the lines to train on and of those held out; lines of one episode are never parted
    :raises SetupError: if there is but one episode
    """
    groups: dict[Any, list[int]] = {}
    for place, demo in enumerate(demos):
        groups.setdefault(("line", place) if demo.episode is None else demo.episode, []).append(place)
    if not held_out:
        return list(range(len(demos))), []
    if len(groups) < 2:
        given = f"{len(demos)} lines of one episode" if len(demos) > 1 else "1 line"
        mend = "record more, or pass held_out=0, which leaves nothing to measure on"
        raise SetupError(f"{given} with held_out={held_out}", "at least two episodes, one of them to hold out", mend)
    members = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(members))
    kept: list[int] = []
    for group in order[:-1]:  # one is left to train on
        if len(kept) >= held_out * len(demos):
            break
        kept += members[group]
    return sorted(set(range(len(demos))) - set(kept)), sorted(kept)


def _train(pupil: Pupil, plan: Plan, folder: CloneFolder, progress: bool) -> Figures | None:
    """From the last state to the end. Returns the figures before training."""
    policy, state = pupil.policy, folder.load()
    if state is None:
        state = _state(pupil, 0, pupil.measure(plan.held_out, plan.batch))
        folder.save(state)
    else:
        policy.load_state_dict(state["policy"])
        policy.optimizer.load_state_dict(state["optimizer"])
    policy.clear_memo()  # what is remembered was rounded as its batch: forgotten where a run that goes on has nothing
    before = state["before"] and Figures(**state["before"])
    with tqdm(total=plan.steps, initial=state["step"], desc="cloning", unit="step", disable=not progress) as bar:
        for step in range(state["step"], plan.steps):
            bar.set_postfix(loss=f"{_step(pupil, plan, step):.3f}", refresh=False)
            bar.update()
            if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
                folder.save(_state(pupil, step + 1, before))
                policy.clear_memo()
    return before


def _state(pupil: Pupil, step: int, before: Figures | None) -> dict[str, Any]:
    policy = pupil.policy
    told = before and {"accuracy": before.accuracy, "mean_log_prob": before.mean_log_prob}
    return {"policy": policy.state_dict(), "optimizer": policy.optimizer.state_dict(), "step": step, "before": told}


def _step(pupil: Pupil, plan: Plan, step: int) -> float:
    optimizer = pupil.policy.optimizer
    for group in optimizer.param_groups:
        group["lr"] = plan.rate(step)
    optimizer.zero_grad()
    try:
        loss = pupil.loss(plan.lines(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([each for each in pupil.policy.lm.parameters() if each.requires_grad], 1.0)
        optimizer.step()
    except FloatingPointError as error:
        given = f"step {step + 1} of {plan.steps}: {error}"
        raise TrainingStopped(f"{given} Clone again into another folder, with a smaller lr than {plan.lr}.") from error
    return loss.item()


def _settings(model: str, finetune: Any, template: Any, others: dict[str, Any]) -> dict[str, Any]:
    """All keywords of the policy, checked as far as that goes without a model."""
    unknown = [name for name in others if name not in SETTINGS]
    if unknown:
        expected = f"clone's own arguments, or {', '.join(SETTINGS)} as the policy takes them"
        raise SetupError(f"the argument {unknown[0]!r}", expected, "check the spelling, or leave it out")
    given: Any = {"model": model, "finetune": finetune, **others}
    if template is not None:
        given["template"] = template
    chosen = complete(given)
    if isinstance(chosen["template"], str):
        Template(chosen["template"], [])  # its checks
    return chosen


def _told(chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: chosen[name] for name in ("model", "finetune", "template", *SETTINGS)}


def _check_numbers(epochs: Any, lr: Any, seed: Any, batch: Any, held_out: Any, save_every: Any) -> None:
    whole = {"epochs": (epochs, 1), "batch": (batch, 1), "save_every": (save_every, 1), "seed": (seed, 0)}
    for name, (given, least) in whole.items():
        if not is_whole(given) or given < least:
            raise SetupError(f"{name}={given!r}", f"a whole number, {least} or more", f"leave {name} out")
    for name, given, fits, expected in (
        ("lr", lr, lambda x: 0 < x < float("inf"), "a number above 0"),
        ("held_out", held_out, lambda x: 0 <= x < 1, "a share from 0 to below 1"),
    ):
        if isinstance(given, bool) or not isinstance(given, int | float) or not fits(given):
            raise SetupError(f"{name}={given!r}", expected, f"leave {name} out")


def _check_device(device: Any) -> None:
    try:
        get_device(device)
    except (RuntimeError, TypeError, AttributeError):
        raise SetupError(f"device={device!r}", '"cpu", "cuda" or "auto"', "leave device out") from None


def _demos(demos: Any) -> list[Demo]:
    if isinstance(demos, str | Path):
        return read_demos(demos)
    if not isinstance(demos, Sequence) or not demos or not all(isinstance(each, Demo) for each in demos):
        given = f"demos of type {type(demos).__name__}" if demos else f"demos={demos!r}"
        raise SetupError(given, "a file of demonstrations, or a list of Demo", "pass the path that record wrote to")
    checked_lines(demos)  # its checks
    return list(demos)


def _digest(demos: Sequence[Demo]) -> str:
    return hashlib.sha256(checked_lines(demos)).hexdigest()
