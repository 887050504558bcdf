"""The peers that scoring is compared with are right: no straw men."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sb3_llm.benchmarks.__main__ import app
from sb3_llm.benchmarks.gpu import _columns
from sb3_llm.benchmarks.memory import peak
from sb3_llm.benchmarks.peers import PromptOnly
from sb3_llm.benchmarks.scoring import QUICK, ROUTES
from sb3_llm.benchmarks.shapes import PHRASES, Setting, random_rows
from sb3_llm.scoring import ReferenceScorer
from sb3_llm.scoring.trie import build_trie
from tests.tiny import tiny_lm


@pytest.mark.parametrize("route", [name for name in ROUTES if name != "prompt only"])
def test_peers_are_right(route: str) -> None:
    lm, rows = tiny_lm("llama", 200), random_rows(Setting("6M", 200, 7, 3))
    mine, right = ROUTES[route](lm).score(rows), ReferenceScorer(lm).score(rows)
    torch.testing.assert_close(mine.log_probs, right.log_probs, rtol=0, atol=1e-10)
    torch.testing.assert_close(mine.features, right.features, rtol=0, atol=1e-10)


def test_phrases_have_the_shape_they_are_said_to_have() -> None:
    assert [len(each) for each in PHRASES[7]].count(1) == 2
    assert build_trie(PHRASES[7]).n_nodes == 4
    assert [len(phrases) for phrases in PHRASES.values()] == list(PHRASES)
    assert QUICK == ("prompt only", "ours")


ROOT = Path(__file__).parent.parent


def test_the_readme_says_what_was_measured() -> None:
    found = json.loads((ROOT / "benchmarks/results/scoring.json").read_text())[0]
    assert (found["setting"]["model"], found["setting"]["batch"]) == ("6M", 32)
    rows = {"ours": "ours", "cached prompt, a row for each phrase": "cached prompt, a row per phrase (lamorel)"}
    rows |= {"reference (the definition)": "reference", "all rows": "all rows"}
    rows |= {"all rows + critic pass": "all rows + critic pass (TWOSOME)"}
    readme = (ROOT / "README.md").read_text().replace("**", "")
    for told, route in rows.items():
        costs = []
        for seconds in found["seconds"].values():
            cost = statistics.median(seconds[route]) / statistics.median(seconds["prompt only"])
            costs.append(f"{cost:.2g}" if cost >= 1 else f"{cost:.2f}".removeprefix("0"))
        peak_ = f"{found['peak_MiB'][route]:,.0f} MiB" if route in found["peak_MiB"] else ""
        line = " | ".join([told, *costs, peak_]).strip()
        assert f"| {line} |" in readme, line


def test_columns_are_counted_as_they_are_fed() -> None:
    lm, rows = tiny_lm("llama", 200), random_rows(Setting("6M", 200, 7, 3))
    assert _columns(lm, lambda: PromptOnly(lm).score(rows)) == 3 * max(len(row.prompt) for row in rows)


def fifty_mib(held_before: int) -> Callable[[], object]:
    torch.ones(held_before * 2**18).sum()  # the peak before counts for nothing
    return lambda: torch.ones(50 * 2**18).sum()


def test_peak_memory() -> None:
    assert 45 < peak(fifty_mib, 0) < 60
    assert 45 < peak(fifty_mib, 100) < 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do without a GPU")
def test_without_a_gpu() -> None:
    result = CliRunner().invoke(app, ["scoring", "--device", "cuda"])
    assert "a machine without a GPU" in str(result.exception)
