"""Lists: each mission names one of the things told, and the answer is the first move of its way. Orders: a phrase."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from sb3_llm.describe.actions import KEYS
from sb3_llm.pretrain.lists import MAX_THINGS, listed
from sb3_llm.pretrain.orders import LEAST, MOST, ordered
from sb3_llm.pretrain.planner import MOVES
from sb3_llm.pretrain.sayings import CHINESE_LISTS, say
from sb3_llm.pretrain.sources import LISTS, ORDERS
from sb3_llm.pretrain.stories import Line
from sb3_llm.words.held_out import find_held_out, held_out_phrases
from sb3_llm.words.wording import LANGUAGES, default_wording, draw_wording, known_words

WAY = re.compile(r"(\w+ (?:key|ball|box|door)) (?:way (\w+)|(in reach))")
LENGTH = re.compile(r"(\w+ (?:key|ball|box|door)) way \w+ (\d+)")
NAMED = re.compile(r"Goal: (.*?) (?:the|a) (\w+ (?:key|ball|box|door))(?: (?:next to|near) the (\w+ \w+))?")
CARRIED = re.compile(r"carrying a (\w+ \w+)")
AT_LAST = {"go to": "done", "open": "open"}  # what else is asked for is picked up


@pytest.fixture(scope="module")
def plain() -> list[Line]:
    rng = np.random.default_rng(0)
    return [listed(rng, default_wording()) for _ in range(200)]


def test_the_answer_stands_in_the_list(plain: list[Line]) -> None:
    reached = 0
    for line in plain:
        told = {name: way or here for name, way, here in WAY.findall(line.prompt)}
        asked = set()
        for prompt, phrase in line.exchanges():
            verb, first, second = NAMED.search(prompt).groups()
            thing = second if first not in told else first
            asked.add(thing)
            if "carrying nothing" in line.prompt:
                due = AT_LAST.get(verb, "pick up") if told[thing] == "in reach" else MOVES[told[thing]]
                assert phrase.strip() == due
        assert asked == set(told)
        assert len(line.exchanges()) == len(told) + 1
        assert 2 <= len(told) <= MAX_THINGS
        reached += "in reach" in told.values()
        assert ("Ahead 0 free then" in line.prompt and "in reach" in line.prompt) or "in reach" not in line.prompt
    assert 0.25 < reached / len(plain) < 0.5


def test_what_is_carried_is_dropped_before_anything_is_picked_up(plain: list[Line]) -> None:
    acts = Counter[str]()
    for line in plain:
        hands = CARRIED.search(line.prompt)
        if hands is None:
            continue
        told = {name: way for name, way, _ in WAY.findall(line.prompt)}
        ways = {name: int(moves) for name, moves in LENGTH.findall(line.prompt)}
        assert hands[1] not in told
        assert "Ahead 0 free" not in line.prompt
        assert "in reach" not in line.prompt
        for prompt, phrase in line.exchanges():
            verb, first, second = NAMED.search(prompt).groups()
            thing = second if first == hands[1] else first
            drops = first != hands[1] and (verb not in AT_LAST or told[thing] == "clear")
            assert phrase.strip() == ("drop" if drops else MOVES[told[thing]])
            if first == hands[1]:
                assert ways[thing] >= 4, "nearer, the planner would put it down"
            acts["put" if first == hands[1] else "drop" if drops else "go"] += 1
    assert min(acts.values()) > 20


def test_nothing_but_the_list_tells_the_answer(plain: list[Line]) -> None:
    """Missions for different things come in random order: the answer to one says nothing of the next one's."""
    moves = {"turn left": 0, "go forward": 1, "turn right": 2}
    neighbours = [pair for line in plain for pair in pairwise(line.exchanges())]
    others = [pair for pair in neighbours if len({NAMED.search(prompt)[2] for prompt, _ in pair}) == 2]
    said = [tuple(phrase.strip() for _, phrase in pair) for pair in others]
    pairs = [(moves[a], moves[b]) for a, b in said if a in moves and b in moves]
    counts = np.zeros((3, 3))
    np.add.at(counts, tuple(np.transpose(pairs)), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-squared, 4 degrees of freedom, p = .001


@pytest.mark.parametrize("language", ["en", "zh"])
def test_drawn_words_are_listed_and_none_is_held_out(language: str) -> None:
    rng = np.random.default_rng(0)
    lines = [listed(rng, draw_wording(rng, language)) for _ in range(150)]
    assert not [line for line in lines if find_held_out(line.text())]
    answers = [(line, completion.strip()) for line in lines for _, completion in line.exchanges()]
    canonical = {default_wording(language).phrase(key) for key in KEYS}
    strange = [(line, answer) for line, answer in answers if answer not in canonical]
    assert len(strange) > 50
    assert all(answer in line.prompt.split("\n")[0] for line, answer in strange)


def test_phrases_that_are_invented_are_told_by_their_list() -> None:
    rng = np.random.default_rng(0)
    known = {words for pool in LANGUAGES["en"].phrases.values() for words in pool.train}
    lines = [line for _ in range(300) if (line := say("reworded", rng)).text().isascii()]
    answers = [(line.prompt, phrase.strip()) for line in lines for _, phrase in line.exchanges()]
    strange = [(prompt, phrase) for prompt, phrase in answers if phrase not in known]
    assert 0.2 < len(strange) / len(answers) < 0.45
    assert all(phrase in prompt for prompt, phrase in strange)
    assert len({phrase for _, phrase in strange}) > 100
    assert {" " in phrase for _, phrase in strange} == {True, False}


def test_lists_are_plain_and_the_reworded_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    plain, reworded = ([say(kind, rng).prompt for _ in range(400)] for kind in (LISTS, "reworded"))
    assert all(NAMED.search(text) and WAY.search(text) for text in plain)
    chinese = [not text.isascii() for text in reworded]
    assert np.mean(chinese) == pytest.approx(CHINESE_LISTS, abs=0.1)
    listing = [text.startswith("面朝") for text in reworded if not text.isascii()]
    assert 0.4 < np.mean(listing) < 0.75, "half of the Chinese ones are canonical"


def test_they_are_the_same_for_the_same_seed() -> None:
    one, other = (listed(np.random.default_rng(5), default_wording()) for _ in range(2))
    assert one == other


# --- orders


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_order_is_answered_by_the_phrase_that_means_it(language: str) -> None:
    rng, wording = np.random.default_rng(0), default_wording(language)
    canonical = {wording.phrase(key) for key in KEYS}
    strange = places = 0
    for _ in range(100):
        line = ordered(rng, wording)
        meanings = dict(pair.split(" = ") for pair in re.findall(r"[^:：，,]+ = [^，,.。]+", line.prompt))  # noqa: RUF001
        meanings = {key.strip(): phrase for key, phrase in meanings.items()}
        assert LEAST <= len(meanings) <= MOST
        assert set(meanings) <= canonical
        for prompt, phrase in line.exchanges():
            asked = re.search(r"(?:Goal: |目标：)(.+?)[.。]", prompt)[1]  # noqa: RUF001
            assert phrase.strip() == meanings[asked]
            strange += phrase.strip() not in canonical
            places += list(meanings).index(asked) > 0
    assert 0.65 < strange / 700 < 0.85, "most of the phrases are invented"
    assert places > 400, "any of them is asked for"


def test_orders_are_in_both_languages_and_hold_nothing_that_is_held_out() -> None:
    rng = np.random.default_rng(0)
    lines = [say(ORDERS, rng) for _ in range(300)]
    texts = [line.text() for line in lines]
    assert not [text for text in texts if find_held_out(text)]
    assert not {phrase.strip() for line in lines for _, phrase in line.exchanges()} & held_out_phrases()
    assert 0.2 < np.mean([not text.isascii() for text in texts]) < 0.4


def test_no_invented_word_is_one_of_a_held_out_phrase() -> None:
    words = {word for phrase in held_out_phrases() for word in (phrase, *re.findall(r"[a-z]+", phrase))}
    assert words <= known_words("en") | known_words("zh")
