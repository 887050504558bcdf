"""Pretraining: hand-checked batches, the same weights again and after an interruption, and what is published."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain import train
from sb3_llm.pretrain.corpus import Line
from sb3_llm.pretrain.publish import publish
from sb3_llm.pretrain.sources import HELD_OUT
from sb3_llm.pretrain.stories import time_limit
from sb3_llm.pretrain.tokenizer import END, train_tokenizer
from sb3_llm.pretrain.train import NO_LOSS, Example, PretrainConfig, batches, collate, encode_lines, pretrain

torch.set_num_threads(1)

CONFIG = PretrainConfig(
    hidden_size=32,
    intermediate_size=48,
    layers=1,
    heads=2,
    vocab_size=300,
    context=128,
    steps=20,
    batch_lines=8,
    warmup_steps=4,
    held_out_lines=20,
    save_every=6,
)
#: The phrase follows from the wall's side, so there is something to learn; the first words are all different.
PHRASES = {"left": "turn right", "right": "go forward", "no": "pick up"}
LINES: list[Line] = [
    (f"Goal: go to the {color} {thing}. Ahead {steps} free, {side} wall.", phrase)
    for color in ("red", "blue", "green")
    for thing in ("ball", "key", "box")
    for steps in range(5)
    for side, phrase in PHRASES.items()
]
Trained = tuple[LlamaForCausalLM, PreTrainedTokenizerFast, dict[str, Any]]


def same_weights(one: LlamaForCausalLM, other: LlamaForCausalLM) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return pretrain(LINES, CONFIG, tmp_path_factory.mktemp("whole"), device="cpu")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer((f"{text}\nAction: {phrase}\n" for text, phrase in LINES), 300, 128)


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
    lines = [*LINES[:20], ("向前 {observation} 🚪", "右转")]
    for (text, phrase), example in zip(lines, encode_lines(lines, tokenizer), strict=True):
        assert tokenizer.decode(example.ids) == f"{text}\nAction: {phrase}\n"
        assert tokenizer.decode(example.ids[-example.n_phrase :]) == f" {phrase}\n"
        assert example.ids[: -example.n_phrase] == tokenizer(f"{text}\nAction:")["input_ids"]


def test_collate_by_hand() -> None:
    # Three tokens of prompt and two of phrase; then one and one, padded to five.
    ids, targets, weights = collate([Example([11, 12, 13, 14, 15], 2), Example([21, 22], 1)], prompt_weight=0.25)
    assert ids.tolist() == [[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]]
    assert targets.tolist() == [[12, 13, 14, 15, NO_LOSS], [22, NO_LOSS, NO_LOSS, NO_LOSS, NO_LOSS]]
    # The token before the phrase predicts its first token, so it has a phrase's weight.
    assert weights.tolist() == [[0.25, 0.25, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]


def test_padding_changes_no_loss(trained: Trained) -> None:
    model = trained[0]
    short, long = Example([5, 9, 40], 1), Example(list(range(60, 90)), 4)
    alone = train.token_losses(model, *collate([short], 0.5)[:2])
    padded = train.token_losses(model, *collate([short, long], 0.5)[:2])
    torch.testing.assert_close(padded[0, :3], alone[0])
    assert not padded[0, 2:].any()


def test_every_line_once_in_each_round_and_the_same_for_the_same_seed() -> None:
    examples = [Example(list(range(1 + number % 7)), 1) for number in range(50)]
    names = {id(example): number for number, example in enumerate(examples)}
    config = replace(CONFIG, batch_lines=8)

    def rounds(seed: int) -> list[list[int]]:
        drawn = islice(batches(examples, replace(config, seed=seed)), 14)
        return [[names[id(example)] for example in batch] for batch in drawn]

    drawn = rounds(0)
    for part in (drawn[:7], drawn[7:]):
        assert sorted(number for batch in part for number in batch) == list(range(50))
    assert drawn[:7] != drawn[7:]
    assert rounds(0) == drawn
    assert rounds(1) != drawn
    spread = [max(lengths) - min(lengths) for batch in drawn for lengths in [[number % 7 for number in batch]]]
    assert np.mean(spread) < 2  # lines of like length side by side; a plain shuffle has 5


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.4972), (3, 0.951), (10, 0.55), (15, 0.2318), (20, 0.1)])
def test_learning_rate_by_hand(step: int, share: float) -> None:
    assert train.learning_rate(step, CONFIG) == pytest.approx(CONFIG.learning_rate * share, rel=1e-3)


# --- training


def test_the_same_seed_gives_the_same_weights(trained: Trained, tmp_path: Path) -> None:
    model, tokenizer, report = pretrain(LINES, CONFIG, tmp_path, device="cpu")
    assert same_weights(model, trained[0])
    assert tokenizer.get_vocab() == trained[1].get_vocab()
    assert {**report, "seconds": 0} == {**trained[2], "seconds": 0}
    other, _, _ = pretrain(LINES, replace(CONFIG, seed=1), tmp_path / "other", device="cpu")
    assert not same_weights(other, trained[0])


class Interrupted(train.tqdm):
    """A person presses Ctrl-C in the tenth step."""

    def update(self, n: float = 1) -> bool | None:
        if self.n + n >= 10:
            raise KeyboardInterrupt
        return super().update(n)


def test_interrupted_and_resumed_is_as_if_never_interrupted(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(LINES, CONFIG, tmp_path, device="cpu")
    monkeypatch.undo()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["run"]["step"] == 6
    done: list[int] = []
    real = train.learning_rate
    monkeypatch.setattr(train, "learning_rate", lambda step, config: done.append(step) or real(step, config))
    model, _, report = pretrain(LINES, CONFIG, tmp_path, device="cpu")
    assert done == list(range(6, 20))  # from the last state, not from the beginning
    assert same_weights(model, trained[0])
    assert {**report, "seconds": 0} == {**trained[2], "seconds": 0}
    assert report["seconds"] > 0
    assert not list(tmp_path.glob("*.new"))


def test_a_state_half_written_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "state.pt"
    train._save_state(path, {"step": 1})

    def killed(state: Any, where: Path) -> None:
        where.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train._save_state(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_loss_falls_and_the_phrases_are_learnt(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=150, learning_rate=1e-2, save_every=1000)
    _, _, report = pretrain(LINES, config, tmp_path, device="cpu")
    untrained = pretrain(LINES, replace(config, steps=1, learning_rate=0.0), tmp_path, device="cpu")[2]
    assert untrained["phrase_perplexity"] == pytest.approx(300, rel=0.2)  # uniform over the tokens
    assert report["phrase_perplexity"] < 1.1
    assert report["prompt_perplexity"] < untrained["prompt_perplexity"] / 5
    assert untrained["first_token_accuracy"] < 0.5 < 0.9 < report["first_token_accuracy"]
    assert not (tmp_path / "state.pt").exists()


def by_hand(model: LlamaForCausalLM, examples: Sequence[Example]) -> dict[str, float]:
    """One line at a time, without padding or weights."""
    sums: dict[str, list[float]] = {"prompt": [], "phrase": [], "right": []}
    for example in examples:
        log_probs = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        first = len(example.ids) - example.n_phrase
        for place in range(1, len(example.ids)):
            sums["phrase" if place >= first else "prompt"].append(-log_probs[place - 1, example.ids[place]].item())
        sums["right"].append(float(log_probs[first - 1].argmax() == example.ids[first]))
    return {
        "prompt_perplexity": math.exp(np.mean(sums["prompt"])),
        "phrase_perplexity": math.exp(np.mean(sums["phrase"])),
        "first_token_accuracy": float(np.mean(sums["right"])),
    }


def test_held_out_figures_by_hand(trained: Trained) -> None:
    model, tokenizer, report = trained
    examples = encode_lines(LINES[:20], tokenizer)
    assert train.evaluate(model, examples, CONFIG) == pytest.approx(by_hand(model, examples), rel=1e-4)
    order = np.random.default_rng(CONFIG.seed).permutation(len(LINES))
    held_out = encode_lines([LINES[index] for index in order[:20]], tokenizer)
    figures = by_hand(model, held_out)
    assert {name: report[name] for name in figures} == pytest.approx(figures, rel=1e-4)


def test_held_out_lines_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[int, ...]] = set()
    real = train.collate

    def noted(batch: Sequence[Example], prompt_weight: float) -> Any:
        if torch.is_grad_enabled():
            seen.update(tuple(example.ids) for example in batch)
        return real(batch, prompt_weight)

    monkeypatch.setattr(train, "collate", noted)
    _, tokenizer, _ = pretrain(LINES, replace(CONFIG, steps=15), tmp_path, device="cpu")
    every = {tuple(example.ids) for example in encode_lines(LINES, tokenizer)}
    assert seen < every
    assert len(every - seen) == 20


def test_a_corpus_no_longer_than_what_is_held_out_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out_lines"), time_limit(1.0):
        pretrain(LINES, replace(CONFIG, held_out_lines=len(LINES)), tmp_path, device="cpu")


@pytest.mark.parametrize("prompt_weight", [0.0, 1.0])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_held_out_figures_whatever_the_weights(prompt_weight: float, trained: Trained) -> None:
    model, tokenizer, _ = trained
    examples = encode_lines(LINES[:20], tokenizer)
    figures = train.evaluate(model, examples, replace(CONFIG, prompt_weight=prompt_weight))
    assert figures == pytest.approx(by_hand(model, examples), rel=1e-4)


# --- what is published

MANIFEST = {
    "format": 1,
    "seed": 7,
    "asked": 140,
    "lines": 135,
    "sources": [
        {"env_id": "BabyAI-GoToLocal-v0", "env_kwargs": {}, "lines": 1234, "layouts": []},
        {"env_id": "sb3_llm/Maze-v0", "env_kwargs": {"size": 3, "split": "train"}, "lines": 56, "layouts": ["ab"]},
    ],
}


@pytest.fixture(scope="module")
def published(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    model, tokenizer, report = trained
    twin = LlamaForCausalLM(model.config)
    twin.load_state_dict(model.state_dict())
    publish(folder, twin, tokenizer, MANIFEST, report)
    return folder


def test_published_model_loads_and_scores_as_the_trained_one(published: Path, trained: Trained) -> None:
    lm, tokenizer = load_language_model(str(published))
    model, own_tokenizer, _ = trained
    text = "Goal: go to the red ball.\nAction: turn left\n 向前"
    ids = tokenizer(text)["input_ids"]
    assert ids == own_tokenizer(text)["input_ids"]
    assert lm.dtype == torch.float32
    with torch.no_grad():
        ours, theirs = lm(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=5e-3)  # of float16
    assert all(torch.equal(x.half(), y.half()) for x, y in zip(lm.parameters(), model.parameters(), strict=True))


def test_published_weights_are_float16_safetensors(published: Path, trained: Trained) -> None:
    files = {path.name for path in published.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "manifest.json", "README.md"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    size = (published / "model.safetensors").stat().st_size
    assert size < 2.2 * trained[0].num_parameters() + 4096


def test_card_names_every_source_and_what_is_held_out(published: Path, trained: Trained) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    for source in MANIFEST["sources"]:  # type: ignore[attr-defined]
        assert f"| {source['env_id']} {source['env_kwargs'] or ''} | {source['lines']:,} |" in card
    assert all(f"`{name}`" in card for name in HELD_OUT)
    report = trained[2]
    for fact in (
        f"{trained[0].num_parameters():,} parameters",
        f"BPE\nof {len(trained[1])} tokens and a context of 128 tokens",
        "135 lines",
        "sb3-llm pretrain --out FOLDER --lines 140 --steps 20 --seed 0",
        f"{report['tokens']:,} tokens in 20 steps",
        f"{report['phrase_perplexity']:.3f}",
        "On 20 lines kept from training",
    ):
        assert fact in card
    assert "{" not in card.replace(str(MANIFEST["sources"][1]["env_kwargs"]), "")  # type: ignore[index]


def test_published_manifest_holds_corpus_and_training(published: Path, trained: Trained) -> None:
    manifest = json.loads((published / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["corpus"] == MANIFEST
    assert manifest["training"] == trained[2]
    assert manifest["training"]["config"] == asdict(CONFIG)
