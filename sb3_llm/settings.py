"""The policy's keywords: what ``policy_kwargs`` may hold, their defaults, and checks that need no model."""

import difflib
from typing import Any, TypedDict

import torch

from sb3_llm.errors import SetupError
from sb3_llm.finetune import read_tuning
from sb3_llm.forbid import read_rules
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.scoring import action_logits


class Settings(TypedDict, total=False):
    """Keywords of :class:`~sb3_llm.LLMPolicy`, which describes them. JSON values, so that zips stay readable."""

    model: str
    revision: str | None
    finetune: str | dict[str, Any]
    normalization: str
    temperature: float
    template: str | dict[str, str]
    dtype: str
    micro_batch: int | None
    lm_lr_scale: float
    value_warmup: int
    stop_value_gradient: bool
    prior_kl: bool
    forbid: list[str | dict[str, str]]


DEFAULTS: dict[str, Any] = {
    "model": "embedded",
    "revision": None,
    "finetune": "full",
    "normalization": "sum",
    "temperature": 1.0,
    "template": DEFAULT_TEMPLATE,
    "dtype": "float32",
    "micro_batch": None,
    "lm_lr_scale": 1.0,
    "value_warmup": 0,
    "stop_value_gradient": False,
    "prior_kl": False,
    "forbid": [],
}


def complete(given: Settings) -> dict[str, Any]:
    """
    Fill in defaults.

    :param given: keywords as the user wrote them
    :return: all of them
    :raises SetupError: for an unknown keyword, or a value that can't be right whatever the model
    """
    for name in given:
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, n=1)
            mend = f"write {near[0]!r}" if near else "take it out of policy_kwargs"
            raise SetupError(f"the policy keyword {name!r}", f"one of {', '.join(DEFAULTS)}", mend)
    settings = DEFAULTS | dict(given)
    action_logits(torch.zeros(1, 1), [1], [1], settings["normalization"], settings["temperature"])  # its checks
    read_tuning(settings["finetune"])  # its checks
    read_rules(settings["forbid"])  # its checks
    _check_number("lm_lr_scale", settings["lm_lr_scale"], float, "a number, 0 or more", "1.0 for SB3's learning rate")
    _check_number("value_warmup", settings["value_warmup"], int, "a number of updates, 0 or more", "0 for none")
    for name in ("stop_value_gradient", "prior_kl"):
        if not isinstance(settings[name], bool):
            raise SetupError(f"{name}={settings[name]!r}", "True or False", f"leave {name} out for False")
    return settings


def _check_number(name: str, given: Any, kind: type, expected: str, mend: str) -> None:
    number = isinstance(given, (int, kind)) and not isinstance(given, bool)
    if not (number and 0 <= given < float("inf")):
        raise SetupError(f"{name}={given!r}", expected, mend)
