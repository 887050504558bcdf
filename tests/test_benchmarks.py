"""The peers that scoring is compared with are right: no straw men."""

from collections.abc import Callable

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.memory import peak
from benchmarks.scoring import QUICK, ROUTES
from benchmarks.shapes import PHRASES, Setting, random_rows
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
