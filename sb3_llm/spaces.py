"""Text and phrases through Stable-Baselines3's buffers: two spaces that are plain ``Box`` and ``Discrete`` to SB3."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.errors import SetupError

DEFAULT_MAX_BYTES = 2048


class TextSpace(spaces.Box):
    """
    Text as a 1-D array of UTF-8 bytes, zero-padded: the one text carrier SB3's buffers, VecEnvs and checks accept.

    A 1-D uint8 ``Box`` is stored as it is by ``RolloutBuffer`` and is not taken for an image; ``gymnasium.spaces.Text``
    fails in SB3's ``DummyVecEnv`` (SB3 #1704, #1914). Nothing is ever cut: too long a text is an error.

    :param max_bytes: length of the array; an observation text may use all of it
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int | np.integer) or max_bytes < 1:
            raise SetupError(f"max_bytes={max_bytes!r}", "a whole number of bytes, 1 or more", "leave max_bytes out")
        super().__init__(low=0, high=255, shape=(int(max_bytes),), dtype=np.uint8)

    @property
    def max_bytes(self) -> int:
        return int(self.shape[0])

    def encode(self, text: str) -> NDArray[np.uint8]:
        """
        :param text: any Unicode text without the character NUL, which marks the padding
        :return: its UTF-8 bytes, zero-padded to ``(max_bytes,)``
        :raises SetupError: if it is no text, does not fit, or holds a NUL
        """
        if not isinstance(text, str):
            raise SetupError(
                f"an observation text of type {type(text).__name__}", "a str", "make describe(obs) return a str"
            )
        data = _utf8(text)
        if len(data) > self.max_bytes:
            raise SetupError(
                f"an observation text of {len(data)} bytes, starting {text[:60]!r}",
                f"at most {self.max_bytes} bytes",
                f"pass max_bytes={len(data)} or more to make_env or TextObservation, or a describe= that says less",
            )
        array = np.zeros(self.max_bytes, dtype=np.uint8)
        array[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        return array

    def decode(self, array: NDArray[np.uint8]) -> str:
        """
        :param array: what :meth:`encode` returned, shape ``(max_bytes,)``
        :return: the same text, byte for byte
        :raises SetupError: if the bytes are no zero-padded UTF-8, as after VecNormalize or VecFrameStack
        """
        numbers = np.asarray(array)
        with np.errstate(invalid="ignore"):  # a negative fraction is no byte; the comparison below finds it
            whole = np.ascontiguousarray(numbers, dtype=np.uint8)
        data = whole.tobytes().rstrip(b"\0")
        try:
            if not np.array_equal(whole, numbers):
                raise ValueError("some numbers are no whole bytes")
            if b"\0" in data:
                raise ValueError("a zero byte stands between two texts")
            return data.decode("utf-8")
        except ValueError as error:  # UnicodeDecodeError is one
            raise SetupError(
                f"bytes that are no observation text ({error})",
                "UTF-8 followed by zeros, as TextSpace.encode makes it",
                "take VecNormalize, VecFrameStack or other wrappers that change numbers off the text observation",
            ) from None

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.uint8]:
        """:return: a random short text, encoded; random bytes would be no text at all."""
        letters = self.np_random.integers(ord("a"), ord("z") + 1, size=min(8, self.max_bytes))
        return self.encode("".join(map(chr, letters)))

    def __repr__(self) -> str:
        return f"TextSpace({self.max_bytes})"


class PhraseSpace(spaces.Discrete):
    """
    A ``Discrete`` action space that carries the words of each action.

    Two phrase spaces are equal only with the same phrases in the same order, so SB3 refuses to load a model into an
    environment whose actions are said in other words.

    :param phrases: the words of action 0, 1, ...; distinct and not empty
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = check_phrases(phrases)
        super().__init__(len(self.phrases))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhraseSpace) and self.phrases == other.phrases

    def __hash__(self) -> int:
        return hash(self.phrases)

    def __repr__(self) -> str:
        return f"PhraseSpace({list(self.phrases)})"


def check_phrases(phrases: Sequence[str], n_actions: int | None = None) -> tuple[str, ...]:
    """
    :param phrases: the words of each action, in action order
    :param n_actions: how many actions the environment has, if known
    :return: the same phrases, checked
    :raises SetupError: if they are missing, empty, duplicated, padded with blanks, or of the wrong count
    """
    if isinstance(phrases, str) or not isinstance(phrases, Sequence) or len(phrases) == 0:
        raise SetupError(f"phrases={phrases!r}", "a list of strings, one for each action", 'pass phrases=["...", ...]')
    if n_actions is not None and len(phrases) != n_actions:
        raise SetupError(
            f"{len(phrases)} phrases {list(phrases)} for {n_actions} actions",
            f"exactly {n_actions} phrases, in action order",
            "add the missing ones or take the surplus ones away",
        )
    for index, phrase in enumerate(phrases):
        _check_phrase(index, phrase, list(phrases[:index]))
    return tuple(phrases)


def _check_phrase(index: int, phrase: Any, earlier: list[str]) -> None:
    mend = "give every action its own words"
    if not isinstance(phrase, str) or not phrase.strip():
        raise SetupError(f"phrase {index} is {phrase!r}", "words", mend)
    if phrase != phrase.strip():
        raise SetupError(f"phrase {index} is {phrase!r}, with blanks at an end", "no blanks at the ends", mend)
    try:
        _utf8(phrase)
    except SetupError:
        raise SetupError(f"phrase {index} is {phrase!r}", "Unicode text without NUL", mend) from None
    if phrase in earlier:
        raise SetupError(f"phrases {earlier.index(phrase)} and {index} are both {phrase!r}", "distinct phrases", mend)


def _utf8(text: str) -> bytes:
    """Encode strictly: a lone surrogate or a NUL would not come back from the buffer as it went in."""
    try:
        if "\0" in text:
            raise ValueError("it holds the character NUL")
        return text.encode("utf-8")
    except ValueError as error:
        raise SetupError(f"text that can't travel as bytes: {error}", "Unicode text without NUL", "clean it") from None
