"""What a pretraining reads: the tokenizer, lines as ids with their completions marked, and hand-checked batches."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.pretrain.data import NO_LOSS, PARTS, Examples, batches, collate, encode, load_examples, save_examples
from sb3_llm.pretrain.stories import Exchange, Line
from sb3_llm.pretrain.tokenizer import END, train_tokenizer
from tests.corpora import LINES

#: Several exchanges, of letters that are one byte, three and four.
DRILLED = [
    Line(
        "Goal: go to the red ball.\nAction:",
        " turn left\n",
        (Exchange("Goal: open the door.\nAction:", " go forward\n"), Exchange("Do: wait.\nAction:", " done\n")),
    ),
    Line("目标：去。\nAction:", " 向右转\n", (Exchange("目标：打开门。\nAction:", " 走🚪\n"),)),
    Line("🚪🤖", "🔑\n", (Exchange("🤖 a", "é🔑🔑\n"), Exchange("走", "🚪"))),
]


def examples_of(*rows: tuple[Sequence[int], int]) -> Examples:
    """Each row's ids, and how many of them, its last ones, are its completion."""
    ids = np.array([token for row, _ in rows for token in row], np.uint16)
    completes = np.array([place >= len(row) - n for row, n in rows for place in range(len(row))])
    return Examples(ids, completes, np.cumsum([0, *(len(row) for row, _ in rows)]))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer((line.text() for line in LINES), 300, 128)


# --- tokenizer


@pytest.mark.parametrize(
    "text", ["Goal: go to the red ball.", "向前走 🚪", " \n\t  two  blanks ", "a\u0301", "\x00\x7f", ""]
)
def test_tokenizer_gives_any_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_adds_nothing_and_merges_what_it_learnt(tokenizer: PreTrainedTokenizerFast) -> None:
    assert 256 < len(tokenizer) <= 300
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == (END, END, 128)
    assert tokenizer.bos_token is None
    ids = tokenizer("Goal: go to")["input_ids"]
    assert len(ids) < len("Goal: go to")
    assert not set(ids) & set(tokenizer.all_special_ids)


# --- examples and batches


def test_lines_are_encoded_as_the_policy_will_score_them(tokenizer: PreTrainedTokenizerFast) -> None:
    lines = [
        *LINES[:20],
        Line("向前 {observation} 🚪\nAction:", " 右转\n"),
        Line("", "A key.\n"),
        Line("A: x", "\nB: y\n"),
        *DRILLED,
    ]
    examples = encode(iter(lines), tokenizer)
    assert len(examples) == len(lines)
    for index, line in enumerate(lines):
        ids, completes = examples.line(index)
        parts = [tokenizer(part)["input_ids"] for exchange in line.exchanges() for part in exchange]
        assert ids.tolist() == [token for part in parts for token in part]
        assert completes.tolist() == [bool(place % 2) for place, part in enumerate(parts) for _ in part]
        assert tokenizer.decode(ids) == line.text()
    assert (examples.ids.dtype, examples.completes.dtype) == (np.uint16, np.bool_)
    assert examples.lengths().tolist() == [len(examples.line(index)[0]) for index in range(len(lines))]


