"""What a zip of SB3 would run when it is loaded, told without running it."""

import base64
import io
import json
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Packages whose names stand in every zip that SB3 and this package write.
KNOWN = ("stable_baselines3", "sb3_contrib", "sb3_llm", "gymnasium", "numpy", "torch", "collections", "minigrid")
HARMLESS_BUILTINS = {"set", "frozenset", "list", "dict", "tuple", "bytearray", "slice", "range", "complex", "object"}
STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
STORES, FETCHES = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


@dataclass(frozen=True)
class Pickle:
    """
    One pickled object of a zip.

    :param entry: where it stands
    :param names: what unpickling it would import, as "module.name"; it may call any of them
    """

    entry: str
    names: tuple[str, ...]

    @property
    def foreign(self) -> tuple[str, ...]:
        """:return: the names that no zip of this package needs, such as functions packed with their code."""
        return tuple(name for name in self.names if not _known(name))


def _known(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module.split(".")[0] in KNOWN or (module == "builtins" and last in HARMLESS_BUILTINS)


def pickles_of(archive: zipfile.ZipFile) -> list[Pickle]:
    """
    :param archive: that SB3 saved
    :return: its pickled objects: entries of "data", and what is a pickle as a whole
    """
    entries: dict[str, Any] = json.loads(archive.read("data"))
    found = [
        Pickle(name, names_in(base64.b64decode(entry[":serialized:"])))
        for name, entry in entries.items()
        if isinstance(entry, dict) and ":serialized:" in entry
    ]
    whole = [name for name in archive.namelist() if name.endswith(".pkl")]
    return [*found, *(Pickle(name, names_in(archive.read(name))) for name in whole)]


def names_in(pickled: bytes) -> tuple[str, ...]:
    """
    :param pickled: an object
    :return: what it imports, sorted; "?" where the name can't be told, or the bytes are no pickle
    """
    try:
        return tuple(sorted(set(_names(pickled))))
    except Exception:  # pickletools raises what it likes on bytes that are no pickle
        return ("?",)


def _names(pickled: bytes) -> Iterator[str]:
    strings: list[str] = []  # pushed so far, the latest last
    memo: dict[int, str] = {}
    last: str | None = None  # what the operation before pushed, if it was a string
    stored = 0
    for operation, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        name = operation.name
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(strings[-2:]) if len(strings) > 1 else "?"
        elif name in ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"):
            yield "?"
        if name == "MEMOIZE" or name in STORES:
            place = stored if name == "MEMOIZE" else int(str(argument))
            memo[place] = last if last is not None else "?"
            stored += 1
            continue  # the stack is as it was
        last = argument if name in STRINGS else memo.get(int(str(argument))) if name in FETCHES else None
        if last is not None:
            strings.append(last)
