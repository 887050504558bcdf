"""The corpus: stories from every source, the same for the same seed, with a manifest of where each line came from."""

import hashlib
import json
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
from sb3_llm.pretrain.sayings import say
from sb3_llm.pretrain.sources import SAYINGS, SOURCES, Source
from sb3_llm.pretrain.stories import STORY_LIMIT, Line, tell_story

FORMAT = 2
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


def digest(lines: Iterable[Line]) -> str:
    """:return: sha256 over the lines in their order."""
    whole = hashlib.sha256()
    for line in lines:
        whole.update(json.dumps(list(line), ensure_ascii=False).encode())
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
    :raises SetupError: if the folder holds a corpus of another version
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = share_out(n_lines, seed, sources)
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(write_part, folder, part) for part in parts]
        told = [job.result() for job in tqdm(jobs, desc="telling stories", unit="source")]
    manifest = {
        "format": FORMAT,
        "seed": seed,
        "asked": n_lines,
        "story_limit": STORY_LIMIT,
        "lines": sum(part["lines"] for part in told),
        "sha256": hashlib.sha256("".join(part["sha256"] for part in told).encode()).hexdigest(),
        "sources": told,
    }
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


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
    Tell one part, or leave it as it is if its file was made for the same part.

    :param folder: of the corpus
    :param part: what to tell
    :return: its entry of the manifest
    """
    lines_path, entry_path = folder / f"{part.name}.jsonl", folder / f"{part.name}.json"
    if entry_path.exists():
        entry = json.loads(entry_path.read_text(encoding="utf-8"))
        if entry["part"] == part.digest():
            return dict(entry["manifest"])
    lines, manifest = tell_part(part)
    write_whole(lines_path, "".join(json.dumps(list(line), ensure_ascii=False) + "\n" for line in lines))
    write_whole(entry_path, json.dumps({"part": part.digest(), "manifest": manifest}))
    return manifest


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
    first = seed * 1_000_003 + zlib.crc32(json.dumps(asdict(source), sort_keys=True).encode())
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


def read_lines(folder: Path) -> Iterator[Line]:
    """
    Read a corpus part by part, in the manifest's order.

    :param folder: that :func:`write_corpus` wrote
    :return: its lines
    """
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for text in file:
                yield Line(*json.loads(text))


def check_folder(folder: Path) -> None:
    """
    :param folder: of a corpus, or where one is to be written
    :raises SetupError: if it holds a corpus of another version
    """
    path = folder / "manifest.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8")).get("format")
        if found != FORMAT:
            raise SetupError(
                f"the corpus in {folder}, of format {found}", f"format {FORMAT}", "write it anew into another folder"
            )


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one, or none."""
    path.with_suffix(".new").write_text(text, encoding="utf-8")
    path.with_suffix(".new").replace(path)
