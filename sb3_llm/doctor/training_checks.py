"""Checks of training: what the optimizer holds, what an update moves, what a zip holds, and where the time goes."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sb3_llm.decisions import ask
from sb3_llm.doctor.finding import Measured
from sb3_llm.doctor.patient import Patient
from sb3_llm.doctor.unchanged import weights
from sb3_llm.optim import LANGUAGE_MODEL

FIXED_BYTES = 2**17  # of a zip that has no weights in it: settings, spaces, the names of tensors
LAST_OBSERVATIONS = 4  # bytes for each of the last observations, which are saved as text
SLACK = 1.1  # of a zip's weights over their bytes in memory
EQUAL = 1e-5  # log-probabilities after loading, whose rounding depends on the batch


def optimizer(patient: Patient) -> Measured:
    """Whether every trained weight is in the optimizer once and nothing else is, and learning rates are obeyed."""
    policy = patient.policy
    trained = {id(each): name for name, each in weights(policy) if each.requires_grad}
    held = Counter(id(each) for group in policy.optimizer.param_groups for each in group["params"])
    absent = [trained[key] for key in trained.keys() - held.keys()]
    troubles = [f"{len(absent)} trained tensors absent ({absent[0]})"] if absent else []
    alien = len(held.keys() - trained.keys())
    troubles += [f"{alien} frozen or unknown tensors held"] if alien else []
    doubled = sum(count > 1 for count in held.values())
    troubles += [f"{doubled} tensors held twice"] if doubled else []
    troubles += _rate_troubles(policy)
    rates = [f"{group.get('name', '?')} x{group.get('lr_scale', 1.0):g}" for group in policy.optimizer.param_groups]
    figure = f"{len(held)} tensors for {len(trained)} trained, rates {', '.join(rates)}"
    mend = "make the policy anew, or load it with SB3's load(): copied or rebuilt optimizers lose weights and hooks"
    return Measured(not troubles, "; ".join([figure, *troubles]), mend)


def _rate_troubles(policy: Any) -> list[str]:
    """Scales against the settings, and whether a step obeys them: an empty step is taken at a tenth of each."""
    groups, scale = policy.optimizer.param_groups, policy._settings["lm_lr_scale"]
    expected = [scale if group.get("name") == LANGUAGE_MODEL else 1.0 for group in groups]
    scales, rates = [group.get("lr_scale", 1.0) for group in groups], [group["lr"] for group in groups]
    within: list[float] = []
    policy.optimizer.zero_grad()
    handle = policy.optimizer.register_step_pre_hook(lambda *_: within.extend(group["lr"] for group in groups))
    try:
        for group in groups:
            group["lr_scale"], group["lr"] = 0.1, 1.0
        policy.optimizer.step()
        left = [group["lr"] for group in groups]
    finally:
        handle.remove()
        for group, own, rate in zip(groups, scales, rates, strict=True):
            group["lr_scale"], group["lr"] = own, rate
    troubles = [] if scales == expected else [f"scales {scales} where {expected} were asked for"]
    obeyed = within == [0.1] * len(groups) and left == [1.0] * len(groups)
    return [*troubles, *([] if obeyed else ["scales are not obeyed: the optimizer has lost its hooks"])]


def update(patient: Patient) -> Measured:
    """Whether an update moves what is trained, and nothing else."""
    policy, moved = patient.policy, patient.update.moved
    trained = {name for name, each in weights(policy) if each.requires_grad}
    if not policy._settings["lm_lr_scale"]:
        trained = {name for name in trained if not name.startswith("lm.")}
    stayed, strays = sorted(trained - moved), sorted(moved - trained)
    figure = f"{len(trained & moved)} of {len(trained)} trained tensors moved, {len(strays)} others; "
    figure += f"gradient norm, clipped, {patient.update.gradient:.2g}"
    figure += f"; still: {stayed[0]}" if stayed else ""
    figure += f"; moved: {strays[0]}" if strays else ""
    finite = patient.update.gradient < float("inf")  # false of NaN
    mend = "raise learning_rate or lm_lr_scale if it is 0; see the rows on the reference scorer, optimizer and dtype"
    return Measured(not stayed and not strays and finite, figure, mend)


def size(patient: Patient) -> Measured:
    """Whether a zip holds what was trained, and not the weights that never change."""
    patient.update  # noqa: B018  the optimizer has its states then
    policy, model = patient.policy, patient.model
    trained = sum(each.nbytes for _, each in weights(policy) if each.requires_grad)
    states = max((_count_states(each) for each in policy.optimizer.state.values()), default=0)
    limit = SLACK * trained * (1 + states) + FIXED_BYTES + LAST_OBSERVATIONS * _observation_bytes(patient)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.zip")
        found = (Path(folder) / "model.zip").stat().st_size
    figure = f"{found:,} bytes, limit {limit:,.0f}: {trained:,} trained x (1 + {states} states of the optimizer)"
    mend = "keep large things out of the model's and the policy's attributes; SB3 saves what it finds there"
    return Measured(found <= limit, figure, mend)


def _observation_bytes(patient: Patient) -> int:
    """Of one observation in each environment."""
    row = next(iter(patient.rollout.observations.values()))
    return patient.model.n_envs * sum(
        np.asarray(part).nbytes for part in (row.values() if isinstance(row, dict) else [row])
    )


def _count_states(state: dict[str, Any]) -> int:
    return sum(isinstance(each, torch.Tensor) and each.dim() > 0 for each in state.values())


def loading(patient: Patient) -> Measured:
    """Whether a model that has learnt is the same after saving and loading."""
    patient.update  # noqa: B018  what was never trained is the same in any case
    model, policy = patient.model, patient.policy
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.zip")
        loaded: Any = type(model).load(Path(folder) / "model.zip", device=model.device).policy
    loaded.set_training_mode(False)
    policy.set_training_mode(False)
    policy.clear_memo()
    questions = patient.some(16)
    apart = (ask(policy, questions).exp() - ask(loaded, questions).exp()).abs().max().nan_to_num(nan=1.0).item()
    theirs = dict(weights(loaded))
    differ = [name for name, each in weights(policy) if name not in theirs or not torch.equal(each, theirs[name])]
    figure = f"probabilities {apart:.1e} apart, {len(differ)} tensors differ{f' ({differ[0]})' if differ else ''}"
    mend = "save and load with SB3's save() and load(); what you added to the policy must be in its state_dict()"
    return Measured(not differ and apart <= EQUAL, figure, mend)


def speed(patient: Patient) -> Measured:
    """Steps in a second of playing and updating, and where the time goes; for information."""
    seen, updating = patient.rollout, patient.update.seconds * patient.n_epochs
    parts = {
        "environment": seen.env_seconds,
        "language model's forward": seen.forward.seconds,
        "rest of acting": max(seen.acting.seconds - seen.forward.seconds, 0.0),
        "update": updating,
    }
    whole = sum(parts.values())
    shares = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in parts.items())
    epochs = f"{patient.n_epochs} epoch{'s' if patient.n_epochs > 1 else ''}"
    return Measured(True, f"{seen.decisions / whole:.0f} steps/s at {epochs}: {shares}", "")
