"""Every family of language models takes a route that equals the definition, in values and in gradients."""

import copy
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from sb3_llm.finetune import freeze
from sb3_llm.scoring import PackedScorer, ReferenceScorer, Row, Scorer, Scores, choose_scorer
from tests.families import CONTEXT, EAGER_ONLY, FAMILIES, VOCABULARY, WINDOW, exact, family_lm

ROUTES = {family: "packed" for family in FAMILIES} | {
    "bloom": "cache",
    "falcon": "cache",
    "mpt": "cache",
    "lfm2": "rows",
    "mamba": "rows",
}
CASES = [
    (family, attention) for family in FAMILIES for attention in ([None] if family in EAGER_ONLY else ["eager", "sdpa"])
]
PACKED = [family for family, route in ROUTES.items() if route == "packed" and family != "gpt_neo"]
#: What an adapter may sit on: PEFT refuses Mamba's other layers, since its kernels read their weights directly.
ADAPTABLE: dict[str, Any] = {family: "all-linear" for family in FAMILIES} | {"mamba": ["in_proj", "x_proj"]}
EACH_CASE = pytest.mark.parametrize(("family", "attention"), CASES, ids=lambda part: str(part))


@pytest.fixture(autouse=True)
def float64_throughout() -> Iterator[None]:
    random.seed(0)
    with exact():
        yield


def ids(count: int) -> tuple[int, ...]:
    return tuple(random.randrange(3, VOCABULARY) for _ in range(count))


def some_continuations() -> tuple[tuple[int, ...], ...]:
    """Two to five, of one to three tokens out of four, so that they share starts."""
    found: set[tuple[int, ...]] = set()
    count = random.randrange(2, 6)
    while len(found) < count:
        found.add(tuple(random.randrange(3, 7) for _ in range(random.randrange(1, 4))))
    return tuple(sorted(found))


def some_rows(count: int = 5, shared: int = 12, least: int = 3, most: int = 28) -> list[Row]:
    """Prompts of mixed lengths, past every window, that share a start; each with continuations of its own."""
    start = ids(shared)
    return [Row(start + ids(random.randrange(least, most)), some_continuations()) for _ in range(count)]


