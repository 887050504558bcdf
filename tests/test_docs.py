"""The site in docs/: its blocks of code run, its commands, files and figures are there, and it builds strictly."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sb3_llm.alarms import KINDS
from sb3_llm.benchmarks.__main__ import app as benchmarks_app
from sb3_llm.callbacks import PolicyWatch
from sb3_llm.cli import app
from tests.blocks import SHORT_OPTIONS, blocks_of, commands_of, run_python, understood

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
READ = [*PAGES, ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
PROGRAMS = {"sb3-llm": app, "python -m sb3_llm": app, "python -m benchmarks": benchmarks_app}
#: Not run here: what waits for somebody, or fetches a model.
NOT_HERE = {"--live", "Qwen/Qwen3-0.6B"}
HIGHLIGHTED = {"python", "bash", "json", "text", ""}


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.fixture(scope="module")
def forms() -> set[tuple[str, ...]]:
    """Commands with their options that were run: the same with other values shows nothing new, and costs seconds."""
    return set()


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_its_blocks_run(
    page: Path, tmp_path: Path, forms: set[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        assert block.language in HIGHLIGHTED, block
        if block.language == "python":
            said = run_python(block, names)
            assert block.printed in (None, said), block
        if block.language == "json":
            json.loads(block.code)
        for name, *rest in commands_of(block.code, "sb3-llm") if block.language == "bash" else ():
            form = (name, *sorted(word for word in rest if word.startswith("--")))
            if name in SHORT_OPTIONS and form not in forms and not NOT_HERE & {*rest}:
                app([name, *rest, *SHORT_OPTIONS[name]], standalone_mode=False)
                forms.add(form)


@pytest.mark.parametrize("page", READ, ids=ids(READ))
def test_its_commands_are_understood(page: Path) -> None:
    """In blocks of shell, and in the running text, where some name a command with an option and no more."""
    whole = "\n".join(block.code for block in blocks_of(page) if block.language == "bash")
    named = [code for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")) if "..." not in code]
    for program, made_by in PROGRAMS.items():
        group: Any = typer.main.get_command(made_by)
        for arguments in commands_of(whole, program):
            understood(group, arguments)
        for arguments in commands_of("\n".join(named), program):
            understood(group, arguments, whole=False)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_its_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:sb3_llm|tests|benchmarks|envs|docs|\.ci)/[\w/.-]*)`", text)
    for path in named:
        is_a_world = re.search(r"-v\d$|\.\.$", path)
        assert is_a_world or (ROOT / path).exists(), path
    for target in re.findall(r"^make (\S+)", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), target


def test_the_figure_is_the_decision_that_its_page_prints() -> None:
    (told,) = [block.printed for block in blocks_of(ROOT / "docs" / "policy.md") if block.printed]
    rows = re.findall(r"^(.+?) +(-\d+\.\d) (\d\.\d\d)$", told, re.MULTILINE)
    assert len(rows) == 6
    figure = (ROOT / "docs" / "policy.svg").read_text(encoding="utf-8")
    drawn = re.findall(r">(-?\d*\.\d+)</text>", figure)
    assert drawn == [score for _, score, _ in rows] + [share.removeprefix("0") for *_, share in rows]
    words = re.findall(r">(\w+)</text>", figure.split('<g class="words">')[1].split("</g>")[0])
    assert words == ["turn", "left", "right", "go", "forward", "pick", "up", "drop", "open"]
    for phrase, score, _ in rows:
        assert f"{phrase} {score}" in figure, "the description for those who can't see it"


# --- tuning by symptom


def tuning() -> str:
    return (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")


def test_every_alarm_is_explained_with_its_limits() -> None:
    entry = re.compile(r"^- `(\w+)`: (.+?)(?=\n- `|\n\n)", re.MULTILINE | re.DOTALL)
    told: dict[str, str] = dict(entry.findall(tuning()))
    assert list(told) == list(KINDS)
    limits = {name: each.default for name, each in inspect.signature(PolicyWatch).parameters.items()}
    for kind, text in told.items():
        assert "**Mend:**" in text
        for name, limit in limits.items():
            if name.startswith(("min_", "max_")) and name.split("_", 1)[1].startswith(kind) and limit is not None:
                assert f" {limit:g}".replace(" 0.", " .") in text, name


def test_its_tables_are_those_of_the_log() -> None:
    """Rows that hold a figure stand, word for word, where they were written down."""
    sources = [(ROOT / name).read_text(encoding="utf-8").splitlines() for name in ("README.md", "benchmarks/LOG.md")]
    known = {line for lines in sources for line in lines}
    rows = [line for line in tuning().splitlines() if line.startswith("| ")]
    figures = [row for row in rows if re.search(r"\.\d\d|\de-\d", row)]
    assert len(figures) >= 12
    assert [row for row in figures if row not in known] == []


# --- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; it is in the extra sb3_llm[docs]")
    folder = tmp_path_factory.mktemp("site")
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_asks_nothing_of_the_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"?([^\s\">]+)", text)
        fetched += re.findall(r"<link[^>]+rel=\"?(?:stylesheet|icon|preconnect)[^>]+href=\"?([^\s\">]+)", text)
        assert fetched
        assert [each for each in fetched if "//" in each] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("policy.html", "policy-title"),
        ("worlds.html", "MiniGrid-PutNear-6x6-N2-v0"),
        ("embedded.html", "What it read"),
        ("log.html", "Failures stay"),
        ("benchmarks.html", "On several machines"),
        ("api.html", 'id="sb3_llm.LLMPolicy"'),
    ],
)
def test_what_it_takes_from_elsewhere_is_in_it(site: Path, page: str, words: str) -> None:
    assert words in (site / page).read_text(encoding="utf-8")


def test_the_api_shows_no_marks_of_its_source(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    assert ":class:" not in text
    assert ":param" not in text
    assert "phrases that are never said" in text, "keywords of a TypedDict"
