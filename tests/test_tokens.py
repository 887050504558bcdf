"""Prompts and phrases become the ids the model would see, whatever the tokenizer, and what can't is refused."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.language_model import EMBEDDED_FOLDER
from sb3_llm.prompt import DEFAULT_TEMPLATE, Template
from sb3_llm.scoring import Continuations, PromptTokenizer, Row
from sb3_llm.scoring.continuations import _prefix_pair
from sb3_llm.scoring.lru import LruMemo
from tests.tiny import (
    PHRASES,
    PROMPTS,
    byte_level_tokenizer,
    metaspace_tokenizer,
    paragraph_tokenizer,
    stripping_tokenizer,
    unsplit_tokenizer,
)
from tests.tiny import TOKENIZERS as BUILT

TOKENIZERS = BUILT | {
    "metaspace+bos+eos": lambda: metaspace_tokenizer(bos=True, eos=True),
    "embedded": lambda: AutoTokenizer.from_pretrained(EMBEDDED_FOLDER),
}
UNSPLIT = {
    "unsplit": unsplit_tokenizer,
    "unsplit+bos": lambda: unsplit_tokenizer(bos=True),
    "unsplit+bos+eos": lambda: unsplit_tokenizer(bos=True, eos=True),
}


class Letters:
    """A tokenizer of letters that first changes the text, and counts how often it is called."""

    unk_token_id = None

    def __init__(self, change: Callable[[str], str] = str) -> None:
        self.change, self.calls, self.texts = change, 0, 0

    def __call__(self, texts: Sequence[str], **options: object) -> dict[str, list[list[int]]]:
        self.calls, self.texts = self.calls + 1, self.texts + len(texts)
        return {"input_ids": [[ord(letter) for letter in self.change(text)] for text in texts]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [chr(each) for each in ids]


def made(tokenizer: Any, phrases: Sequence[str], prompts: Sequence[str] = PROMPTS, **options: Any) -> Continuations:
    return PromptTokenizer(tokenizer, prompts, **options).continuations(phrases)


def joint(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    """What the tokenizer alone makes of a text, without the EOS it may append."""
    ids = tokenizer(text)["input_ids"]
    return tuple(ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids)


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_prompt_and_continuation_are_the_joint_encoding(tokenizer: str) -> None:
    own = TOKENIZERS[tokenizer]()
    tokens = PromptTokenizer(own, PROMPTS)
    continuations = tokens.continuations(["turn left", "go forward"])
    assert continuations.texts == (" turn left", " go forward")
    assert continuations.word_counts == (2, 2)
    for prompt, row in zip(PROMPTS, tokens.encode(PROMPTS), strict=True):
        for text, ids in zip(continuations.texts, continuations.ids, strict=True):
            assert row + ids == joint(own, prompt + text)
            assert own.eos_token_id not in ids
    assert (row[0] == own.bos_token_id) == ("bos" in tokenizer)


@pytest.mark.parametrize("ending", [DEFAULT_TEMPLATE, "{observation}\nAction:\n", "{observation}\n\n"])
@pytest.mark.parametrize("tokenizer", [*TOKENIZERS, *UNSPLIT, "paragraphs"])
def test_real_prompts_give_the_joint_encoding(
    tokenizer: str, ending: str, real_texts: dict[str, tuple[list[str], list[str]]]
) -> None:
    """Verified on the first two prompts of an environment, true on all."""
    own = {**TOKENIZERS, **UNSPLIT, "paragraphs": paragraph_tokenizer}[tokenizer]()
    assert sum(len(texts) for texts, _ in real_texts.values()) > 45
    for texts, phrases in real_texts.values():
        template = Template(ending, phrases)
        prompts = [template.prompt(text) for text in texts]
        tokens = PromptTokenizer(own, prompts[:2])
        if tokenizer in UNSPLIT and ending == DEFAULT_TEMPLATE:
            with pytest.raises(SetupError, match="spans the join"):
                tokens.continuations(phrases)
            continue
        continuations = tokens.continuations(phrases)
        for prompt, row in zip(prompts, tokens.encode(prompts), strict=True):
            for text, ids in zip(continuations.texts, continuations.ids, strict=True):
                assert row + ids == joint(own, prompt + text)


def test_the_blank_works_where_an_empty_line_alone_does_not() -> None:
    """Why a str template that ends in newlines keeps the blank before its phrases: GPT-2 cuts them before a letter."""
    prompts = [prompt + "\n\n" for prompt in PROMPTS]
    assert made(paragraph_tokenizer(), ["left"], prompts).texts == (" left",)
    with pytest.raises(SetupError, match="spans the join"):
        made(paragraph_tokenizer(), ["left"], prompts, separator="")


@pytest.mark.parametrize(
    ("make", "prompts", "phrases", "words"),
    [
        (unsplit_tokenizer, PROMPTS, [" turn left", " go forward"], "spans the join"),
        (byte_level_tokenizer, ["You see a wall. Actio"], ["n"], "spans the join"),
        (metaspace_tokenizer, ["A wall. Action: "], ["left"], "spans the join"),
        (byte_level_tokenizer, PROMPTS, [" left", " go", " left"], "' left' and ' left' have the same tokens"),
        (lambda: Letters(lambda text: text.replace("§", "")), PROMPTS, [" left", "§"], "'§' has no tokens"),
        (metaspace_tokenizer, PROMPTS, [" left", " §"], "unknown token"),
        (byte_level_tokenizer, PROMPTS, [], "0 phrases"),
        (byte_level_tokenizer, PROMPTS, [" left", ""], "action 1 is ''"),
        (byte_level_tokenizer, [], [" left"], "0 probe prompts"),
        (byte_level_tokenizer, [""], [" left"], "spans the join"),
    ],
)
def test_tokens_that_cannot_be_cut_apart(
    make: Callable[[], Any], prompts: list[str], phrases: list[str], words: str
) -> None:
    with pytest.raises(SetupError, match=words):
        made(make(), phrases, prompts, separator="")


def test_the_error_at_the_join_names_prompt_phrase_and_mend() -> None:
    with pytest.raises(SetupError) as caught:
        made(byte_level_tokenizer(), ["n go"], ["You see a wall. Actio"], separator="")
    for words in ("a wall. Actio", "'n go'", "a newline"):
        assert words in str(caught.value)


def test_ids_that_depend_on_the_prompt_are_refused() -> None:
    """Some prompt ends where a merge with the phrase keeps the prompt whole but changes the phrase's own tokens."""
    with pytest.raises(SetupError, match="after another prompt"):
        made(Letters(lambda text: text.replace("b go", "bGO")), ["go"], ["a", "b"])


