"""Every route to a score equals one unpadded row per prompt and phrase, and what can't be scored right is refused."""

import math
import warnings

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.language_model import context_length
from sb3_llm.scoring import (
    CachedScorer,
    PackedScorer,
    PhraseScorer,
    PhraseScores,
    PlainRowsScorer,
    PromptTokenizer,
    ReferenceScorer,
    Row,
    Scorer,
    action_logits,
    choose_scorer,
)
from sb3_llm.scoring.buckets import buckets
from sb3_llm.scoring.layout import MaskForm, attention_window, lay_out
from sb3_llm.scoring.trie import build_trie
from tests.tiny import (
    PHRASES,
    PROMPTS,
    TOKENIZERS,
    byte_level_tokenizer,
    tiny_config,
    tiny_lm,
)

PHRASE_SETS = {
    "single tokens": ["left", "go", "forward"],
    "shared prefixes": PHRASES,
    "one begins another": ["go", "go forward", "turn left"],
}


class Asked:
    """One route behind the engine, asked for one fixed list of phrases."""

    def __init__(
        self, lm: PreTrainedModel, tokens: PromptTokenizer, route: Scorer, phrases: list[str], part: int | None = None
    ) -> None:
        self.lm, self.tokens, self.route = lm, tokens, route
        self.continuations = tokens.continuations(phrases)
        self.engine = PhraseScorer(lm, tokens, route, part)

    def score(self, prompts: list[str]) -> PhraseScores:
        return self.engine.score(prompts, [self.continuations] * len(prompts), len(self.continuations.ids))


def scorers(
    kind: str, tokenizer: PreTrainedTokenizerFast, phrases: list[str], part: int | None = None, **options: object
) -> tuple[Asked, Asked]:
    """The packed route, with every shortcut taken even where it would not pay, and the reference."""
    lm = tiny_lm(kind, len(tokenizer), **options)  # type: ignore[arg-type]
    tokens = PromptTokenizer(tokenizer, PROMPTS, context=context_length(lm.config))
    packed = Asked(lm, tokens, PackedScorer(lm, pass_cost=0), phrases, part)
    return packed, Asked(lm, tokens, ReferenceScorer(lm), phrases)


def gradients(lm: PreTrainedModel, scorer: Asked, prompts: list[str]) -> Tensor:
    """Gradient of one fixed random projection of scores and features, w.r.t. all parameters, as one vector."""
    scores = scorer.score(prompts)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=scores.log_probs.dtype)
    for part in (scores.log_probs, scores.features):
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


