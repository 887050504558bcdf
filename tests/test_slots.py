"""Phrases behind the text, in the bytes of one observation: a round trip, bad input, and reading batches."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_llm import TextSpace
from sb3_llm.errors import SetupError
from sb3_llm.observations import SAMPLE_TEXTS, phrase_reader, sample_texts, text_reader

# --- TextSpace


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("You are in the hall.", ["take key"]),
        ("", ["a"]),
        ("向前走!\n\t ", ["打开门", "🚪 e\u0301", "two\nlines", "\x01\x1e?", "'\"\\"]),
        ("the longest list", [f"go to room {number}" for number in range(64)]),
    ],
)
def test_text_and_phrases_come_back_byte_for_byte(text: str, phrases: list[str]) -> None:
    space = TextSpace(1024, slots=64)
    array = space.encode(text, phrases)
    assert (array.shape, array.dtype, space.contains(array)) == ((1024,), np.uint8, True)
    assert array.tobytes() == "\x1f".join([text, *phrases]).encode().ljust(1024, b"\0")
    for kind in (np.uint8, np.float32, np.int64):
        assert space.decode(array.astype(kind)) == text
        assert space.decode_phrases(array.astype(kind)) == phrases
    assert space.decode_phrases(space.encode(text, tuple(phrases))) == phrases


def test_all_bytes_can_be_used_and_one_more_raises() -> None:
    space = TextSpace(20, slots=2)
    array = space.encode("hall", ["界界", "x" * 8])  # 4 + 1 + 6 + 1 + 8
    assert array.all()
    assert (space.decode(array), space.decode_phrases(array)) == ("hall", ["界界", "x" * 8])
    with pytest.raises(SetupError, match=r"with 2 phrases of 21 bytes, starting 'hall'.*at most 20.*max_bytes=21"):
        space.encode("hall", ["界界", "x" * 9])


@pytest.mark.parametrize(
    ("text", "phrases", "parts"),
    [
        ("hall", None, ["phrases=None for TextSpace(99, slots=3)", "1 to 3 phrases", "encode(text, phrases)"]),
        ("hall", [], ["0 phrases []", "1 to 3 phrases", "at least one"]),
        ("hall", list("abcdefgh"), ["8 phrases ['a', 'b', 'c'", "1 to 3 phrases", "up to 64"]),
        ("hall", "go", ["phrases='go'", "a list of strings"]),
        ("hall", 5, ["phrases=5", "a list of strings"]),
        ("hall", {"go": 1}, ["phrases={'go': 1}", "a list of strings"]),
        ("hall", ["go", ""], ["phrase 1 is ''"]),
        ("hall", ["go", "up "], ["phrase 1 is 'up ', with blanks"]),
        ("hall", ["go", "up", "go"], ["phrases 0 and 2 are both 'go'"]),
        ("hall", ["go", 3], ["phrase 1 is 3"]),
        ("hall", ["go", "u\0p"], [r"phrase 1 is 'u\x00p'", "NUL"]),
        ("hall", ["go", "u\x1fp"], [r"phrase 1 is 'u\x1fp', with U+001F at character 1", "replace it"]),
        ("ha\x1fll", ["go"], [r"the observation text is 'ha\x1fll', with U+001F at character 2", "replace it"]),
        ("ha\0ll", ["go"], ["NUL"]),
        ("ha\ud800ll", ["go"], ["surrogates"]),
        (None, ["go"], ["of type NoneType", "describe"]),
    ],
)
def test_what_cannot_travel_is_quoted(text: Any, phrases: Any, parts: list[str]) -> None:
    with pytest.raises(SetupError) as caught:
        TextSpace(99, slots=3).encode(text, phrases)
    for part in [*parts, "Expected: ", "To mend it: "]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("max_bytes", "slots", "part"),
    [
        (99, -1, "slots=-1. Expected: a whole number of phrases, at most 64"),
        (999, 65, "slots=65"),
        (99, 2.0, "slots=2.0"),
        (99, True, "slots=True"),
        (99, None, "slots=None"),
        (8, 4, "max_bytes=8 with slots=4. Expected: at least 9 bytes"),
    ],
)
def test_slots_that_cannot_be_raise(max_bytes: int, slots: Any, part: str) -> None:
    with pytest.raises(SetupError) as caught:
        TextSpace(max_bytes, slots=slots)
    assert part in str(caught.value)


def test_a_space_without_slots_has_no_phrases_and_no_separator() -> None:
    space = TextSpace(9)
    assert space.decode(space.encode("a\x1fb")) == "a\x1fb"
    with pytest.raises(SetupError, match=r"phrases=\['go'\] for TextSpace\(9\). Expected: a text alone.*slots="):
        space.encode("a", ["go"])
    with pytest.raises(SetupError, match=r"TextSpace\(9\). Expected: a space with slots.*PhraseSpace"):
        space.decode_phrases(space.encode("a"))


@pytest.mark.parametrize("data", [b"hall", b"", b"\x1f".join([b"a"] * 5)])
def test_bytes_of_another_space_raise(data: bytes) -> None:
    space = TextSpace(9, slots=3)
    array = np.frombuffer(data.ljust(9, b"\0"), np.uint8)
    for read in (space.decode, space.decode_phrases):
        with pytest.raises(SetupError, match=r"bytes with [04] phrases.*1 to 3 phrases"):
            read(array)
        with pytest.raises(SetupError, match="VecNormalize"):
            read(array + 0.5)


def test_equal_only_with_the_same_slots() -> None:
    space = TextSpace(99, slots=3)
    assert space == TextSpace(99, slots=3)
    assert TextSpace(99) == spaces.Box(0, 255, (99,), np.uint8)
    for other in (TextSpace(99), TextSpace(99, slots=4), TextSpace(98, slots=3), spaces.Box(0, 255, (99,), np.uint8)):
        assert (space == other, other == space, space != other) == (False, False, True)
    assert (repr(space), repr(TextSpace(99))) == ("TextSpace(99, slots=3)", "TextSpace(99)")
    assert isinstance(space, spaces.Box)
    assert not is_image_space(space)


def test_slots_survive_copies_and_older_pickles() -> None:
    space = TextSpace(99, slots=3)
    for twin in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert (twin, twin.slots) == (space, 3)
        assert twin.decode_phrases(space.encode("hall", ["go"])) == ["go"]
    old = TextSpace(99)
    del old.__dict__["slots"]
    assert pickle.loads(pickle.dumps(old)) == TextSpace(99)


@pytest.mark.parametrize(("max_bytes", "slots"), [(99, 3), (3, 1), (129, 64), (2048, 64)])
def test_samples_are_observations(max_bytes: int, slots: int) -> None:
    space = TextSpace(max_bytes, slots=slots)
    space.seed(0)
    samples = [space.sample() for _ in range(400)]
    assert all(map(space.contains, samples))
    assert {len(space.decode_phrases(sample)) for sample in samples} == set(range(1, slots + 1))
    assert all(space.decode(sample).isalpha() for sample in samples)
    space.seed(0)
    assert (space.sample() == samples[0]).all()


# --- reading batches


def test_batches_are_read_as_texts_and_phrases() -> None:
    space = TextSpace(99, slots=3)
    read = phrase_reader(space)
    assert read is not None
    said = [("hall", ("go", "打开门")), ("cellar", ("wait",))]
    batch = np.stack([space.encode(*row) for row in said])
    for obs in (batch, torch.as_tensor(batch), torch.as_tensor(batch).float()):
        assert list(zip(text_reader(space)(obs), read(obs), strict=True)) == said
    assert phrase_reader(TextSpace(99)) is phrase_reader(spaces.Box(-1, 1, (3,))) is None


def test_sample_texts_leave_room_for_phrases() -> None:
    for max_bytes, slots in ((2048, 64), (99, 40), (129, 64), (3, 1), (99, 0)):
        space = TextSpace(max_bytes, slots=slots)
        texts = sample_texts(space)
        assert texts
        for text in texts:
            space.encode(text, list(map(chr, range(48, 48 + slots))) if slots else None)
    assert sample_texts(TextSpace(2048, slots=64)) == list(SAMPLE_TEXTS)
