"""Every route to a score equals one unpadded row per prompt and phrase, and what can't be scored right is refused."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.language_model import context_length
from sb3_llm.scoring import (
    PackedScorer,
    PromptTokenizer,
    ReferenceScorer,
    Scorer,
    action_logits,
    choose_scorer,
    resolve_continuations,
)
from sb3_llm.scoring.packed import attention_window, pack
from sb3_llm.scoring.trie import build_trie
from tests.tiny import (
    PHRASES,
    PROMPTS,
    byte_level_tokenizer,
    metaspace_tokenizer,
    stripping_tokenizer,
    tiny_config,
    tiny_lm,
    unsplit_tokenizer,
)

TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": byte_level_tokenizer,
    "bytes+bos": lambda: byte_level_tokenizer(bos=True),
    "bytes+bos+eos": lambda: byte_level_tokenizer(bos=True, eos=True),
    "metaspace": metaspace_tokenizer,
    "metaspace+bos": lambda: metaspace_tokenizer(bos=True),
}
PHRASE_SETS = {
    "single tokens": ["left", "go", "forward"],
    "shared prefixes": PHRASES,
    "one begins another": ["go", "go forward", "turn left"],
}


def scorers(
    kind: str, tokenizer: PreTrainedTokenizerFast, phrases: list[str], **options: object
) -> tuple[PackedScorer, ReferenceScorer]:
    lm = tiny_lm(kind, len(tokenizer), **options)  # type: ignore[arg-type]
    continuations = resolve_continuations(tokenizer, phrases, " ", PROMPTS)
    tokens = PromptTokenizer(tokenizer, continuations, PROMPTS, context_length(lm.config))
    return PackedScorer(lm, tokens), ReferenceScorer(lm, tokens)


def gradients(lm: PreTrainedModel, scorer: Scorer, prompts: list[str]) -> Tensor:
    """Gradient of one fixed random projection of scores and features, w.r.t. all parameters, as one vector."""
    scores = scorer.score(prompts)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=scores.log_probs.dtype)
    for part in scores:
        total = total + (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum()
    found = torch.autograd.grad(total, list(lm.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("phrases", PHRASE_SETS.values(), ids=PHRASE_SETS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_packed_equals_reference(kind: str, phrases: list[str], tokenizer: str) -> None:
    packed, reference = scorers(kind, TOKENIZERS[tokenizer](), phrases)
    prompts = [*PROMPTS, PROMPTS[0]]
    fast, right = packed.score(prompts), reference.score(prompts)
    assert fast.log_probs.shape == (4, len(phrases))
    assert fast.log_probs.dtype == fast.features.dtype == torch.float64
    assert right.log_probs.std() > 0.5  # a near-uniform model would agree with anything
    torch.testing.assert_close(fast.log_probs, right.log_probs, rtol=0, atol=1e-10)
    torch.testing.assert_close(fast.features, right.features, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("prompts", [[*PROMPTS, PROMPTS[0], PROMPTS[0]], PROMPTS[:1]], ids=["duplicates", "batch of 1"])
def test_gradients_equal_the_reference(kind: str, prompts: list[str]) -> None:
    packed, reference = scorers(kind, byte_level_tokenizer(bos=True), PHRASE_SETS["one begins another"])
    right = gradients(reference.lm, reference, prompts)
    error = (gradients(packed.lm, packed, prompts) - right).norm() / right.norm()
    assert right.norm() > 1
    assert error < 1e-8


def test_routes_share_one_interface() -> None:
    packed, reference = scorers("llama", byte_level_tokenizer(), PHRASES)
    assert (packed.name, reference.name) == ("packed", "reference")
    assert packed.token_counts.tolist() == reference.token_counts.tolist()
    assert packed.token_counts.tolist() == [len(ids) for ids in packed.tokens.continuation_ids]


def test_score_is_the_probability_of_the_whole_text() -> None:
    """Written out once more without any code of the package but the tokens."""
    tokenizer = byte_level_tokenizer(bos=True)
    packed, _ = scorers("gpt2", tokenizer, PHRASES)
    prompt_ids = tokenizer(PROMPTS[0])["input_ids"]
    ids = tokenizer(PROMPTS[0] + " go forward")["input_ids"]
    log_probs = packed.lm(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = sum(log_probs[place - 1, ids[place]].item() for place in range(len(prompt_ids), len(ids)))
    score = packed.score(PROMPTS).log_probs[0, PHRASES.index("go forward")].item()
    assert score == pytest.approx(by_hand, abs=1e-10)


def test_narrow_models_give_float32_scores() -> None:
    packed, reference = scorers("llama", byte_level_tokenizer(), PHRASES, dtype=torch.bfloat16)
    for scorer in (packed, reference):
        assert {part.dtype for part in scorer.score(PROMPTS)} == {torch.float32}


def test_batch_mates_change_nothing() -> None:
    packed, _ = scorers("gpt2", byte_level_tokenizer(), PHRASES)
    alone = packed.score(PROMPTS[2:])
    together = packed.score(PROMPTS)
    torch.testing.assert_close(together.features[2:], alone.features, rtol=0, atol=1e-10)
    torch.testing.assert_close(together.log_probs[2:], alone.log_probs, rtol=0, atol=1e-10)


def test_equal_prompts_are_computed_once() -> None:
    packed, _ = scorers("llama", byte_level_tokenizer(), PHRASES)
    shapes: list[tuple[int, ...]] = []
    handle = packed.lm.register_forward_pre_hook(
        lambda module, inputs, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    scores = packed.score([PROMPTS[1], PROMPTS[0], PROMPTS[1], PROMPTS[1]])
    handle.remove()
    assert [rows for rows, _ in shapes] == [2]
    assert torch.equal(scores.log_probs[0], scores.log_probs[3])
    assert not torch.equal(scores.log_probs[0], scores.log_probs[1])


def test_head_sees_only_the_columns_that_are_read() -> None:
    packed, _ = scorers("llama", byte_level_tokenizer(), PHRASES)
    head = packed.lm.get_output_embeddings()
    widths: list[int] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: widths.append(inputs[0].shape[1]))
    packed.score(PROMPTS)
    handle.remove()
    assert widths == [build_trie(packed.tokens.continuation_ids).n_nodes + 1]


def test_a_model_without_logits_to_keep_is_exact_too() -> None:
    packed, reference = scorers("llama", byte_level_tokenizer(), PHRASES)
    packed._keeps_logits = False
    for fast, right in zip(packed.score(PROMPTS), reference.score(PROMPTS), strict=True):
        torch.testing.assert_close(fast, right, rtol=0, atol=1e-10)


def test_no_hook_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, reference = scorers("llama", byte_level_tokenizer(), PHRASES)
    head = packed.lm.get_output_embeddings()
    packed.score(PROMPTS)
    reference.score(PROMPTS[:1])
    monkeypatch.setattr(packed.lm.model, "forward", lambda **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packed.score(PROMPTS)
    assert not head._forward_pre_hooks


# -- the trie ----------------------------------------------------------------------------------------------------------


def test_trie_of_shared_prefixes() -> None:
    trie = build_trie([[5, 6, 7], [5, 6, 8], [5, 9], [4], [5]])
    assert trie.n_nodes == 2
    assert trie.token.tolist() == [5, 6]
    assert trie.parent.tolist() == [0, 1]
    assert trie.depth.tolist() == [1, 2]
    assert trie.ancestors.tolist() == [[True, False], [True, True]]
    edges = list(zip(trie.edge_state.tolist(), trie.edge_token.tolist(), strict=True))
    assert edges == [(0, 5), (1, 6), (2, 7), (2, 8), (1, 9), (0, 4)]
    assert trie.action_edges.tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0],
    ]
    assert trie.token_counts.tolist() == [3, 3, 2, 1, 1]


def test_trie_keeps_branches_apart() -> None:
    trie = build_trie([[1, 2, 3], [4, 2, 3]])
    assert trie.token.tolist() == [1, 2, 4, 2]
    assert trie.parent.tolist() == [0, 1, 0, 3]
    assert trie.ancestors.long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_trie_of_single_tokens_feeds_nothing() -> None:
    trie = build_trie([[3], [1], [2]])
    assert trie.n_nodes == 0
    assert trie.ancestors.shape == (0, 0)
    assert torch.equal(trie.action_edges, torch.eye(3))


@pytest.mark.parametrize(
    ("sequences", "words"),
    [([[1, 2], [3], [1, 2]], "0 and 2 are both"), ([[1], []], "1 of 2 is empty"), ([], "no token")],
)
def test_trie_refuses(sequences: list[list[int]], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        build_trie(sequences)


def test_pack_by_hand() -> None:
    low = torch.finfo(torch.float32).min
    rows = pack([[7], [8, 9]], build_trie([[1, 2], [3, 4]]), torch.float32)
    assert rows.input_ids.tolist() == [[0, 7, 1, 3], [8, 9, 1, 3]]
    assert rows.position_ids.tolist() == [[0, 0, 1, 1], [0, 1, 2, 2]]
    assert rows.attention_mask.shape == (2, 1, 4, 4)
    assert rows.attention_mask[0, 0].tolist() == [
        [0, low, low, low],
        [low, 0, low, low],
        [low, 0, 0, low],
        [low, 0, low, 0],
    ]
    assert (rows.attention_mask[1, 0] == 0).long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_prompt_and_continuation_are_the_joint_encoding(tokenizer: str) -> None:
    made = TOKENIZERS[tokenizer]()
    tokens = PromptTokenizer(made, [" turn left", " go forward"], PROMPTS)
    eos = made.eos_token_id
    for prompt, row in zip(PROMPTS, tokens.encode(PROMPTS), strict=True):
        for continuation, ids in zip(tokens.continuations, tokens.continuation_ids, strict=True):
            joint = [token for token in made(prompt + continuation)["input_ids"] if token != eos]
            assert [*row, *ids] == joint
            assert eos not in ids
    assert (row[0] == made.bos_token_id) == ("bos" in tokenizer)


@pytest.mark.parametrize(
    ("make", "prompts", "phrases", "words"),
    [
        (unsplit_tokenizer, PROMPTS, [" turn left", " go forward"], "spans the join"),
        (byte_level_tokenizer, ["You see a wall. Actio"], ["n"], "spans the join"),
        (metaspace_tokenizer, ["A wall. Action: "], ["left"], "spans the join"),
        (byte_level_tokenizer, PROMPTS, [" left", " go", " left"], "' left' and ' left' have the same tokens"),
        (byte_level_tokenizer, PROMPTS, [" left", ""], "'' has no tokens"),
        (metaspace_tokenizer, PROMPTS, [" left", " §"], "unknown token"),
        (byte_level_tokenizer, PROMPTS, [], "0 continuations"),
        (byte_level_tokenizer, [], [" left"], "0 probe prompts"),
        (byte_level_tokenizer, [""], [" left"], "spans the join"),
    ],
)
def test_tokens_that_cannot_be_cut_apart(
    make: Callable[[], PreTrainedTokenizerFast], prompts: list[str], phrases: list[str], words: str
) -> None:
    with pytest.raises(SetupError, match=words):
        PromptTokenizer(make(), phrases, prompts)


def test_the_error_at_the_join_names_prompt_phrase_and_mend() -> None:
    with pytest.raises(SetupError) as caught:
        PromptTokenizer(byte_level_tokenizer(), ["n go"], ["You see a wall. Actio"])
    for words in ("a wall. Actio", "'n go'", "a newline"):
        assert words in str(caught.value)


def test_ids_that_depend_on_the_prompt_are_refused() -> None:
    """Some prompt ends where a merge with the phrase keeps the prompt whole but changes the phrase's own tokens."""

    class Fickle:
        unk_token_id = None

        def __call__(self, texts: str | list[str], **options: object) -> dict[str, list]:
            if isinstance(texts, str):
                return {"input_ids": [ord(letter) for letter in texts]}
            return {"input_ids": [[ord(letter) for letter in text.replace("b go", "bGO")] for text in texts]}

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [chr(each) for each in ids]

    with pytest.raises(SetupError, match="after another prompt"):
        PromptTokenizer(Fickle(), [" go"], ["a", "b"])  # type: ignore[arg-type]