def test_a_new_phrase_is_verified_on_the_prompt_where_it_is_first_seen() -> None:
    tokens = PromptTokenizer(Letters(lambda text: text.replace("b go", "bGO")), ["a"])  # type: ignore[arg-type]
    for _ in range(2):  # what failed is not remembered
        with pytest.raises(SetupError, match=r"the prompt ending in 'b' followed by ' go' gives tokens .*'G', 'O'"):
            tokens.continuations(["left", "go"], "b")
    assert tokens.continuations(["left", "go"], "a").texts == (" left", " go")
    spanning = PromptTokenizer(Letters(lambda text: text.replace("b g", "B")), ["a"])  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="spans the join"):
        spanning.continuations(["go"], "b")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation_of_a_tokenizer_make_no_difference(side: str) -> None:
    plain, padding = byte_level_tokenizer(bos=True, eos=True), byte_level_tokenizer(bos=True, eos=True)
    padding.padding_side = padding.truncation_side = side
    padding.pad_token = "</s>"
    padding.model_max_length = 8
    padding.backend_tokenizer.enable_padding(direction=side, length=64)
    padding.backend_tokenizer.enable_truncation(8, direction=side)
    right, tokens = PromptTokenizer(plain, PROMPTS), PromptTokenizer(padding, PROMPTS)
    assert tokens.encode(PROMPTS) == right.encode(PROMPTS)
    assert tokens.continuations(PHRASES) == right.continuations(PHRASES)


@pytest.mark.parametrize("make", [byte_level_tokenizer, metaspace_tokenizer, unsplit_tokenizer])
def test_prompts_with_special_tokens_of_their_own_get_no_more(make: Callable[..., PreTrainedTokenizerFast]) -> None:
    own = make(bos=True, eos=True)
    prompts = [f"<s>{prompt}</s>" for prompt in PROMPTS]
    tokens = PromptTokenizer(own, prompts, special_tokens=False)
    for prompt, row in zip(prompts, tokens.encode(prompts), strict=True):
        assert (row.count(own.bos_token_id), row.count(own.eos_token_id)) == (1, 1)
        assert (row[0], row[-1]) == (own.bos_token_id, own.eos_token_id)
        (ids,) = tokens.continuations(["go forward"]).ids
        assert row + ids == tuple(own(prompt + " go forward", add_special_tokens=False)["input_ids"])


