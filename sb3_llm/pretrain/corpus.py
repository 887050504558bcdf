"""The corpus: stories from every source, the same for the same seed, with a manifest of where each line came from."""

import hashlib
import json
import signal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import sb3_llm.envs  # noqa: F401  # registers the project's worlds
from sb3_llm.envs.layout import layout_hash
from sb3_llm.errors import SetupError
from sb3_llm.folder import write_text
from sb3_llm.pretrain.sayings import say
from sb3_llm.pretrain.sources import SAYINGS, SOURCES, Source
from sb3_llm.pretrain.stories import STORY_LIMIT, Exchange, Line, tell_story

FORMAT = 5
MANIFEST = "manifest.json"
MAX_FAILURES = 200  # stories in a row that an expert may fail before its source is given up


@dataclass(frozen=True)
class Part:
    """One job: a source, or a kind of saying, with how many lines it is to tell."""

    name: str  # of its file
    source: Source | str
    lines: int
    seed: int

    def digest(self) -> str:
        """:return: what the lines depend on; a file made from something else is made anew."""
        source = self.source if isinstance(self.source, str) else asdict(self.source)
        return hashlib.sha256(json.dumps([FORMAT, source, self.lines, self.seed], sort_keys=True).encode()).hexdigest()


def as_text(line: Line) -> str:
    """:return: a line as its file holds it, without the newline: a list of prompts, each before its completion."""
    return json.dumps([part for exchange in line.exchanges() for part in exchange], ensure_ascii=False)


