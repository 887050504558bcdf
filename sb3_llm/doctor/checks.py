"""All checks, in order, and what becomes of one that fails in its own way."""

import warnings
from collections.abc import Callable
from typing import Any

from sb3_llm.doctor import scoring_checks, text_checks, training_checks
from sb3_llm.doctor.finding import Finding, Measured
from sb3_llm.doctor.patient import Patient
from sb3_llm.doctor.unchanged import unchanged
from sb3_llm.errors import SetupError
from sb3_llm.looking_on import undisturbed

Check = Callable[[Patient], Measured]

PLAYING = "playing the environment"
#: In this order: the last four find the model after an update.
CHECKS: dict[str, Check] = {
    "reference scorer": scoring_checks.reference,
    "ratio before an update": scoring_checks.ratio,
    "batch and padding": scoring_checks.batch,
    "tokens at the join": text_checks.tokens,
    "phrases": text_checks.phrases,
    "initial policy": text_checks.prior,
    "optimizer": training_checks.optimizer,
    "dropout": scoring_checks.dropout,
    "dtype": scoring_checks.dtype,
    "context": text_checks.context,
    "observation text": text_checks.text,
    "update": training_checks.update,
    "size of a zip": training_checks.size,
    "saving and loading": training_checks.loading,
    "speed": training_checks.speed,
}


def examine(model: Any, on_check: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """
    Run every check on a model: about 10 s for the embedded one. It is as it was afterwards, and its environment begins
    anew.

    :param model: PPO, A2C, TRPO or MaskablePPO with a policy that is a language model, and an environment
    :param on_check: called with the name of what comes next
    :return: one finding for each check; if the environment can't be played, that alone
    :raises SetupError: for another policy, or without an environment
    """
    findings: list[Finding] = []
    with unchanged(model):
        on_check(PLAYING)
        try:
            patient = Patient(model)
        except Exception as error:  # whatever an environment raises
            return [failed(PLAYING, error)]
        for name, check in CHECKS.items():
            on_check(name)
            findings.append(_checked(name, check, patient))
    return findings


def _checked(name: str, check: Check, patient: Patient) -> Finding:
    try:
        with undisturbed(patient.policy), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of policies loaded again: each has a row of its own here
            passed, figure, mend = check(patient)
    except Exception as error:  # a broken model fails in any way, and the other checks still tell where
        return failed(name, error)
    return Finding(name, passed, figure, "" if passed else mend)


def failed(name: str, error: Exception) -> Finding:
    """:return: a finding of what was raised"""
    if isinstance(error, SetupError):
        given, expected, mend = error.parts
        return Finding(name, False, f"{given.rstrip('.')}; expected: {expected}", mend)
    return Finding(name, False, f"{type(error).__name__}: {str(error)[:300]}", "mend what raised this")
