"""The README's figures are those of the files that were measured; what it imports is there."""

import ast
import json
from pathlib import Path

from sb3_llm.benchmarks.controls.results import Results, readme_table
from sb3_llm.benchmarks.controls.tasks import TASKS, WORDED
from sb3_llm.benchmarks.zeroshot import OTHER_WORDS, RESULTS, wording_row
from tests.blocks import blocks_of

PAGE = Path(__file__).parent.parent / "README.md"
README = PAGE.read_text(encoding="utf-8")


def test_its_zero_shot_table_is_what_was_played() -> None:
    assert readme_table(Results(RESULTS), TASKS) in README


def test_its_demo_table_is_what_was_trained() -> None:
    for row in json.loads((RESULTS.parent / "demo.json").read_text(encoding="utf-8")):
        if row["curve"]:
            before, after = (f"{row[when]['success']:.2f}".replace("0.", ".") for when in ("before", "after"))
            name = row["method"].replace("(MlpPolicy)", '("MlpPolicy")')
            assert f"| `{name}` | {before} | {after} (" in README


def test_its_wordings_table_is_what_was_played() -> None:
    found = Results(RESULTS)
    told = {"held-out phrases": "held-out phrases for the actions", "zh": "Chinese", "held-out templates": "sentences"}
    for words in OTHER_WORDS:
        row = wording_row(words)
        name = row.removeprefix("lm, ")
        cells = [f"{(found.of(task, row) or {})['success']:.2f}".removeprefix("0") for task in WORDED]
        assert f"| {told.get(name, name.removeprefix('held-out '))} | {' | '.join(cells)} |" in README


def test_what_it_imports_is_there() -> None:
    """Its blocks are told at greater length in docs/, where they run (tests/test_docs.py)."""
    imports = [
        ast.unparse(line)
        for block in blocks_of(PAGE)
        if block.language == "python"
        for line in ast.parse(block.code).body
        if isinstance(line, ast.Import | ast.ImportFrom)
    ]
    assert len(imports) > 5
    for line in imports:
        exec(line, {})