@pytest.mark.parametrize("part", [1, 2, 3])
def test_micro_batches_change_nothing_but_memory(part: int) -> None:
    """Each part's graph is freed before the next is computed: what a graph holds grows with the part alone."""
    prompts = [*PROMPTS, "A red key. Action:", PROMPTS[0]]
    whole, _ = scorers("llama", byte_level_tokenizer(), PHRASES)
    split, _ = scorers("llama", byte_level_tokenizer(), PHRASES, part)
    for one, other in zip(whole.score(prompts), split.score(prompts), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    right = gradients(whole.lm, whole, prompts)
    assert (gradients(split.lm, split, prompts) - right).norm() / right.norm() < 1e-10
    assert held(split, prompts) < held(whole, prompts) / 20, "only texts and results are held until the backward pass"


def held(asked: Asked, prompts: list[str]) -> int:
    """Bytes that the graph of one scoring keeps for its backward pass."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        asked.score(prompts)
    weights = {parameter.untyped_storage().data_ptr() for parameter in asked.lm.parameters()}
    return sum(size for place, size in sizes.items() if place not in weights)


@pytest.mark.parametrize("part", [0, -1, 1.5, True, "8"])
def test_micro_batch_of_nonsense_is_refused(part: object) -> None:
    with pytest.raises(SetupError, match=r"micro_batch=.*a whole number of rows"):
        scorers("llama", byte_level_tokenizer(), PHRASES, part)  # type: ignore[arg-type]


def test_counts_are_those_of_the_continuations() -> None:
    packed, _ = scorers("llama", byte_level_tokenizer(), PHRASES)
    scores = packed.score(PROMPTS)
    assert scores.token_counts.tolist() == [[len(ids) for ids in packed.continuations.ids]] * 3
    assert scores.word_counts.tolist() == [[len(phrase.split()) for phrase in PHRASES]] * 3
    assert bool(scores.present.all())


@pytest.mark.parametrize("gradient", [True, False])
def test_each_row_may_have_its_own_phrases(gradient: bool) -> None:
    """As in text games: lists of different lengths, one of which needs end marks, in more slots than any fills."""
    packed, reference = scorers("gpt2", byte_level_tokenizer(), PHRASES)
    lists = [["go", "go forward", "wait"], ["turn left"], ["drop", "done"], ["drop", "done"]]
    prompts = [*PROMPTS, PROMPTS[0]]
    with torch.set_grad_enabled(gradient):
        asked = [packed.tokens.continuations(each, prompt) for each, prompt in zip(lists, prompts, strict=True)]
        together = packed.engine.score(prompts, asked, 5)
        assert together.present.tolist() == [[place < len(each) for place in range(5)] for each in lists]
        for place, (prompt, each) in enumerate(zip(prompts, asked, strict=True)):
            alone = reference.engine.score([prompt], [each], len(each.ids))
            for mine, right in zip(together, alone, strict=True):
                torch.testing.assert_close(mine[place, : right.shape[1]], right[0], rtol=0, atol=1e-10)
    assert asked[0].texts[0] == " go\n"
    assert asked[1].texts[0] == " turn left"


def test_rows_of_like_length_go_together() -> None:
    assert buckets([5, 5, 5], 1) == [[0, 1, 2]]
    assert buckets([50, 5, 5, 49], 10) == [[1, 2], [3, 0]]
    assert buckets([50, 5, 5, 49], 1000) == [[1, 2, 3, 0]]
    assert buckets([1, 100, 200, 300, 400, 500], 0) == [[0, 1], [2], [3, 4], [5]]
    assert buckets([7], 0) == [[0]]


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
        assert {part.dtype for part in scorer.score(PROMPTS)[:2]} == {torch.float32}


def test_batch_mates_change_nothing() -> None:
    packed, _ = scorers("gpt2", byte_level_tokenizer(), PHRASES)
    alone = packed.score(PROMPTS[2:])
    together = packed.score(PROMPTS)
    torch.testing.assert_close(together.features[2:], alone.features, rtol=0, atol=1e-10)
    torch.testing.assert_close(together.log_probs[2:], alone.log_probs, rtol=0, atol=1e-10)


def test_equal_prompts_are_computed_once() -> None:
    packed, _ = scorers("llama", byte_level_tokenizer(), PHRASES)
    packed.route.pass_cost = 10**9  # one pass
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
    packed.route.pass_cost = 10**9  # one pass
    head = packed.lm.get_output_embeddings()
    logits: list[tuple[int, ...]] = []
    handle = head.register_forward_hook(lambda module, inputs, output: logits.append(tuple(output.shape[:2])))
    packed.score(PROMPTS)
    handle.remove()
    assert logits == [(1, len(PROMPTS) * (build_trie(packed.continuations.ids).n_nodes + 1))]


def test_no_hook_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, reference = scorers("llama", byte_level_tokenizer(), PHRASES)
    head = packed.lm.get_output_embeddings()
    packed.score(PROMPTS)
    reference.score(PROMPTS[:1])
    monkeypatch.setattr(packed.lm.model, "forward", lambda **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packed.score(PROMPTS)
    assert not head._forward_pre_hooks


# -- bad numbers and other architectures -------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [0, 1], ids=["packed", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_broken_scores_name_prompt_and_phrase(route: int, value: float) -> None:
    scorer = scorers("gpt2", byte_level_tokenizer(), PHRASES)[route]
    forward = scorer.continuations.ids[PHRASES.index("go forward")][-1]

    def poison(module: torch.nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return logits.index_fill(-1, torch.tensor([forward]), value)

    scorer.lm.get_output_embeddings().register_forward_hook(poison)
    # NaN reaches every phrase through the softmax; -inf stays with the one that holds the token.
    phrase = "turn left" if math.isnan(value) else "go forward"
    with pytest.raises(FloatingPointError, match=rf"' {phrase}' after the prompt .*2 steps left. Action:' is {value}"):
        scorer.score(PROMPTS)


def probes(tokenizer: PreTrainedTokenizerFast, phrases: list[str], prompts: list[str] = PROMPTS) -> list[Row]:
    tokens = PromptTokenizer(tokenizer, PROMPTS)
    return tokens.rows(prompts, [tokens.continuations(phrases)] * len(prompts))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("bloom", "packed failed with ValueError"), ("mpt", r"packed differs from the reference by \d.* nats")],
)
def test_probe_falls_back_where_packing_is_wrong(kind: str, words: str) -> None:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm(kind, len(tokenizer), torch.float32)
    rows = probes(tokenizer, PHRASES)
    with pytest.warns(UserWarning, match=f"{words}.*at the cost of one short row for each phrase"):
        scorer, difference = choose_scorer(lm, rows)
    assert scorer.name == "cache"
    assert difference < 1e-4
    ids = tokenizer(f"{PROMPTS[0]} {PHRASES[2]}")["input_ids"]
    length = len(tokenizer(PROMPTS[0])["input_ids"])
    log_probs = lm(torch.tensor([ids]), use_cache=False).logits[0, length - 1 : -1].log_softmax(-1)
    by_hand = log_probs.gather(1, torch.tensor(ids[length:])[:, None]).sum()
    torch.testing.assert_close(scorer.score(rows).log_probs[0, 2], by_hand, rtol=0, atol=1e-4)


def test_probe_ends_at_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is wrong with a model, its scores are right."""

    def broken(self: object, rows: object) -> None:
        raise RuntimeError("no")

    for route in (PackedScorer, CachedScorer, PlainRowsScorer):
        monkeypatch.setattr(route, "score", broken)
    tokenizer = byte_level_tokenizer()
    with pytest.warns(UserWarning, match=r"packed failed with RuntimeError: no; cache failed.*'reference' is used"):
        scorer, difference = choose_scorer(tiny_lm("llama", len(tokenizer)), probes(tokenizer, PHRASES))
    assert (scorer.name, difference) == ("reference", 0.0)


def test_a_window_ignored_by_the_mask_is_measured() -> None:
    """With a plain mask the packed route is wrong on Mistral, by nats and without an error."""
    packed, reference = scorers("mistral", byte_level_tokenizer(), PHRASES)
    assert (packed.score(PROMPTS).log_probs - reference.score(PROMPTS).log_probs).abs().max() > 0.05
    packed.route.form = MaskForm(window=8)
    torch.testing.assert_close(packed.score(PROMPTS).log_probs, reference.score(PROMPTS).log_probs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("llama", torch.float64, 1e-10),
        ("opt", torch.float64, 1e-10),
        ("mistral", torch.float64, 1e-10),
        ("gpt2", torch.float32, 1e-3),
        ("gpt_neo", torch.float32, 1e-3),
        ("llama", torch.bfloat16, 0.25),
    ],
)
def test_probe_chooses_packed_where_it_is_right(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    tokenizer = byte_level_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = probes(tokenizer, ["go forward", "left"], PROMPTS[:1])
        scorer, difference = choose_scorer(tiny_lm(kind, len(tokenizer), dtype), rows)
    assert scorer.name == "packed"
    assert difference <= tolerance


def test_probe_says_what_it_measured(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level_tokenizer()
    with caplog.at_level("INFO", logger="sb3_llm"):
        choose_scorer(tiny_lm("llama", len(tokenizer)), probes(tokenizer, PHRASES))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("LlamaForCausalLM: scoring route packed, within ")


def test_probe_compares_padding_even_with_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_positions(*given: object) -> object:
        layout = lay_out(*given)  # type: ignore[arg-type]
        return layout._replace(position_ids=torch.arange(layout.input_ids.shape[1]).expand(layout.input_ids.shape))

    monkeypatch.setattr("sb3_llm.scoring.packed.lay_out", without_positions)
    tokenizer = byte_level_tokenizer()
    with pytest.warns(UserWarning, match="differs"):
        choose_scorer(tiny_lm("gpt2", len(tokenizer)), probes(tokenizer, ["left", "go"], PROMPTS[:1]))


def test_probe_compares_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix computed without gradients and used with them gives right scores and wrong gradients, silently."""
    compute = PackedScorer._compute

    def without_gradients(self: PackedScorer, row: Row, length: int) -> object:
        with torch.no_grad():
            return compute(self, row, length)

    monkeypatch.setattr(PackedScorer, "_compute", without_gradients)
    tokenizer = byte_level_tokenizer()
    with pytest.warns(UserWarning, match="has gradients that differ"):
        choose_scorer(tiny_lm("llama", len(tokenizer)), probes(tokenizer, PHRASES))


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
