"""Demonstrations as lines of JSON: what a line may hold, and files that a kill can't spoil."""

import difflib
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sb3_llm.errors import SetupError
from sb3_llm.spaces import check_phrases, is_whole

EXAMPLE = '{"observation": "Goal: reach the goal. North wall.", "phrase": "go forward"}'
OPTIONAL = ("phrases", "episode", "step")
KEYS = ("observation", "phrase", *OPTIONAL)
FIRST_KEY = b'{"observation"'  # what every line that is written here begins with


class Demo(NamedTuple):
    """One decision."""

    observation: str  # the observation text
    phrase: str  # what was said
    phrases: tuple[str, ...] | None = None  # what could be said, in action order
    episode: int | None = None
    step: int | None = None


def read_demos(path: str | Path) -> list[Demo]:
    """
    Read a file of demonstrations; the package's docstring describes its lines. Empty lines are passed over.

    :param path: of the file
    :return: its demonstrations, in order
    :raises SetupError: if there is no such file, no line in it, or a line is bad: the first bad one is named, and how
        many more there are
    """
    path, data = Path(path), _read_bytes(Path(path))
    demos: list[Demo] = []
    bad: list[tuple[int, SetupError]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            try:
                demos.append(parse_line(line))
            except SetupError as error:
                bad.append((number, error))
    if bad:
        raise _first_of(bad, path)
    if not demos:
        raise SetupError(f"{path}, which holds no line", "one demonstration a line", f"write lines such as {EXAMPLE}")
    return demos


def write_demos(path: str | Path, demos: Sequence[Demo]) -> None:
    """
    Add demonstrations to the end of a file, which is made if need be, and wait until they are on the disk.

    Whenever the process is killed, at most the line that is being written is lost; the next call drops its remains,
    also one without demonstrations.

    :param path: of the file
    :param demos: to add; if one is bad, nothing is written
    :raises SetupError: for a demonstration that :func:`read_demos` would refuse, or a file that holds something else
    """
    path = Path(path)
    data = checked_lines(demos)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not data and not path.exists():
            return
        with path.open("r+b" if path.exists() else "w+b") as file:
            _mend_end(file, path)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _not_usable(path, error, "a file that can be written") from None


def checked_lines(demos: Sequence[Demo]) -> bytes:
    """
    :param demos: demonstrations
    :return: the lines of a file that holds them
    :raises SetupError: if one is bad; it is named by its place, from 1
    """
    return b"".join(_checked_line(number, demo) for number, demo in enumerate(demos, start=1))


def as_line(demo: Demo) -> bytes:
    """:return: a demonstration as a line of JSON, newline included; what is None is left out."""
    entries = {name: value for name, value in demo._asdict().items() if value is not None}
    return json.dumps(entries, ensure_ascii=False).encode() + b"\n"


def parse_line(line: bytes) -> Demo:
    """
    :param line: a line of a file of demonstrations
    :return: the demonstration
    :raises SetupError: if it is none
    """
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        given = f"byte {error.start + 1} is {line[error.start]:#04x}, which is no UTF-8"
        raise SetupError(given, "UTF-8", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        given = f"{reprlib.repr(line.decode('utf-8'))}, which is no JSON ({error})"
        raise SetupError(given, f"one JSON object, such as {EXAMPLE}", "write the line so, or take it away") from None
    if not isinstance(found, dict):
        given = f"{reprlib.repr(found)}, which is no object"
        raise SetupError(given, f"a JSON object, such as {EXAMPLE}", "write the line so, or take it away")
    return _read_object(found)


def _read_object(found: Mapping[str, Any]) -> Demo:
    for name in ("observation", "phrase"):
        if name not in found:
            given = f"no key {name!r} among {', '.join(map(repr, found)) or 'none'}"
            raise SetupError(given, "the keys 'observation' and 'phrase'", f"add {name!r}, as in {EXAMPLE}")
        _check_text(name, found[name])
    _refuse_near_misses(found)
    phrase, phrases = _checked("phrase", [found["phrase"]])[0], found.get("phrases")
    if phrases is not None:
        phrases = _checked("phrases", phrases)
        if phrase not in phrases:
            given = f'the phrase {phrase!r}, which is not among "phrases" {list(phrases)}'
            raise SetupError(given, "one of these", 'correct the phrase, or add it to "phrases"')
    return Demo(found["observation"], phrase, phrases, *(_number(found, name) for name in ("episode", "step")))


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        given = f'"{name}" is {reprlib.repr(value)} ({type(value).__name__})'
        raise SetupError(given, "a string", "put the words between quotation marks")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SetupError(f'"{name}" holds half a character', "whole Unicode characters", "write it anew") from None
    if "\0" in value:
        raise SetupError(f'"{name}" holds the character NUL', "text without NUL, which marks an end", "take it out")


def _checked(name: str, phrases: Any) -> tuple[str, ...]:
    """Phrases as the action space takes them."""
    try:
        return check_phrases(phrases)
    except SetupError as error:
        given, expected, mend = error.parts
        given = given.removeprefix("phrase 0 is ") if name == "phrase" else given
        raise SetupError(f'"{name}" is bad: {given}', expected, mend) from None


def _refuse_near_misses(found: Mapping[str, Any]) -> None:
    """A misspelt optional key would be passed over, and other phrases taught than were meant."""
    for name in found:
        near = difflib.get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=0.75)
        if name not in KEYS and near:
            raise SetupError(f"the key {name!r}", f"one of {', '.join(map(repr, KEYS))}", f"write {near[0]!r}")


def _number(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    if value is not None and (not is_whole(value) or value < 0):
        raise SetupError(
            f'"{name}" is {reprlib.repr(value)}', "a whole number, 0 or more", f"correct it, or leave {name!r} out"
        )
    return value


def _checked_line(number: int, demo: Demo) -> bytes:
    try:
        _read_object(demo._asdict())
    except SetupError as error:
        given, expected, mend = error.parts
        raise SetupError(f"demonstration {number}: {given}", expected, mend) from None
    return as_line(demo)


def _first_of(bad: Sequence[tuple[int, SetupError]], path: Path) -> SetupError:
    (number, error), more = bad[0], len(bad) - 1
    given, expected, mend = error.parts
    told = f" ({more} more bad line{'s' if more > 1 else ''} in the file)" if more else ""
    return SetupError(f"{path}, line {number}: {given}{told}", expected, mend)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _not_usable(path, error, "a file of demonstrations") from None


def _not_usable(path: Path, error: OSError, expected: str) -> SetupError:
    mend = "check the path; `sb3-llm record` writes such a file"
    return SetupError(f"the file {path} ({error.strerror or error})", expected, mend)


def _mend_end(file: BinaryIO, path: Path) -> None:
    """Go to where the next line begins: behind a whole line, or over the remains of one that a kill cut."""
    first = file.readline()
    if first.strip():
        _require_ours(first, path)
    end = file.seek(0, os.SEEK_END)
    if not end or (file.seek(end - 1), file.read(1))[1] == b"\n":
        return
    file.seek(0)
    data = file.read()
    start = data.rfind(b"\n") + 1
    if _is_demo(data[start:]):
        file.write(b"\n")
        return
    _require_ours(data[start:], path)
    file.seek(start)
    file.truncate()


def _is_demo(line: bytes) -> bool:
    try:
        return bool(parse_line(line.removeprefix(b"\xef\xbb\xbf")))
    except SetupError:
        return False


def _require_ours(line: bytes, path: Path) -> None:
    """Never add to, or cut, a file of another kind: a line is a demonstration, or one that was cut."""
    cut = not line.endswith(b"\n") and line[: len(FIRST_KEY)] == FIRST_KEY[: len(line)]
    if not cut and not _is_demo(line):
        given = f"the file {path}, whose line {reprlib.repr(line)} is no demonstration"
        raise SetupError(given, "a new file, or one of demonstrations", "name another file")
