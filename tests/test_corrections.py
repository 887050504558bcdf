"""Corrections: the model leads, the expert says what it would have done, and what is learnt from it resumes exactly."""

import copy
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from sb3_llm.pretrain import correct as module
from sb3_llm.pretrain import corrections
from sb3_llm.pretrain.correct import ENTRY, LINES, correct
from sb3_llm.pretrain.corrections import LOOKS, tell_corrections
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.sources import SOURCES, Source, check_allowed
from sb3_llm.pretrain.stories import Line
from sb3_llm.pretrain.train import pretrain
from tests.corpora import LINES as CORPUS
from tests.corpora import TINY, save_corpus

torch.set_num_threads(1)

ROOMS = (
    Source("sb3_llm/Rooms-v0", 1.0, {"kind": "keydoor"}),
    Source("BabyAI-PickupLoc-v0", 1.0),
    Source("BabyAI-PickupLoc-v0", 1.0, use_bot=True),
)
CONFIG = PretrainConfig(
    **TINY,
    steps=4,
    batch_tokens=600,
    warmup_steps=2,
    held_out_lines=20,
    save_every=2,
    correction_lines=40,
    correction_rounds=2,
    correction_steps=6,
)


def always(phrase: int, share: float = 1.0) -> corrections.Ask:
    """A model that says one phrase, and gives each of the others nothing."""

    def ask(prompts: list[str], phrases: list[tuple[str, ...]]) -> list[list[float]]:
        return [[share if place == phrase else 0.0 for place in range(len(own))] for own in phrases]

    return ask


def told(ask: corrections.Ask, count: int = 60, seed: int = 0) -> list[Line]:
    return [line for some in islice(tell_corrections(ask, 10**6, seed, ROOMS), count) for line in some]


# --- told


def test_the_same_seed_tells_the_same() -> None:
    assert told(always(0)) == told(always(0))
    assert told(always(0)) != told(always(0), seed=1)


def test_the_model_leads_and_the_expert_speaks() -> None:
    """Turning left for ever, it is told to do many other things; and after some looks it is led on."""
    lines = told(always(0), 200)
    acts = {line.completion.strip() for line in lines if line.prompt.endswith("Action:")}
    assert {"turn right", "go forward", "pick up"} <= acts
    texts = [line.prompt for line in lines]
    assert max(texts.count(text) for text in set(texts)) <= LOOKS + 2  # the same room may be drawn for two stories


def test_what_the_model_is_sure_of_is_mostly_left_out() -> None:
    """One whose every phrase has .95 needs no correction at all; a tenth is kept."""
    asked = []

    def ask(prompts: list[str], phrases: list[tuple[str, ...]]) -> list[list[float]]:
        asked.extend(prompts)
        return [[0.95] * len(own) for own in phrases]

    list(islice(tell_corrections(ask, 10**6, 0, ROOMS), 60))
    assert 0.05 < 60 / len(asked) < 0.2


def test_it_plays_where_the_corpus_may_play(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, dict[str, Any]]] = []
    make = corrections.gym.make

    def note(env_id: str, disable_env_checker: bool, **kwargs: Any) -> Any:
        made.append((env_id, kwargs))
        return make(env_id, disable_env_checker=disable_env_checker, **kwargs)

    monkeypatch.setattr(corrections.gym, "make", note)
    list(islice(tell_corrections(always(2), 10**6, 0), 200))
    assert len({env_id for env_id, _ in made}) > 8
    for env_id, kwargs in made:
        check_allowed(env_id, kwargs)
    assert {env_id for env_id, _ in made} <= {source.env_id for source in SOURCES if not source.use_bot}


# --- learnt


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A corpus, and a model trained on it."""
    corpus = save_corpus(tmp_path_factory.mktemp("corpus"), CORPUS)
    folder = tmp_path_factory.mktemp("trained")
    return corpus, folder, pretrain(corpus, CONFIG, folder, device="cpu")


def weights(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def corrected(before: Any, folder: Path, config: PretrainConfig = CONFIG) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    corpus, _, (model, tokenizer, report) = before
    own = copy.deepcopy(model)
    found = correct(own, tokenizer, report, corpus, config, folder, "cpu", ROOMS)
    return own, found


def test_it_changes_the_model_and_tells_what_it_read(before: Any, tmp_path: Path) -> None:
    model, report = corrected(before, tmp_path)
    assert not torch.equal(weights(model), weights(before[2][0]))
    assert [each["step"] for each in report["corrections"]] == [6, 6]
    assert all(40 <= each["lines"] <= 44 for each in report["corrections"])
    assert report["corrections"][0]["sha256"] != report["corrections"][1]["sha256"]
    assert report["prompt_perplexity"] != before[2][2]["prompt_perplexity"]
    for number, each in enumerate(report["corrections"], start=1):
        assert len((tmp_path / LINES.format(number)).read_text(encoding="utf-8").splitlines()) == each["lines"]


def test_no_steps_change_nothing(before: Any, tmp_path: Path) -> None:
    model, report = corrected(before, tmp_path, replace(CONFIG, correction_steps=0))
    assert torch.equal(weights(model), weights(before[2][0]))
    assert report == before[2][2]
    assert not list(tmp_path.iterdir())


def test_interrupted_it_ends_in_the_same_weights(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, report = corrected(before, tmp_path / "whole")
    calls = {"n": 0}
    collate = module.train_model.__globals__["collate"]

    def stop(*arguments: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 11:  # amid the second round
            raise KeyboardInterrupt
        return collate(*arguments)

    with monkeypatch.context() as patched:
        patched.setitem(module.train_model.__globals__, "collate", stop)
        with pytest.raises(KeyboardInterrupt):
            corrected(before, tmp_path / "cut")
    monkeypatch.setattr(module, "tell_corrections", None)  # what was told is not told again
    again, second = corrected(before, tmp_path / "cut")
    assert torch.equal(weights(again), weights(whole))
    for one, other in zip(second["corrections"], report["corrections"], strict=True):
        assert one["sha256"] == other["sha256"]


def test_lines_of_another_model_are_told_anew(before: Any, tmp_path: Path) -> None:
    corrected(before, tmp_path)
    path = tmp_path / ENTRY.format(1)
    entry = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(entry | {"made_from": "another"}))
    (tmp_path / module.STATE.format(1)).unlink()
    corrected(before, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == entry