def chosen(lm: PreTrainedModel, frozen_layers: int = 0) -> Scorer:
    """The route of a probe, with every shortcut taken even where it would not pay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scorer, difference = choose_scorer(lm, some_rows(2), frozen_layers)
    assert difference <= 1e-5
    if isinstance(scorer, PackedScorer):
        scorer.pass_cost = 0
    return scorer


def gradients(lm: PreTrainedModel, scores: Scores) -> Tensor:
    """Gradient of one fixed random projection of scores and features, w.r.t. all that is trained, as one vector."""
    generator = torch.Generator().manual_seed(1)
    parts = [(part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in scores]
    trained = [parameter for parameter in lm.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(parts[0] + parts[1], trained, allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


def assert_equal(lm: PreTrainedModel, scorer: Scorer, rows: list[Row]) -> None:
    """Scores and features to 1e-10, twice without gradients since caches fill, then with; gradients to 1e-8."""
    reference = ReferenceScorer(lm)
    right = reference.score(rows)
    with torch.no_grad():
        tries = [scorer.score(rows), scorer.score(rows)]
    tries.append(scorer.score(rows))
    for scores in tries:
        for mine, its in zip(scores, right, strict=True):
            torch.testing.assert_close(mine, its.detach() if not mine.requires_grad else its, rtol=0, atol=1e-10)
    assert right.log_probs.std() > 0.5  # a near-uniform model would agree with anything
    true = gradients(lm, right)
    assert true.norm() > 1
    assert (gradients(lm, tries[-1]) - true).norm() / true.norm() < 1e-8


@EACH_CASE
def test_every_family_is_scored_right(family: str, attention: str | None) -> None:
    lm = family_lm(family, attention)
    scorer = chosen(lm)
    assert scorer.name == ROUTES[family]
    assert_equal(lm, scorer, some_rows())
    assert_equal(lm, scorer, [Row(ids(1), ((5,), (6,), (7,))), Row(ids(WINDOW + 1), ((5,), (6,)))])


@pytest.mark.parametrize("family", FAMILIES)
def test_up_to_the_context_limit(family: str) -> None:
    lm = family_lm(family)
    rows = [Row(ids(CONTEXT - 3), ((5, 6, 7), (5, 6, 8), (9,))), Row(ids(7), ((4, 4), (5,)))]
    assert_equal(lm, chosen(lm), rows)


def test_windows_matter_here() -> None:
    """Were the prompts no longer than the windows, a mask without one would pass for right."""
    for family in ("gemma2", "gemma3", "mistral", "gpt_oss", "cohere2"):
        lm, rows = family_lm(family), some_rows()
        assert_equal(lm, scorer := chosen(lm), rows)
        scorer.form = scorer.form._replace(window=1000)
        with torch.no_grad():
            assert (scorer.score(rows).log_probs - ReferenceScorer(lm).score(rows).log_probs).abs().max() > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters(family: str) -> None:
    lm: Any = get_peft_model(family_lm(family), LoraConfig(r=4, lora_alpha=16, target_modules=ADAPTABLE[family]))
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:  # zero at first, when an adapter does nothing
            torch.nn.init.normal_(parameter, std=0.1)
    lm = lm.double().eval()
    scorer = chosen(lm)
    assert scorer.name == ROUTES[family]
    assert_equal(lm, scorer, some_rows())


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_near_as_its_rounding(family: str) -> None:
    """The route is that of the same weights in float64: the noise of so sharp a model would hide what is wrong."""
    lm, wide = family_lm(family, dtype=torch.bfloat16), family_lm(family)
    wide.load_state_dict({name: tensor.double() for name, tensor in lm.state_dict().items()})
    rows, scorer = some_rows(), copy.copy(chosen(wide))
    scorer.lm = lm
    with torch.no_grad():
        mine, its = scorer.score(rows), ReferenceScorer(lm).score(rows)
        right = ReferenceScorer(wide).score(rows)
    error = (its.log_probs - right.log_probs).abs().max()
    assert mine.log_probs.dtype in (torch.float32, torch.float64)
    assert (mine.log_probs - right.log_probs).abs().max() < 3 * error


# -- what is remembered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PACKED)
def test_frozen_lower_layers(family: str) -> None:
    lm = family_lm(family)
    scorer = chosen(lm, freeze(lm, "top:1"))
    assert isinstance(scorer, PackedScorer)
    assert scorer.frozen is not None
    assert_equal(lm, scorer, some_rows())


def test_frozen_lower_layers_where_packing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    lm = family_lm("bloom")
    with (
        caplog.at_level("INFO", logger="sb3_llm"),
        pytest.warns(UserWarning, match="packed above 1 frozen layers failed"),
    ):
        scorer, _ = choose_scorer(lm, some_rows(2), freeze(lm, "top:1"))
    assert "scoring route cache" in caplog.text
    assert scorer.name == "cache"
    assert_equal(lm, scorer, some_rows())


def columns_fed(lm: PreTrainedModel) -> list[int]:
    fed: list[int] = []
    lm.register_forward_pre_hook(lambda _, args, named: fed.append(named["input_ids"].numel()), with_kwargs=True)
    return fed


@pytest.mark.parametrize("family", PACKED)
def test_growing_prompts_go_on_from_earlier_turns(family: str) -> None:
    lm = family_lm(family)
    scorer, reference = chosen(lm), ReferenceScorer(lm)
    rows = [Row(ids(random.randrange(12, 20)), some_continuations()) for _ in range(4)]
    fed = columns_fed(lm)
    for turn in range(6):
        with torch.no_grad():
            del fed[:]
            mine = scorer.score(rows)
            columns = sum(fed)
            for one, other in zip(mine, reference.score(rows), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        if turn:
            assert columns < sum(len(row.prompt) for row in rows) / 2
        rows = [Row(row.prompt + ids(random.randrange(1, 5)), some_continuations()) for row in rows]
        if turn == 3:
            rows[0] = Row(ids(9), some_continuations())  # an episode ended: this one starts anew


def test_windows_counted_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-Neo: a prompt met before and a new one, side by side, take more columns than either has; none too many."""
    monkeypatch.setitem(FAMILIES["gpt_neo"][1], "window_size", 32)
    lm = family_lm("gpt_neo")
    scorer, known, new = chosen(lm), ids(24), ids(24)
    assert isinstance(scorer, PackedScorer)
    assert scorer.form.max_columns == 32
    with torch.no_grad():
        scorer.score([Row(known, some_continuations())])
    scorer.pass_cost = 10**9  # one pass
    assert_equal(lm, scorer, [Row((*known, 5), some_continuations()), Row(new, some_continuations())])


def test_what_is_stored_is_dropped_when_it_takes_too_much() -> None:
    lm = family_lm("llama")
    scorer, reference = chosen(lm), ReferenceScorer(lm)
    scorer.store.max_bytes = 40_000
    rows, sizes = some_rows(3, shared=0, least=12, most=20), []
    for _ in range(8):
        with torch.no_grad():
            torch.testing.assert_close(
                scorer.score(rows).log_probs, reference.score(rows).log_probs, rtol=0, atol=1e-10
            )
        assert scorer.store.nbytes <= 40_000
        sizes.append(scorer.store.size)
        rows = [Row(row.prompt + ids(3), row.continuations) for row in rows]
    assert sizes != sorted(sizes), "it started anew in between"


def test_the_shared_start_is_computed_once_for_as_long_as_weights_stay() -> None:
    lm = family_lm("llama")
    scorer, reference = chosen(lm), ReferenceScorer(lm)
    rows, fed = some_rows(4, shared=20, least=5, most=6), columns_fed(lm)
    nodes = max(scorer_nodes(row) for row in rows)
    with torch.no_grad():
        scorer.score(rows)
        assert fed[0] == 20
        assert sum(fed[1:]) <= 4 * (5 + nodes)
        del fed[:]
        scorer.score([Row(row.prompt[:20] + ids(5), row.continuations) for row in rows])
        assert sum(fed) <= 4 * (5 + nodes)
        del fed[:]
        scorer.score(rows)
        assert sum(fed) <= 4 * (1 + nodes), "the last token of each prompt, where its features are, and its nodes"
        lm.get_input_embeddings().weight.mul_(1.5)
        scorer.forget()
        torch.testing.assert_close(scorer.score(rows).log_probs, reference.score(rows).log_probs, rtol=0, atol=1e-10)


def scorer_nodes(row: Row) -> int:
    return len({each[:end] for each in row.continuations for end in range(1, len(each))})