# -- lists of phrases --------------------------------------------------------------------------------------------------


def test_end_mark_is_added_to_all_phrases_when_one_begins_another() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), PROMPTS)
    assert tokens.continuations(["go", "left"]).texts == (" go", " left")
    marked = tokens.continuations(["go", "left", "go forward"])
    assert marked.texts == (" go\n", " left\n", " go forward\n")
    assert marked.word_counts == (1, 1, 2)
    plain = tokens.continuations(["left", "go"])  # each list for itself
    assert plain.texts == (" left", " go")
    assert [ids[: len(own)] for ids, own in zip(marked.ids, reversed(plain.ids), strict=False)] == [
        *reversed(plain.ids)
    ]


def test_end_mark_that_a_tokenizer_drops_is_refused() -> None:
    with pytest.raises(SetupError, match="' go' begins ' go forward'"):
        made(stripping_tokenizer(), ["go", "go forward"])


def test_end_mark_that_keeps_nothing_apart_is_refused() -> None:
    """The end mark stands in a phrase already."""
    with pytest.raises(SetupError, match=r"' go' begins ' go\\n on', and the end mark .* can't keep them apart\."):
        made(byte_level_tokenizer(), ["go", "go\n on"])


def test_empty_phrase_is_refused() -> None:
    with pytest.raises(SetupError, match="action 1 is ' '"):
        made(byte_level_tokenizer(), ["go", " "])


def test_a_phrase_that_begins_another_is_found_as_if_all_pairs_were_compared() -> None:
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(500):
        rows = {tuple(draw.integers(0, 3, size=draw.integers(1, 5)).tolist()) for _ in range(4)}
        texts = {row: "".join(map(str, row)) for row in rows}
        begins = {(texts[one], texts[two]) for one, two in permutations(rows, 2) if two[: len(one)] == one}
        pair = _prefix_pair(Continuations(tuple(texts.values()), tuple(texts), (1,) * len(texts)))
        assert pair in begins if begins else pair is None
        found += bool(begins)
    assert 100 < found < 400


def test_continuations_are_hashable() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), PROMPTS)
    one, two = tokens.continuations(PHRASES), tokens.continuations(PHRASES[::-1])
    assert {one: 1, two: 2}[tokens.continuations(list(PHRASES))] == 1


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_list_of_known_phrases_costs_no_tokenisation() -> None:
    own = Letters()
    tokens = PromptTokenizer(own, ["a", "b"])  # type: ignore[arg-type]
    before = own.calls
    first = tokens.continuations(["go", "left", "right"], "c")
    assert own.calls == before + 1  # three phrases after three prompts, and the new prompt: one batch
    assert own.texts >= 10
    assert tokens.continuations(["right", "go"], "d").ids == (first.ids[2], first.ids[0])
    assert tokens.continuations(["go", "left", "right"]) is first
    assert own.calls == before + 1
    seen = own.texts
    tokens.continuations(["go", "wait"])
    assert (own.calls, own.texts) == (before + 2, seen + 2)  # the new phrase alone, after two prompts
    tokens.continuations(["stay"], "b")
    assert (own.calls, own.texts) == (before + 3, seen + 4)  # "b" is one of the two
    before += 1
    tokens.continuations(["wait", "go", "go on"])
    assert own.calls == before + 4  # without and with the end mark
    tokens.continuations(["go on", "go", "left"])
    assert own.calls == before + 5  # " left\n" was new
    tokens.continuations(["go on", "left", "go"])
    assert own.calls == before + 5


def test_memo_is_bounded_and_keeps_the_latest() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), PROMPTS, memo_size=2)
    first = tokens.encode(PROMPTS)
    assert list(tokens._prompts.known) == PROMPTS[1:]
    tokens.encode(PROMPTS[1:2])
    assert tokens.encode([PROMPTS[0], PROMPTS[0]]) == [first[0], first[0]]
    assert list(tokens._prompts.known) == [PROMPTS[1], PROMPTS[0]]


