"""Text and phrases through Stable-Baselines3's buffers: two spaces that are plain ``Box`` and ``Discrete`` to SB3."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.errors import SetupError

DEFAULT_MAX_BYTES = 2048
MAX_SLOTS = 64  # so many phrases can come with an observation
SEPARATOR = "\x1f"  # U+001F, "unit separator": stands before each phrase that comes with an observation


class TextSpace(spaces.Box):
    """
    Text as a 1-D array of UTF-8 bytes, zero-padded: the one text carrier SB3's buffers, VecEnvs and checks accept.

    A 1-D uint8 ``Box`` is stored as it is by ``RolloutBuffer`` and is not taken for an image; ``gymnasium.spaces.Text``
    fails in SB3's ``DummyVecEnv`` (SB3 #1704, #1914). Nothing is ever cut: too long a text is an error.

    With ``slots``, the phrases of the present state travel behind the text in the same bytes, for environments whose
    possible actions differ from state to state.

    :param max_bytes: length of the array; an observation text, with its phrases, may use all of it
    :param slots: how many phrases can come with each observation, at most 64; 0 if the phrases are always the same
    :raises SetupError: for other numbers, or less room than one byte of text and two for each slot
    """

    slots = 0  # of spaces pickled before there were slots

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, slots: int = 0) -> None:
        if not is_whole(max_bytes) or max_bytes < 1:
            raise SetupError(f"max_bytes={max_bytes!r}", "a whole number of bytes, 1 or more", "leave max_bytes out")
        if not is_whole(slots) or not 0 <= slots <= MAX_SLOTS:
            raise SetupError(f"slots={slots!r}", f"a whole number of phrases, at most {MAX_SLOTS}", "leave slots out")
        if slots and max_bytes < 1 + 2 * slots:
            raise SetupError(
                f"max_bytes={max_bytes} with slots={slots}",
                f"at least {1 + 2 * slots} bytes: a text, and a phrase with its separator for each slot",
                "leave max_bytes out, or take fewer slots",
            )
        super().__init__(low=0, high=255, shape=(int(max_bytes),), dtype=np.uint8)
        self.slots = int(slots)

    @property
    def max_bytes(self) -> int:
        return int(self.shape[0])

    def encode(self, text: str, phrases: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """
        :param text: any Unicode text without the character NUL, which marks the padding
        :param phrases: the phrases of the present state, 1 to ``slots``, if the space has slots
        :return: the UTF-8 bytes of both, zero-padded to ``(max_bytes,)``
        :raises SetupError: if the text is none, the phrases are bad, both don't fit, or one holds a NUL or (with
            slots) the separator U+001F
        """
        if not isinstance(text, str):
            raise SetupError(
                f"an observation text of type {type(text).__name__}", "a str", "make describe(obs) return a str"
            )
        checked = self._check_offer(text, phrases)
        data = _utf8(SEPARATOR.join((text, *checked)))
        if len(data) > self.max_bytes:
            raise SetupError(
                f"an observation text{f' with {len(checked)} phrases' if checked else ''} of {len(data)} bytes, "
                f"starting {text[:60]!r}",
                f"at most {self.max_bytes} bytes",
                f"pass max_bytes={len(data)} or more to make_env or TextObservation, or a describe= that says less",
            )
        array = np.zeros(self.max_bytes, dtype=np.uint8)
        array[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        return array

    def decode(self, array: NDArray[np.uint8]) -> str:
        """
        :param array: what :meth:`encode` returned, shape ``(max_bytes,)``
        :return: the same text, byte for byte, without the phrases
        :raises SetupError: if the bytes are no zero-padded UTF-8, as after VecNormalize or VecFrameStack
        """
        return self._parts(array)[0] if self.slots else _read(array)

    def decode_phrases(self, array: NDArray[np.uint8]) -> list[str]:
        """
        :param array: what :meth:`encode` returned, shape ``(max_bytes,)``
        :return: the phrases that came with the text, in slot order
        :raises SetupError: as :meth:`decode`, or if the space has no slots
        """
        if not self.slots:
            raise SetupError(
                f"a question for the phrases in an observation of {self!r}",
                "a space with slots",
                "make it with slots=, or read the phrases from the action space, a PhraseSpace",
            )
        return self._parts(array)[1:]

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.uint8]:
        """:return: a random short text, with random phrases for the slots, encoded; random bytes would be no text."""
        size = min(8, self.max_bytes - 2 * self.slots)
        text = "".join(map(chr, self.np_random.integers(ord("a"), ord("z") + 1, size=size)))
        if not self.slots:
            return self.encode(text)
        letters = self.np_random.permutation(range(ord("0"), ord("0") + MAX_SLOTS))
        return self.encode(text, [chr(letter) for letter in letters[: self.np_random.integers(1, self.slots + 1)]])

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.slots == getattr(other, "slots", 0)

    def __repr__(self) -> str:
        return f"TextSpace({self.max_bytes}{f', slots={self.slots}' if self.slots else ''})"

    def _check_offer(self, text: str, phrases: Sequence[str] | None) -> tuple[str, ...]:
        """The phrases that come with a text, none in a space without slots, or what is wrong with them."""
        if (phrases is None) != (self.slots == 0):
            raise SetupError(
                f"phrases={reprlib.repr(phrases)} for {self!r}",
                f"1 to {self.slots} phrases of the present state" if self.slots else "a text alone: it has no slots",
                "pass encode(text, phrases)" if self.slots else "make the space with slots=, or leave phrases out",
            )
        if phrases is None:
            return ()
        if isinstance(phrases, Sequence) and not isinstance(phrases, str) and not 1 <= len(phrases) <= self.slots:
            raise SetupError(
                f"{len(phrases)} phrases {reprlib.repr(list(phrases))}",
                f"1 to {self.slots} phrases, as there are {self.slots} slots",
                f"offer at least one and no more than there are slots; slots= can be up to {MAX_SLOTS}",
            )
        checked = check_phrases(phrases)
        _refuse_separator("the observation text", text)
        for index, phrase in enumerate(checked):
            _refuse_separator(f"phrase {index}", phrase)
        return checked

    def _parts(self, array: NDArray[np.uint8]) -> list[str]:
        """The text and the phrases behind it."""
        parts = _read(array).split(SEPARATOR)
        if not 1 <= len(parts) - 1 <= self.slots:
            raise SetupError(
                f"bytes with {len(parts) - 1} phrases, starting {parts[0][:60]!r}",
                f"1 to {self.slots} phrases, as {self!r}.encode makes them",
                "read observations by the space that made them",
            )
        return parts


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


def is_whole(number: Any) -> bool:
    """:return: whether it is an integer, Python's or NumPy's; ``True`` is none."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _refuse_separator(name: str, words: str) -> None:
    if SEPARATOR in words:
        raise SetupError(
            f"{name} is {words[:60]!r}, with U+001F at character {words.index(SEPARATOR)}",
            "words without U+001F, which separates text and phrases",
            "replace it, for example by a blank",
        )


def _read(array: NDArray[np.uint8]) -> str:
    """What stands in zero-padded bytes."""
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


def _utf8(text: str) -> bytes:
    """Encode strictly: a lone surrogate or a NUL would not come back from the buffer as it went in."""
    try:
        if "\0" in text:
            raise ValueError("it holds the character NUL")
        return text.encode("utf-8")
    except ValueError as error:
        raise SetupError(f"text that can't travel as bytes: {error}", "Unicode text without NUL", "clean it") from None