def test_completions_alone_are_marked_in_a_line_of_several_exchanges(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = encode(DRILLED, tokenizer)
    for index, line in enumerate(DRILLED):
        ids, completes = examples.line(index)
        edges = np.flatnonzero(np.diff(completes)) + 1
        told = [tokenizer.decode(part) for part in np.split(ids, edges)]
        assert told == [part for exchange in line.exchanges() for part in exchange]
        assert completes[edges[::2]].all()


def test_lines_longer_than_the_context_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(SetupError, match=r"a line of \d+ tokens. Expected: at most 128.*raise context"):
        encode([Line("north " * 200, " south\n")], tokenizer)


def test_examples_are_kept_for_what_they_were_made_from(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    examples = encode(LINES[:5], tokenizer)
    assert load_examples(tmp_path, "this") is None
    save_examples(examples, tmp_path / "new", "this")
    assert load_examples(tmp_path / "new", "that") is None
    found = load_examples(tmp_path / "new", "this")
    assert found is not None
    assert sorted(path.name for path in (tmp_path / "new").glob("*.npy")) == ["completes.npy", "ids.npy", "starts.npy"]
    for name in PARTS:
        assert getattr(found, name).tolist() == getattr(examples, name).tolist()


def test_collate_by_hand() -> None:
    # Three tokens of prompt and two of completion; one and one; a line without a prompt.
    examples = examples_of(([11, 12, 13, 14, 15], 2), ([21, 22], 1), ([31, 32, 33], 3))
    ids, targets, weights = collate(examples, [0, 1, 2], prompt_weight=0.25)
    assert ids.tolist() == [[11, 12, 13, 14, 15], [21, 22, 0, 0, 0], [31, 32, 33, 0, 0]]
    no = NO_LOSS
    assert targets.tolist() == [[12, 13, 14, 15, no], [22, no, no, no, no], [32, 33, no, no, no]]
    # The token before the completion predicts its first token, so it has a completion's weight.
    assert weights.tolist() == [[0.25, 0.25, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]]


def test_collate_of_several_exchanges_by_hand() -> None:
    # Two of prompt, one of completion, one of prompt, two of completion; and a shorter line.
    completes = [False, False, True, False, True, True, False, True]
    ids = np.array([11, 12, 13, 14, 15, 16, 21, 22], np.uint16)
    examples = Examples(ids, np.array(completes), np.array([0, 6, 8]))
    found, targets, weights = collate(examples, [1, 0], prompt_weight=0.25)
    assert found.tolist() == [[21, 22, 0, 0, 0, 0], [11, 12, 13, 14, 15, 16]]
    no = NO_LOSS
    assert targets.tolist() == [[22, no, no, no, no, no], [12, 13, 14, 15, 16, no]]
    assert weights.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.25, 1.0, 0.25, 1.0, 1.0, 0.0]]


def test_weights_are_on_the_completions_of_encoded_lines(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = encode(DRILLED, tokenizer)
    _, targets, weights = collate(examples, range(len(DRILLED)), prompt_weight=0.25)
    for line, row, weight in zip(DRILLED, targets, weights, strict=True):
        assert tokenizer.decode(row[weight == 1.0]) == "".join(said for _, said in line.exchanges())
        prompts = row[weight == 0.25]
        assert tokenizer.decode(prompts) == tokenizer.decode(
            tokenizer("".join(asked for asked, _ in line.exchanges()))["input_ids"][1:]
        )
        assert (weight[row == NO_LOSS] == 0).all()


def test_every_line_once_in_each_round_and_the_same_for_the_same_seed() -> None:
    lengths, order = np.arange(50) % 7 + 1, np.arange(5, 50)

    def rounds(seed: int) -> list[list[int]]:
        return [batch.tolist() for batch in islice(batches(lengths, order, 24, seed), 40)]

    drawn = rounds(0)
    seen: list[int] = []
    ends = []
    for place, batch in enumerate(drawn):
        assert len(batch) * max(lengths[batch]) <= 24
        seen += batch
        if len(seen) % 45 == 0:
            assert sorted(seen[-45:]) == order.tolist()
            ends.append(place)
    assert len(ends) >= 2
    assert rounds(0) == drawn
    assert rounds(1) != drawn
    assert drawn[: ends[0] + 1] != drawn[ends[0] + 1 : ends[1] + 1]
    assert np.mean([np.ptp(lengths[batch]) for batch in drawn]) < 2  # a plain shuffle has 5


def test_a_token_holds_one_chinese_character_at_most() -> None:
    """Merged, a clause that is often told would be one token, and nothing in it could be looked up."""
    text = "看见：红色的盒子走左。 red box way left"
    tokenizer = train_tokenizer([text] * 50, vocab_size=400, context=64)
    pieces = [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]
    assert "".join(pieces) == text, "what was read often is in whole characters"
    assert all(len(piece) == 1 for piece in pieces if not piece.isascii())
    assert " left" in pieces
    unread = "开门 🚪 zebra"
    assert tokenizer.decode(tokenizer(unread)["input_ids"]) == unread
