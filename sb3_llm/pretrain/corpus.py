"""The corpus: stories from every source, the same for the same seed, with a manifest of where each line came from."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sb3_llm.envs.layout import layout_hash
from sb3_llm.make import make_env
from sb3_llm.pretrain.sources import SOURCES, Source
from sb3_llm.pretrain.stories import STORY_LIMIT, Line, tell_story

FORMAT = 1
MAX_FAILURES = 200  # stories in a row that an expert may fail before its source is given up


@dataclass(frozen=True)
class Chapter:
    """All lines of one source, and how they came about."""

    source: Source
    lines: list[Line]
    episodes: int
    dropped: int  # stories in which the expert hung or failed
    layouts: list[str]  # hashes of the mazes

    def manifest(self) -> dict[str, Any]:
        """:return: what a reader needs to check this chapter without the lines."""
        return asdict(self.source) | {
            "episodes": self.episodes,
            "dropped": self.dropped,
            "lines": len(self.lines),
            "sha256": digest(self.lines),
            "layouts": self.layouts,
        }


def digest(lines: Iterable[Line]) -> str:
    """:return: sha256 over the lines in their order."""
    whole = hashlib.sha256()
    for text, phrase in lines:
        whole.update(json.dumps([text, phrase], ensure_ascii=False).encode())
    return whole.hexdigest()


def write_chapter(source: Source, n_lines: int, seed: int) -> Chapter:
    """
    Tell stories from one source until there are enough lines.

    :param source: where the stories play
    :param n_lines: how many lines
    :param seed: of the corpus; every source draws its own episodes from it
    :return: the chapter
    """
    env = make_env(source.env_id, **source.env_kwargs)
    first = seed * 1_000_003 + zlib.crc32(json.dumps(asdict(source), sort_keys=True).encode())
    lines: list[Line] = []
    layouts: set[str] = set()
    told, dropped, failures = 0, 0, 0
    while len(lines) < n_lines and failures < MAX_FAILURES:
        try:
            story = tell_story(env, (first + told + dropped) % 2**31, source.detours)
        except Exception:  # the bot fails in many ways; a broken source is seen in the manifest's counts
            dropped, failures = dropped + 1, failures + 1
            continue
        told, failures = told + 1, 0
        lines += story
        if hasattr(env.unwrapped, "walls"):
            layouts.add(layout_hash(env.unwrapped.walls))
    return Chapter(source, lines[:n_lines], told, dropped, sorted(layouts))


def write_corpus(
    n_lines: int, seed: int = 0, processes: int = 1, sources: Sequence[Source] = SOURCES
) -> tuple[list[Line], dict[str, Any]]:
    """
    Write the whole corpus.

    :param n_lines: how many lines, shared out among the sources
    :param seed: the same seed gives the same corpus, whatever the number of processes
    :param processes: how many work at once
    :param sources: where the stories play
    :return: the lines, source by source, and the manifest
    """
    total = sum(source.share for source in sources)
    quotas = [round(n_lines * source.share / total) for source in sources]
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(write_chapter, source, quota, seed) for source, quota in zip(sources, quotas, strict=True)]
        chapters = [job.result() for job in tqdm(jobs, desc="telling stories", unit="source")]
    lines = [line for chapter in chapters for line in chapter.lines]
    manifest = {
        "format": FORMAT,
        "seed": seed,
        "asked": n_lines,
        "story_limit": STORY_LIMIT,
        "lines": len(lines),
        "sha256": digest(lines),
        "sources": [chapter.manifest() for chapter in chapters],
    }
    return lines, manifest


def save_corpus(folder: Path, lines: Sequence[Line], manifest: dict[str, Any]) -> None:
    """Write ``corpus.jsonl`` (one ``[observation text, phrase]`` a line) and ``manifest.json`` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def load_corpus(folder: Path) -> tuple[list[Line], dict[str, Any]]:
    """:return: what :func:`save_corpus` wrote."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        lines = [(text, phrase) for text, phrase in map(json.loads, file)]
    return lines, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
