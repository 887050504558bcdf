"""Checks of scores: that they are what the language model says, whoever is asked along, and the same in training."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from sb3_llm.decisions import ratio_error
from sb3_llm.doctor.finding import GRADIENTS, NATS, RATIOS, Measured
from sb3_llm.doctor.patient import Patient, split
from sb3_llm.language_model import dropouts
from sb3_llm.scoring import PhraseScores, ReferenceScorer, Row, Scores

ROWS = 6  # for the reference: a forward pass of its own for each phrase
BATCH = 16
SMALL = 50_000_000  # parameters, of a float32 model that is computed in float64 as well


def reference(patient: Patient) -> Measured:
    """Scores, value features and gradients against the definition."""
    policy, questions = patient.policy, patient.some(ROWS)
    rows = _rows(patient, questions)
    with torch.no_grad():
        nats = _apart(patient.score(questions), ReferenceScorer(policy.lm).score(rows))
    few, short = [questions[0], questions[-1]], [rows[0], rows[-1]]
    with torch.enable_grad():
        right = _slope(policy, ReferenceScorer(policy.lm).score(short))
        slope = (_slope(policy, patient.score(few)) - right).norm() / right.norm().clamp(min=1e-12)
    passed = nats <= NATS[policy.lm.dtype] and slope.item() <= GRADIENTS[policy.lm.dtype]
    figure = f"{nats:.1e} nats, gradient {slope.item():.1e} off ({policy.scoring_route} on {len(rows)} prompts)"
    mend = (
        "the scoring route is wrong for this model as it is now: if you changed the model after loading, make the "
        "policy from the changed one; else report it with the model's name and the versions of torch and transformers"
    )
    return Measured(passed, figure, mend)


def _rows(patient: Patient, questions: list[Any]) -> list[Row]:
    prompts, phrases = split(questions)
    return patient.policy._scorer.tokens.rows(prompts, patient.policy._continuations(prompts, phrases))


def _apart(mine: PhraseScores | Scores, right: PhraseScores | Scores) -> float:
    """The largest difference of scores, or of features in units of their scale; infinite if it is NaN."""
    width = right.log_probs.shape[1]  # the policy has as many columns as the action space has slots
    scale = right.features.abs().max().clamp(min=1.0)
    worst = [(mine.log_probs[:, :width] - right.log_probs).abs().max(), (mine.features - right.features).abs().max()]
    return torch.stack([worst[0].double(), (worst[1] / scale).double()]).max().nan_to_num(nan=torch.inf).item()


def _slope(policy: Any, scores: PhraseScores | Scores) -> Tensor:
    """The gradient of all trained weights of the language model, as one vector; zeros where none arrives."""
    trained = [each for each in policy.lm.parameters() if each.requires_grad]
    weights = torch.arange(scores.log_probs.shape[1], device=scores.log_probs.device).cos()
    total = (scores.log_probs * weights).sum() + scores.features.square().mean()
    if not total.requires_grad:
        return torch.zeros(sum(each.numel() for each in trained), device=total.device)
    found = torch.autograd.grad(total, trained, allow_unused=True)
    parts = [torch.zeros_like(each) if g is None else g for each, g in zip(trained, found, strict=True)]
    return torch.cat([part.flatten().float() for part in parts])


def ratio(patient: Patient) -> Measured:
    """Probabilities of acting against those that the update computes before it has changed anything."""
    with torch.no_grad():
        scores = patient.score(patient.some(BATCH))
    likeliest = scores.log_probs.masked_fill(~scores.present, -torch.inf).max(dim=1).values
    # In float32 a score of 40 nats has no digits beyond 4e-6.
    rounding = torch.finfo(torch.float32).eps * likeliest.abs().max().item()
    limit = max(RATIOS[patient.policy.lm.dtype], 8 * rounding)
    error = ratio_error(patient.model, BATCH * 4)
    mend = (
        "the update does not see the policy that acted: turn off dropout and whatever else differs in training mode, "
        "and take wrappers that change observations on their way (VecNormalize) off"
    )
    return Measured(error <= limit, f"max |ratio - 1| = {error:.1e}, limit {limit:.1e}", mend)


def batch(patient: Patient) -> Measured:
    """Prompts alone, together, in another order, remembered, and with gradients."""
    questions = patient.some(BATCH)
    with torch.no_grad():
        alone = _joined([patient.score([each]) for each in questions])
        ways = {
            "in a batch": _joined([patient.score(questions)]),
            "remembered": _joined([patient.score(questions, remembered=True)]),
            "in another order": _joined([patient.score(questions[::-1])], flip=True),
        }
    with torch.enable_grad():
        ways["with gradients"] = _joined([patient.score(questions)])
    apart = {way: _apart(scores, alone) for way, scores in ways.items()}
    worst = max(apart, key=apart.__getitem__)
    figure = f"{apart[worst]:.1e} nats from alone, {worst} of {len(questions)} prompts"
    mend = "what a prompt is scored with must not matter: see the row on the reference scorer; report it if that passes"
    return Measured(apart[worst] <= NATS[patient.policy.lm.dtype], figure, mend)


def _joined(parts: list[PhraseScores], flip: bool = False) -> Scores:
    log_probs = torch.cat([part.log_probs.detach() for part in parts])
    features = torch.cat([part.features.detach() for part in parts])
    return Scores(log_probs.flip(0), features.flip(0)) if flip else Scores(log_probs, features)


def dropout(patient: Patient) -> Measured:
    """Every dropout probability, and two passes in training mode."""
    policy = patient.policy
    found = [f"{name}={held[key]}" for held, key, name in (*dropouts(policy), *dropouts(policy.lm.config, "config"))]
    policy.train()
    questions = patient.some(ROWS)
    with torch.enable_grad():
        apart = _apart(patient.score(questions), patient.score(questions))
    figure = f"{len(found)} above 0{f' ({found[0]}, ...)' if found else ''}; two training passes {apart:.1e} nats apart"
    mend = "set them to 0 after whatever turned them on; a policy that loads its model itself does"
    return Measured(not found and apart <= NATS[policy.lm.dtype] / 10, figure, mend)


def dtype(patient: Patient) -> Measured:
    """What is computed in too few bits: heads and log-probabilities, steps of the optimizer, scores."""
    policy = patient.policy
    observation = next(iter(patient.rollout.observations.values()))
    with torch.enable_grad():
        action = torch.zeros(1, dtype=torch.long, device=policy.device)
        values, log_probs, _ = policy.evaluate_actions(policy.obs_to_tensor(observation)[0], action)
    made = {"values": values, "log-probabilities": log_probs, **dict(policy.value_net.named_parameters("value head"))}
    told = [f"{name} in {_name(each.dtype)}" for name, each in made.items() if each.dtype.itemsize < 4]
    lost, drift = _lost_steps(patient), _drift(patient)
    told += [f"{lost:.0%} of steps lost in rounding"] if lost > 0.01 else []
    figure = f"{_name(policy.lm.dtype)} weights, {', '.join(told) or 'heads and log-probabilities float32 or wider'}"
    figure += "" if drift is None else f"; scores {drift:.1e} nats from a wider dtype's"
    mend = 'set dtype="float32", or train adapters, which are float32 (finetune="lora"); cast what you added to float32'
    return Measured(not told and (drift or 0.0) <= NATS[policy.lm.dtype], figure, mend)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _lost_steps(patient: Patient) -> float:
    """Share of the language model's trained weights that a step as long as the learning rate leaves as they are."""
    rate = patient.learning_rate * patient.policy._settings["lm_lr_scale"]
    trained = [each.detach() for each in patient.policy.lm.parameters() if each.requires_grad]
    if not rate or not trained:
        return 0.0
    return sum((each + rate == each).sum().item() for each in trained) / sum(each.numel() for each in trained)


def _drift(patient: Patient) -> float | None:
    """Scores against those of the same weights computed in a wider dtype; None where there is none to afford."""
    lm = patient.policy.lm
    single = lm.dtype == torch.float32
    if lm.dtype == torch.float64 or (single and lm.num_parameters() > SMALL):
        return None
    rows = _rows(patient, patient.some(2))
    wide = ReferenceScorer(deepcopy(lm).to(torch.float64 if single else torch.float32))
    with torch.no_grad():
        return _apart(ReferenceScorer(lm).score(rows), wide.score(rows))
