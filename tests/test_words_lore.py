"""Statements, questions and dialogues: whole, true where that can be computed, nothing of them held out."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

import re

import minigrid  # noqa: F401 - registers its worlds
import numpy as np
import pytest

from sb3_llm.words import statements as lore
from sb3_llm.words.languages import LANGUAGES
from sb3_llm.words.wording import (
    default_wording,
    find_held_out,
    held_out_phrases,
)
from tests.facts import BARE, PAST, VIEW

languages = pytest.mark.parametrize("language", list(LANGUAGES))


@languages
def test_plain_texts_are_whole_and_hold_out_what_is_held_out(language: str) -> None:
    rng, forbidden = np.random.default_rng(7), held_out_phrases()
    assert len(set(lore.LORE[language].statements)) >= 40
    assert len(set(lore.LORE[language].questions)) >= 20
    for _ in range(500):
        turns = lore.dialogue(rng, language)
        assert 2 <= len(turns) <= 4
        speakers = lore.LORE[language].speakers
        assert all(turn.startswith(speakers[number % 2]) for number, turn in enumerate(turns))
        texts = [lore.statements(rng, language), *lore.question(rng, language), *turns]
        for text in texts:
            assert find_held_out(text) is None
            assert not re.search(r"[{}]|\b[Aa] [aeiou]|\ban [^aeiou]|  ", text), text
            assert text[-1] in ".?。？"
            assert language == "en" or not re.search("[A-Za-z]", text)
            quoted = re.findall(r'"(.*?)"|“(.*?)”', text)
            assert not forbidden & {part for pair in quoted for part in pair}
    assert len({lore.statements(rng, language) for _ in range(1000)}) > 300


def test_statements_are_true() -> None:
    """Those that can be computed: turns, distances, and which key opens which door."""
    clockwise, rng, checked = ["north", "east", "south", "west"], np.random.default_rng(8), 0
    for _ in range(2500):
        text = lore.statements(rng)
        if found := re.fullmatch(r"After you turn (\w+) while facing (\w+), you face (\w+)\.", text):
            step = 1 if found[1] == "right" else -1
            assert clockwise[(clockwise.index(found[2]) + step) % 4] == found[3]
        elif found := re.fullmatch(r"An? .+ (\d) ahead and (\d) (\w+) is (\d+) moves away: (\d) .* and (\d) .*", text):
            ahead, aside, moves, first, last = (int(found[number]) for number in (1, 2, 4, 5, 6))
            assert first + 1 + last == moves == ahead + 1 + aside - 1
        elif found := re.fullmatch(r"A locked (.+?) \w+ opens only with an? (.+?) \w+\.", text):
            assert found[1] == found[2]
        elif found := re.fullmatch(r"An? (.+?) \w+ does not open a locked (.+?) \w+\.", text):
            assert found[1] != found[2]
        elif found := re.fullmatch(r'The actions "(.+)" and "(.+)" do the same\.', text):
            assert any({found[1], found[2]} <= set(pool.train) for pool in LANGUAGES["en"].phrases.values())
        else:
            continue
        checked += 1
    assert checked > 120


@languages
def test_questions_of_a_view_are_answered_from_its_facts(language: str) -> None:
    rng, wording = np.random.default_rng(9), default_wording(language)
    answers: dict[str, set[str]] = {}
    for _ in range(1500):
        asked, answer = lore.view_question(rng, wording, "open the red door", VIEW, PAST)
        answers.setdefault(asked, set()).add(answer)
    assert all(len(found) == 1 for found in answers.values())
    told = {asked: found.pop() for asked, found in answers.items()}
    expected = {
        "en": {
            "How many steps are free to the left?": "0.",
            "How many steps are free ahead?": "3.",
            "What is ahead?": "Wall.",
            "What ends the way to the right?": "The edge of what you see.",
            "Where is the blue ball?": "3 ahead 1 left.",
            "What do you carry?": "Red key.",
            "What do you face after you turn left?": "North.",
            "How many times were you here?": "2.",
            "Is the locked red door in reach?": "Yes.",
            "How many moves to the blue ball?": "6.",
            "Do you see a red key?": "No.",
            "Do you see a blue ball?": "Yes.",
            "What have you picked up before?": "Red key.",
            "What did you do last?": "Go forward.",
            "What is your task?": "Open the red door.",
        },
        "zh": {
            "往左能走几步？": "0。",
            "蓝色的球在哪里？": "前3左1。",
            "你拿着什么？": "红色的钥匙。",
            "向左转以后面朝哪里？": "北。",
            "红色的锁着的门够得着吗？": "够得着。",
            "你的任务是什么？": "打开红色的门。",
        },
    }[language]
    assert {asked: told[asked] for asked in expected} == expected
    assert lore.view_question(rng, wording, "", BARE, None)[1]