def test_end_mark_is_added_to_all_phrases_when_one_begins_another() -> None:
    tokenizer = byte_level_tokenizer()
    assert resolve_continuations(tokenizer, ["go", "left"], " ", PROMPTS) == [" go", " left"]
    assert resolve_continuations(tokenizer, ["go", "left", "go forward"], " ", PROMPTS) == [
        " go\n",
        " left\n",
        " go forward\n",
    ]


def test_end_mark_that_a_tokenizer_drops_is_refused() -> None:
    with pytest.raises(SetupError, match="' go' begins ' go forward'"):
        resolve_continuations(stripping_tokenizer(), ["go", "go forward"], " ", PROMPTS)


def test_empty_phrase_is_refused() -> None:
    with pytest.raises(SetupError, match="action 1 is ' '"):
        resolve_continuations(byte_level_tokenizer(), ["go", " "], " ", PROMPTS)


def test_memo_is_bounded_and_keeps_the_latest() -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), [" go"], PROMPTS, memo_size=2)
    first = tokens.encode(PROMPTS)
    assert list(tokens._memo) == PROMPTS[1:]
    tokens.encode(PROMPTS[1:2])
    assert tokens.encode([PROMPTS[0], PROMPTS[0]]) == [first[0], first[0]]
    assert list(tokens._memo) == [PROMPTS[1], PROMPTS[0]]