def as_line(text: str | bytes) -> Line:
    """
    :return: the line that :func:`as_text` wrote
    :raises ValueError: if it did not
    """
    parts = json.loads(text)
    if not isinstance(parts, list) or not parts or len(parts) % 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError("a list of prompts, each before its completion, was expected")
    pairs = [Exchange(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return Line(*pairs[0], tuple(pairs[1:]))


def digest(lines: Iterable[Line]) -> str:
    """:return: sha256 over the lines in their order."""
    whole = hashlib.sha256()
    for line in lines:
        whole.update(as_text(line).encode())
    return whole.hexdigest()


def write_corpus(
    folder: Path, n_lines: int, seed: int = 0, processes: int = 1, sources: Sequence[Source] = SOURCES
) -> dict[str, Any]:
    """
    Write the whole corpus: a file of lines for each source, and ``manifest.json``.

    Interrupted, it goes on with the parts that are missing.

    :param folder: where to
    :param n_lines: how many lines, shared out among the sources and sayings
    :param seed: the same seed gives the same corpus, whatever the number of processes
    :param processes: how many work at once
    :param sources: where the stories play
    :return: the manifest
    :raises SetupError: if the folder holds a corpus of another version, or one with other settings
    """
    check_folder(folder, n_lines, seed)
    folder.mkdir(parents=True, exist_ok=True)
    told = _write_parts(folder, share_out(n_lines, seed, sources), processes)
    manifest = {
        "format": FORMAT,
        "seed": seed,
        "asked": n_lines,
        "story_limit": STORY_LIMIT,
        "lines": sum(part["lines"] for part in told),
        "sha256": hashlib.sha256("".join(part["sha256"] for part in told).encode()).hexdigest(),
        "sources": told,
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _write_parts(folder: Path, parts: Sequence[Part], processes: int) -> list[dict[str, Any]]:
    """Tell all parts, several at once. Ctrl-C ends it soon, and leaves the parts that are whole."""
    pool = ProcessPoolExecutor(processes, initializer=_die_at_once)
    try:
        jobs = [pool.submit(write_part, folder, part) for part in parts]
        return [job.result() for job in tqdm(jobs, desc="telling stories", unit="source")]
    finally:
        pool.shutdown(cancel_futures=True)


def _die_at_once() -> None:
    """A terminal sends Ctrl-C to the workers too; each of Python's own would go on with its next part."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def share_out(n_lines: int, seed: int, sources: Sequence[Source]) -> list[Part]:
    """:return: the jobs that make a corpus of so many lines."""
    total, stories = sum(source.share for source in sources), 1 - sum(SAYINGS.values())
    parts = [
        Part(f"{number:03d}", source, round(n_lines * stories * source.share / total), seed)
        for number, source in enumerate(sources)
    ]
    return parts + [Part(kind, kind, round(n_lines * share), seed) for kind, share in SAYINGS.items()]


def write_part(folder: Path, part: Part) -> dict[str, Any]:
    """
    Tell one part, or leave it as it is if its file was made for the same part and is whole.

    :param folder: of the corpus
    :param part: what to tell
    :return: its entry of the manifest
    """
    lines_path, entry_path = folder / f"{part.name}.jsonl", folder / f"{part.name}.json"
    found = _told_already(lines_path, entry_path, part)
    if found is not None:
        return found
    lines, manifest = tell_part(part)
    write_text(lines_path, "".join(f"{as_text(line)}\n" for line in lines))
    write_text(entry_path, json.dumps({"part": part.digest(), "manifest": manifest}))
    return manifest


def _told_already(lines_path: Path, entry_path: Path, part: Part) -> dict[str, Any] | None:
    try:
        entry = json.loads(entry_path.read_text(encoding="utf-8"))
        manifest = dict(entry["manifest"])
        same = entry["part"] == part.digest() and _digest_of_file(lines_path) == manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if same else None


def _digest_of_file(path: Path) -> str:
    """As :func:`digest` of its lines."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for text in file:
            whole.update(text.removesuffix(b"\n"))
    return whole.hexdigest()


def tell_part(part: Part) -> tuple[list[Line], dict[str, Any]]:
    """:return: the lines of one part, and its entry of the manifest."""
    if isinstance(part.source, str):
        rng = np.random.default_rng([part.seed, zlib.crc32(part.source.encode())])
        lines = [say(part.source, rng) for _ in range(part.lines)]
        return lines, {"kind": part.source, "lines": len(lines), "sha256": digest(lines)}
    return tell_stories(part.source, part.lines, part.seed)


def tell_stories(source: Source, n_lines: int, seed: int) -> tuple[list[Line], dict[str, Any]]:
    """
    Tell stories from one source until there are enough lines.

    :param source: where the stories play
    :param n_lines: how many lines
    :param seed: of the corpus; every source draws its own episodes from it
    :return: the lines, and what a reader needs to check them without reading
    """
    env = gym.make(source.env_id, disable_env_checker=True, **source.env_kwargs)
    first = first_seed(source, seed)
    lines: list[Line] = []
    layouts: set[str] = set()
    told, dropped, failures = 0, 0, 0
    while len(lines) < n_lines and failures < MAX_FAILURES:
        try:
            story = tell_story(env, (first + told + dropped) % 2**31, source.detours, source.use_bot)
        except SetupError:
            raise  # a word that no table knows, or a mission nobody understands: a fault of ours
        except Exception:  # the bot fails in many ways; a broken source is seen in the manifest's counts
            dropped, failures = dropped + 1, failures + 1
            continue
        told, failures = told + 1, 0
        lines += story
        if hasattr(env.unwrapped, "walls"):
            layouts.add(layout_hash(env.unwrapped.walls))
    lines = lines[:n_lines]
    counts = {"episodes": told, "dropped": dropped, "lines": len(lines), "sha256": digest(lines)}
    return lines, asdict(source) | counts | {"layouts": sorted(layouts)}


def first_seed(source: Source, seed: int) -> int:
    """:return: the seed of a source's first story; the next has one more, modulo 2^31."""
    return seed * 1_000_003 + zlib.crc32(json.dumps(asdict(source), sort_keys=True).encode())


def read_lines(folder: Path) -> Iterator[Line]:
    """
    Read a corpus, part by part in the order of their names, and check each against the manifest.

    :param folder: that :func:`write_corpus` wrote
    :return: its lines
    :raises SetupError: if there is no corpus of this version, or a part is not what was written
    """
    for name, entry in sorted(_entries(read_manifest(folder)).items()):
        path, whole = folder / f"{name}.jsonl", hashlib.sha256()
        if not path.exists():
            raise _spoilt(path, "missing")
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                whole.update(text.removesuffix(b"\n"))
                try:
                    line = as_line(text)
                except ValueError:
                    raise _spoilt(path, f"broken in line {number}") from None
                yield line
        if whole.hexdigest() != entry["sha256"]:
            raise _spoilt(path, "not the one that was written")


def lines_of(manifest: dict[str, Any], kind: str) -> range:
    """:return: the numbers of the lines of one kind of saying, as :func:`read_lines` counts them."""
    first = 0
    for name, entry in sorted(_entries(manifest).items()):
        if name == kind:
            return range(first, first + entry["lines"])
        first += entry["lines"]
    return range(0)


def _entries(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the name of each part, as :func:`share_out` gave them."""
    return {entry.get("kind", f"{number:03d}"): entry for number, entry in enumerate(manifest["sources"])}


def _spoilt(path: Path, how: str) -> SetupError:
    return SetupError(
        f"the corpus file {path}, which is {how}",
        "the lines whose sha256 the manifest names",
        f"delete {path.name} and {MANIFEST}, and write the corpus again: only this part is told anew",
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    :param folder: of a corpus
    :return: its manifest
    :raises SetupError: if there is none, or one of another version
    """
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        found = manifest.get("format")
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"{folder} as a corpus ({error})",
            f"a folder with {MANIFEST}, as `sb3-llm pretrain` leaves in OUT/corpus",
            "name another folder, or let the interrupted command go on",
        ) from None
    if found != FORMAT:
        raise SetupError(
            f"the corpus in {folder}, of format {found}", f"format {FORMAT}", "write it anew into another folder"
        )
    return manifest


def check_folder(folder: Path, n_lines: int, seed: int) -> None:
    """
    :param folder: of a corpus, or where one is to be written
    :param n_lines: how many lines it is to have
    :param seed: of the corpus
    :raises SetupError: if it is a file, or holds a corpus of another version or with other settings
    """
    if folder.exists() and not folder.is_dir():
        raise SetupError(f"{folder}, which is a file", "a folder for the corpus", "name another place")
    if not (folder / MANIFEST).exists():
        return
    found = read_manifest(folder)
    if (found["asked"], found["seed"]) != (n_lines, seed):
        raise SetupError(
            f"the corpus in {folder}, of {found['asked']} lines and seed {found['seed']}",
            f"one of {n_lines} lines and seed {seed}",
            "use the settings it was told with, or another folder",
        )