def test_lists_and_phrases_are_bounded_too() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), PROMPTS, memo_size=2)
    right = tokens.continuations(PHRASES)  # more than the memo holds
    for phrases in (PHRASES[:2], PHRASES[2:4], PHRASES[4:]):
        tokens.continuations(phrases)
    assert list(tokens._lists.known) == [tuple(PHRASES[2:4]), tuple(PHRASES[4:])]
    assert list(tokens._joint._memo.known) == [" toggle", " done"]
    assert tokens.continuations(PHRASES) == right


def test_known_prompts_are_not_tokenised_again() -> None:
    own = Letters()
    tokens = PromptTokenizer(own, PROMPTS)  # type: ignore[arg-type]
    first = tokens.encode(PROMPTS)
    before = own.calls
    assert tokens.encode(PROMPTS) == first
    assert own.calls == before


def test_memo_asks_once_for_what_it_lacks() -> None:
    asked: list[list[int]] = []

    def learn(keys: list[int]) -> list[int]:
        asked.append(keys)
        return [-key for key in keys]

    memo: LruMemo[int, int] = LruMemo(3)
    assert memo.recall([2, 1, 2], learn) == [-2, -1, -2]
    assert memo.recall([1, 3, 2, 4], learn) == [-1, -3, -2, -4]
    assert memo.recall([], learn) == []
    assert asked == [[2, 1], [3, 4]]
    with pytest.raises(ZeroDivisionError):
        memo.recall([4, 5], lambda keys: 1 / 0)  # type: ignore[arg-type, return-value]
    assert len(memo.known) == 3


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_pair_each_prompt_with_its_own_phrases() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(bos=True), PROMPTS)
    lists = [tokens.continuations(PHRASES), tokens.continuations(["wait"]), tokens.continuations(PHRASES)]
    rows = tokens.rows(PROMPTS, lists)
    assert rows == [Row(ids, each.ids) for ids, each in zip(tokens.encode(PROMPTS), lists, strict=True)]
    assert [len(row.continuations) for row in rows] == [7, 1, 7]
    with pytest.raises(ValueError, match="zip"):
        tokens.rows(PROMPTS, lists[:2])


def test_each_row_has_room_for_its_own_longest_phrase() -> None:
    tokens = PromptTokenizer(Letters(), ["abc"], context=10)  # type: ignore[arg-type]
    short, long = tokens.continuations(["go", "wait"]), tokens.continuations(["go", "forward"])
    assert len(tokens.rows(["12345", "12"], [short, long])) == 2  # both have 10 letters
    for prompt, continuations in (("123456", short), ("123", long)):
        with pytest.raises(SetupError, match=f"has {len(prompt)} tokens.*longest phrase has .* at most 10 tokens"):
            tokens.rows(["12", prompt], [long, continuations])
    assert PromptTokenizer(Letters(), ["abc"]).rows(["1" * 99], [long])  # type: ignore[arg-type]


def test_prompt_longer_than_the_context_is_refused() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(bos=True), PROMPTS, context=40)
    continuations = tokens.continuations(PHRASES)
    tokens.rows(PROMPTS, [continuations] * 3)
    with pytest.raises(SetupError, match=r"starts 'You see a wall You see a wall' has \d+ tokens.*at most 40"):
        tokens.rows(["You see a wall " * 12 + "Action:"], [continuations])


def test_prompt_longer_than_the_context_names_its_longest_part() -> None:
    own = byte_level_tokenizer(bos=True)
    template = Template("You are in a maze.\n{observation}\nAction:", PHRASES)
    tokens = PromptTokenizer(own, PROMPTS, context=40, parts=template.parts)
    continuations = [tokens.continuations(PHRASES)]
    text = "You see a wall " * 12
    count = len(own(text, add_special_tokens=False)["input_ids"])
    with pytest.raises(SetupError, match=rf"of which {count} are the observation text that starts 'You see a wall You"):
        tokens.rows([template.prompt(text)], continuations)
    for parts in (None, template.parts):  # a prompt of no template: its longest line
        tokens = PromptTokenizer(own, PROMPTS, context=40, parts=parts)
        with pytest.raises(SetupError, match=rf"of which {count} are the line that starts 'You see a wall You"):
            tokens.rows([f"A wall.\n{text}\nAct now."], continuations)


def test_empty_prompt_is_refused() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), PROMPTS)
    with pytest.raises(SetupError, match="'' has no tokens"):
        tokens.encode([PROMPTS[0], ""])
    with pytest.raises(SetupError, match="'' has no tokens"):
        tokens.rows([PROMPTS[0], ""], [tokens.continuations(PHRASES)] * 2)