def test_known_prompts_are_not_tokenised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = PromptTokenizer(byte_level_tokenizer(), [" go"], PROMPTS)
    first = tokens.encode(PROMPTS)
    monkeypatch.setattr(tokens, "_tokenize", lambda texts: 1 / 0)
    assert tokens.encode(PROMPTS) == first


def test_prompt_longer_than_the_context_is_refused() -> None:
    for scorer in scorers("gpt2", byte_level_tokenizer(), PHRASES, n_positions=40):
        scorer.score(PROMPTS)
        with pytest.raises(SetupError, match=r"starts 'You see a wall You see a wall' has \d+ tokens.*at most 40"):
            scorer.score(["You see a wall " * 12 + "Action:"])


def test_empty_prompt_is_refused() -> None:
    packed, _ = scorers("gpt2", byte_level_tokenizer(), PHRASES)
    with pytest.raises(SetupError, match="'' has no tokens"):
        packed.score([PROMPTS[0], ""])


# -- bad numbers and other architectures -------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [0, 1], ids=["packed", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_broken_scores_name_prompt_and_phrase(route: int, value: float) -> None:
    scorer = scorers("gpt2", byte_level_tokenizer(), PHRASES)[route]
    forward = scorer.tokens.continuation_ids[PHRASES.index("go forward")][-1]

    def poison(module: torch.nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return logits.index_fill(-1, torch.tensor([forward]), value)

    scorer.lm.get_output_embeddings().register_forward_hook(poison)
    # NaN reaches every phrase through the softmax; -inf stays with the one that holds the token.
    phrase = "turn left" if math.isnan(value) else "go forward"
    with pytest.raises(FloatingPointError, match=rf"' {phrase}' after the prompt .*2 steps left. Action:' is {value}"):
        scorer.score(PROMPTS)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("mistral", "see only the last 8"), ("bloom", "failed with ValueError"), ("mpt", r"differs .* by \d")],
)
def test_probe_falls_back_where_packing_is_wrong(kind: str, words: str) -> None:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm(kind, len(tokenizer))
    continuations = resolve_continuations(tokenizer, PHRASES, " ", PROMPTS)
    with pytest.warns(UserWarning, match=f"{words}.*{len(PHRASES)} rows per prompt"):
        scorer, difference = choose_scorer(lm, tokenizer, continuations, PROMPTS)
    assert scorer.name == "reference"
    assert difference > 0.01
    ids = tokenizer(PROMPTS[0] + continuations[2])["input_ids"]
    length = len(tokenizer(PROMPTS[0])["input_ids"])
    log_probs = lm(torch.tensor([ids]), use_cache=False).logits[0, length - 1 : -1].log_softmax(-1)
    by_hand = log_probs.gather(1, torch.tensor(ids[length:])[:, None]).sum()
    torch.testing.assert_close(scorer.score(PROMPTS).log_probs[0, 2], by_hand, rtol=0, atol=1e-10)


