"""Lists: each mission names one of the things told, and the answer is the first move of the way told for it."""

import re

import numpy as np
import pytest

from sb3_llm.describe.actions import KEYS
from sb3_llm.pretrain import lists as module
from sb3_llm.pretrain.lists import MAX_THINGS, WAYS, listed
from sb3_llm.pretrain.stories import Line
from sb3_llm.words.held_out import find_held_out

WAY = re.compile(r"(\w+ (?:key|ball|box|door)) way (\w+)")
NAMED = re.compile(r"Goal: .*?(\w+ (?:key|ball|box|door))")


@pytest.fixture(scope="module")
def plain() -> list[Line]:
    """Canonical English."""
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "DRAWN_SHARE", 0.0)
    rng = np.random.default_rng(0)
    lines = [listed(rng, "en") for _ in range(200)]
    patch.undo()
    return lines


def test_the_answer_stands_in_the_list(plain: list[Line]) -> None:
    for line in plain:
        told = dict(WAY.findall(line.prompt))
        asked = []
        for prompt, phrase in line.exchanges():
            named = NAMED.search(prompt)
            assert named is not None, prompt
            asked.append(named[1])
            assert phrase == f" {WAYS[told[named[1]]]}\n"
        assert sorted(asked) == sorted(told), "each thing once"
        assert 2 <= len(told) <= MAX_THINGS


def test_nothing_but_the_list_tells_the_answer(plain: list[Line]) -> None:
    """Each answer is as likely whatever comes before it: where the thing stands, and what was asked before."""
    moves = {"turn left": 0, "go forward": 1, "turn right": 2}
    first = [line.exchanges()[0].completion.strip() for line in plain]
    second = [line.exchanges()[1].completion.strip() for line in plain]
    pairs = [(moves[a], moves[b]) for a, b in zip(first, second, strict=True) if a in moves and b in moves]
    counts = np.zeros((3, 3))
    np.add.at(counts, tuple(np.transpose(pairs)), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-squared, 4 degrees of freedom, p = .001


@pytest.mark.parametrize("language", ["en", "zh"])
def test_drawn_words_are_listed_and_none_is_held_out(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWN_SHARE", 1.0)
    rng = np.random.default_rng(0)
    lines = [listed(rng, language) for _ in range(150)]
    assert not [line for line in lines if find_held_out(line.text())]
    answers = [(line, completion.strip()) for line in lines for _, completion in line.exchanges()]
    strange = [(line, answer) for line, answer in answers if answer not in KEYS]
    assert len(strange) > 50
    assert np.mean([answer in line.prompt for line, answer in strange]) > 0.8


def test_they_are_the_same_for_the_same_seed() -> None:
    one, other = (listed(np.random.default_rng(5), "en") for _ in range(2))
    assert one == other
