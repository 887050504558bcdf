"""Probe prompts: the same questions put to the policy again and again, and the names that their answers go by."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_llm.core import LanguageModelCore
from sb3_llm.decisions import Question, ask
from sb3_llm.errors import SetupError

Probes = int | Sequence[str | tuple[str, Sequence[str]]]
LABEL = 28  # characters of a phrase in a name: SB3's table cuts names at 36, and fails where two become equal so


def read_probes(probes: Probes) -> tuple[int, list[Question]]:
    """
    :param probes: how many to take from the first rollout, or prompts, or (prompt, phrases)
    :return: how many to take, and what was given
    :raises SetupError: if it is neither
    """
    if isinstance(probes, int) and not isinstance(probes, bool) and probes >= 0:
        return probes, []
    if isinstance(probes, str) or not isinstance(probes, Sequence):
        given: list[Any] = [None]
    else:
        given = [(each, None) if isinstance(each, str) else each for each in probes]
    if not all(map(_proper, given)):
        raise SetupError(
            f"probes={probes!r}",
            "a number from 0, or a list of prompts as policy.render makes them, each with its phrases where these "
            "come with the observation",
            "leave probes out to take three prompts from the first rollout",
        )
    return 0, [(prompt, phrases and tuple(phrases), None) for prompt, phrases in given]


def _proper(probe: Any) -> bool:
    if not isinstance(probe, tuple) or len(probe) != 2 or not isinstance(probe[0], str) or not probe[0]:
        return False
    phrases = probe[1]
    texts = isinstance(phrases, list | tuple) and len(phrases) > 0 and all(isinstance(each, str) for each in phrases)
    return phrases is None or texts


def check_probes(probes: Sequence[Question], policy: LanguageModelCore) -> None:
    """
    :param probes: what the user gave
    :param policy: that will be asked
    :raises SetupError: if one lacks phrases, or has some where the policy has its own
    """
    for prompt, phrases, _ in probes:
        if (phrases is None) != (policy._read_phrases is None):
            raise SetupError(
                f"the probe {prompt!r} {'without phrases' if phrases is None else f'with phrases {phrases}'}",
                "(prompt, phrases)" if phrases is None else "a prompt alone, for a policy that has its own phrases",
                "mend probes=, or leave it out",
            )


def choose_probes(questions: Sequence[Question], count: int) -> list[Question]:
    """:return: ``count`` distinct questions of a rollout, or all there are, evenly from the first to the last."""
    return [questions[place] for place in np.unique(np.linspace(0, len(questions) - 1, count).astype(int))]


def ask_probes(probes: Sequence[Question], policy: LanguageModelCore) -> list[dict[str, float]]:
    """:return: of each probe, the probability of each phrase, by :func:`labels`."""
    if not probes:
        return []
    rows = ask(policy, probes).exp().tolist()
    names = [labels(phrases or policy.phrases) for _, phrases, _ in probes]
    return [dict(zip(each, row, strict=False)) for each, row in zip(names, rows, strict=True)]


def labels(phrases: Sequence[str]) -> list[str]:
    """:return: names for phrases: the same, but short, distinct, and without what breaks SB3's tables and CSV files."""
    names: list[str] = []
    for index, phrase in enumerate(phrases):
        name = re.sub(r'[\s,"/]+', " ", phrase).strip()
        fits = len(name) <= LABEL and name not in names
        names.append(name if fits else f"{name[: LABEL - 4]}~{index}")
    return names