def test_a_window_ignored_by_the_mask_is_measured() -> None:
    """Without the guard on windows the packed route is wrong on Mistral, by nats and without an error."""
    packed, reference = scorers("mistral", byte_level_tokenizer(), PHRASES)
    packed.window = None
    assert (packed.score(PROMPTS).log_probs - reference.score(PROMPTS).log_probs).abs().max() > 0.05


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("llama", torch.float64, 1e-10),
        ("opt", torch.float64, 1e-10),
        ("gpt2", torch.float32, 1e-3),
        ("gpt_neo", torch.float32, 1e-3),
        ("llama", torch.bfloat16, 0.25),
    ],
)
def test_probe_chooses_packed_where_it_is_right(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    tokenizer = byte_level_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer, difference = choose_scorer(
            tiny_lm(kind, len(tokenizer), dtype), tokenizer, [" go forward", " left"], PROMPTS[:1]
        )
    assert scorer.name == "packed"
    assert difference <= tolerance


def test_probe_compares_padding_even_with_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_positions(*given: object) -> object:
        rows = pack(*given)  # type: ignore[arg-type]
        return rows._replace(position_ids=torch.arange(rows.input_ids.shape[1]).expand(rows.input_ids.shape))

    monkeypatch.setattr("sb3_llm.scoring.packed.pack", without_positions)
    tokenizer = byte_level_tokenizer()
    with pytest.warns(UserWarning, match="differs"):
        choose_scorer(tiny_lm("gpt2", len(tokenizer)), tokenizer, [" left", " go"], PROMPTS[:1])


@pytest.mark.parametrize(
    ("kind", "options", "window"),
    [
        ("llama", {}, None),
        ("mistral", {}, 8),
        ("mistral", {"sliding_window": None}, None),
        ("gpt_neo", {}, 256),
        ("gpt_neo", {"attention_types": [[["global"], 2]]}, None),
    ],
)
def test_attention_window(kind: str, options: dict[str, object], window: int | None) -> None:
    assert attention_window(tiny_config(kind, 100, **options)) == window


# -- normalization -----------------------------------------------------------------------------------------------------


def test_normalization_by_hand() -> None:
    scores = torch.tensor([[-6.0, -2.0], [-3.0, -1.0]])
    tokens, words = torch.tensor([3, 1]), [2, 1]
    assert action_logits(scores, tokens, words, "sum", 2.0).tolist() == [[-3.0, -1.0], [-1.5, -0.5]]
    assert action_logits(scores, tokens, words, "token", 1.0).tolist() == [[-2.0, -2.0], [-1.0, -1.0]]
    assert action_logits(scores, tokens, words, "word", 0.5).tolist() == [[-6.0, -4.0], [-3.0, -2.0]]


@pytest.mark.parametrize(
    ("normalization", "temperature", "words"),
    [("mean", 1.0, "normalization='mean'"), ("sum", 0.0, "temperature=0.0"), ("sum", math.nan, "temperature=nan")],
)
def test_normalization_refuses(normalization: str, temperature: float, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        action_logits(torch.zeros(1, 2), [1, 1], [1, 1], normalization, temperature)
