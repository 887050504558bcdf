"""Pretraining: hand-checked batches, the same weights again and after an interruption, and settings that can't work."""

import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.pretrain import train
from sb3_llm.pretrain.corpus import write_corpus
from sb3_llm.pretrain.data import Examples, collate, encode
from sb3_llm.pretrain.settings import PretrainConfig, check_config, check_device, claim, config_for
from sb3_llm.pretrain.sources import Source
from sb3_llm.pretrain.stories import time_limit
from sb3_llm.pretrain.train import pretrain
from tests.corpora import LINES, TINY, save_corpus
from tests.test_pretrain_data import examples_of

torch.set_num_threads(1)

CONFIG = PretrainConfig(
    **TINY,
    context=128,
    steps=20,
    batch_tokens=250,
    warmup_steps=4,
    held_out_lines=20,
    save_every=6,
)
Trained = tuple[LlamaForCausalLM, PreTrainedTokenizerFast, dict[str, Any]]


def same_weights(one: LlamaForCausalLM, other: LlamaForCausalLM) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def without_seconds(report: dict[str, Any]) -> dict[str, Any]:
    assert report["seconds"] > 0
    return {**report, "seconds": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"), LINES)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return pretrain(corpus, CONFIG, tmp_path_factory.mktemp("whole"), device="cpu")


# --- losses and rates


def test_padding_changes_no_loss(trained: Trained) -> None:
    model = trained[0]
    both = examples_of(([5, 9, 40], 1), (list(range(60, 90)), 4))
    alone = train.token_losses(model, *collate(both, [0], 0.5)[:2])
    padded = train.token_losses(model, *collate(both, [0, 1], 0.5)[:2])
    torch.testing.assert_close(padded[0, :3], alone[0])
    assert not padded[0, 2:].any()


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.4972), (3, 0.951), (10, 0.55), (15, 0.2318), (20, 0.1)])
def test_learning_rate_by_hand(step: int, share: float) -> None:
    rate = train.learning_rate(step, CONFIG.warmup_steps, CONFIG)
    assert rate == pytest.approx(CONFIG.learning_rate * share, rel=1e-3)


def test_the_embeddings_are_warmed_up_longer_than_the_matrices(trained: Trained) -> None:
    config = replace(CONFIG, embedding_warmup_steps=22)
    optimizers = train.make_optimizers(trained[0], config)
    train.set_learning_rates(optimizers, 10, config)
    inner, rest = ([group["lr"] for group in optimizer.param_groups] for optimizer in optimizers)
    assert inner == [train.learning_rate(10, 4, config)]
    assert rest == [inner[0] / 2]
    assert any(weight is trained[0].model.embed_tokens.weight for weight in optimizers[1].param_groups[0]["params"])


# --- training


def test_the_first_steps_are_on_lists_and_orders_and_the_next_on_reworded_lists_too() -> None:
    examples = examples_of(*([(list(range(5, 15)), 4)] * 60))
    order = np.random.default_rng(0).permutation(60)[:50]  # the others are held out
    lists, reworded = range(20, 40), range(45, 50)
    config = replace(CONFIG, steps=50, practice_share=0.2, reworded_share=0.2, batch_tokens=100)
    stream = [set(batch.tolist()) for batch in islice(train._batches(examples, order, lists, reworded, config), 50)]
    assert all(batch <= set(lists) & set(order.tolist()) for batch in stream[:10])
    assert set.union(*stream[10:20]) == {*lists, *reworded} & set(order.tolist())
    assert set.union(*stream[20:]) == set(order.tolist())
    plain = islice(train._batches(examples, order, range(0), range(0), config), 5)
    assert set.union(*(set(batch.tolist()) for batch in plain)) == set(order.tolist()), "no lists: all lines at once"


def test_the_same_seed_gives_the_same_weights(trained: Trained, corpus: Path, tmp_path: Path) -> None:
    model, tokenizer, report = pretrain(corpus, CONFIG, tmp_path, device="cpu")
    assert same_weights(model, trained[0])
    assert tokenizer.get_vocab() == trained[1].get_vocab()
    assert without_seconds(report) == without_seconds(trained[2])
    other, _, _ = pretrain(corpus, replace(CONFIG, seed=1), tmp_path / "other", device="cpu")
    assert not same_weights(other, trained[0])


def test_from_nothing_to_the_same_weights(tmp_path: Path) -> None:
    """The whole way, twice: stories, sayings, tokenizer, training."""
    maze = {"size": 3, "generator": "dfs", "split": "train"}
    sources = (Source("sb3_llm/Maze-v0", 2, maze), Source("sb3_llm/Rooms-v0", 1, {"kind": "keydoor"}))
    config = replace(config_for(300, steps=6, hidden=32, layers=2, heads=2), batch_tokens=1500)
    made: list[Trained] = []
    for name in ("one", "two"):
        write_corpus(tmp_path / name / "corpus", 300, seed=0, processes=len(made) + 1, sources=sources)
        made.append(pretrain(tmp_path / name / "corpus", config, tmp_path / name, device="cpu"))
    (model, tokenizer, report), (twin, its_tokenizer, its_report) = made
    assert same_weights(model, twin)
    assert tokenizer.get_vocab() == its_tokenizer.get_vocab()
    assert without_seconds(report) == without_seconds(its_report)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 32)


def at_step(number: int, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Act when a step begins. Returns the steps that begin."""
    begun: list[int] = []
    real = train.learning_rate

    def learning_rate(step: int, warmup_steps: int, config: PretrainConfig) -> float:
        if not begun or begun[-1] != step:
            begun.append(step)
            if step == number:
                act()
        return real(step, warmup_steps, config)

    monkeypatch.setattr(train, "learning_rate", learning_rate)
    return begun


def kill() -> None:
    raise SystemExit


@pytest.mark.parametrize("how", ["Ctrl-C", "killed"])
def test_interrupted_and_resumed_is_as_if_never_interrupted(
    how: str, trained: Trained, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C lets the step end and keeps its state; a kill leaves the last state, of step 6."""
    act = {"Ctrl-C": lambda: signal.raise_signal(signal.SIGINT), "killed": kill}[how]
    with monkeypatch.context() as patch:
        at_step(9, act, patch)
        with pytest.raises(KeyboardInterrupt if how == "Ctrl-C" else SystemExit):
            pretrain(corpus, CONFIG, tmp_path, device="cpu")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = {"Ctrl-C": 10, "killed": 6}[how]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["run"]["step"] == kept
    begun = at_step(-1, kill, monkeypatch)
    model, _, report = pretrain(corpus, CONFIG, tmp_path, device="cpu")
    assert begun == list(range(kept, 20))  # not from the beginning
    assert same_weights(model, trained[0])
    assert without_seconds(report) == without_seconds(trained[2])
    assert not list(tmp_path.glob("*.part"))
    again, _, _ = pretrain(corpus, CONFIG, tmp_path, device="cpu")
    assert begun == list(range(kept, 20)), "nothing is left to train"
    assert same_weights(again, model)


def test_a_second_ctrl_c_does_not_wait_for_the_step(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(9, twice, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, CONFIG, tmp_path, device="cpu")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["run"]["step"] == 6


def test_a_state_half_written_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    train._save_state(path, {"step": 1})

    def killed(state: Any, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train._save_state(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_loss_falls_and_the_phrases_are_learnt(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, steps=120, learning_rate=1e-2, embedding_warmup_steps=40, save_every=1000)
    report = pretrain(corpus, config, tmp_path / "long", device="cpu")[2]
    plain = partial(train.build_model, lay_out=lambda model: None)  # the layout bets on what was said before
    monkeypatch.setattr(train, "build_model", plain)
    untrained = pretrain(corpus, replace(config, steps=1, learning_rate=0.0), tmp_path / "none", device="cpu")[2]
    assert untrained["phrase_perplexity"] == pytest.approx(300, rel=0.2)  # uniform over the tokens
    assert report["phrase_perplexity"] < 1.2
    assert report["prompt_perplexity"] < untrained["prompt_perplexity"] / 5
    assert untrained["first_token_accuracy"] < 0.5 < 0.9 < report["first_token_accuracy"]


def by_hand(model: LlamaForCausalLM, examples: Examples, lines: Sequence[int]) -> dict[str, float]:
    """One line at a time, without padding or weights."""
    sums: dict[str, list[float]] = {"prompt": [], "phrase": [], "right": []}
    for line in lines:
        ids, completes = (part.tolist() for part in examples.line(line))
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        first = completes.index(True)
        for place in range(1, len(ids)):
            sums["phrase" if completes[place] else "prompt"].append(-log_probs[place - 1, ids[place]].item())
        sums["right"].append(float(log_probs[first - 1].argmax() == ids[first]))
    return {
        "prompt_perplexity": math.exp(np.mean(sums["prompt"])),
        "phrase_perplexity": math.exp(np.mean(sums["phrase"])),
        "first_token_accuracy": float(np.mean(sums["right"])),
    }


@pytest.mark.parametrize("prompt_weight", [0.0, 0.05, 1.0])
def test_held_out_figures_by_hand_whatever_the_weights(prompt_weight: float, trained: Trained) -> None:
    model, tokenizer, report = trained
    examples = encode(LINES, tokenizer)
    order = np.random.default_rng(CONFIG.seed).permutation(len(LINES))[:20]
    figures = by_hand(model, examples, order.tolist())
    assert train.evaluate(model, examples, order, replace(CONFIG, prompt_weight=prompt_weight)) == pytest.approx(
        figures, rel=1e-4
    )
    assert {name: report[name] for name in figures} == pytest.approx(figures, rel=1e-4)


def test_held_out_lines_are_never_trained_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    real = train.collate

    def noted(examples: Examples, batch: Sequence[int], prompt_weight: float) -> Any:
        if torch.is_grad_enabled():
            seen.update(int(line) for line in batch)
        return real(examples, batch, prompt_weight)

    monkeypatch.setattr(train, "collate", noted)
    pretrain(corpus, replace(CONFIG, steps=60), tmp_path, device="cpu")
    held_out = np.random.default_rng(CONFIG.seed).permutation(len(LINES))[:20]
    assert seen == set(range(len(LINES))) - set(held_out.tolist())


# --- settings that can't work


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"hidden_size": -32}, "hidden_size=-32. Expected: a whole number, 1 or more"),
        ({"layers": 0}, "layers=0"),
        ({"layers": 2.0}, "layers=2.0"),
        ({"steps": True}, "steps=True"),
        ({"seed": -1}, "seed=-1. Expected: a whole number, 0 or more"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001. Expected: a number, 0 or more"),
        ({"weight_decay": math.nan}, "weight_decay=nan"),
        ({"heads": 5}, "hidden_size=32 with heads=5. Expected: a hidden size that shares out.*pass hidden_size=30"),
        ({"heads": 32}, "hidden_size=32 with heads=32.*pass hidden_size=64"),
        ({"vocab_size": 256}, r"vocab_size=256. Expected: 257 \(bytes and end mark\) to 65536"),
        ({"vocab_size": 70_000}, "vocab_size=70000"),
        ({"held_out_lines": 135}, "a corpus of 135 lines with held_out_lines=135"),
        ({"precision": "fp16"}, "precision='fp16'. Expected: 'float32' or 'bfloat16'"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(settings: dict[str, Any], told: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=told), time_limit(1.0):
        pretrain(corpus, replace(CONFIG, **settings), tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", "mps"])
def test_devices_that_are_not_here(device: str) -> None:
    with pytest.raises(SetupError, match=f"device='{device}' .*pass device='auto'"):
        check_device(device)
    assert check_device("cpu") == "cpu"
    assert check_device("auto") in ("cpu", "cuda")


def test_a_training_with_other_settings_is_not_gone_on_with(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, replace(CONFIG, steps=2), tmp_path, device="cpu")
    with pytest.raises(SetupError, match=r"holds a training with \{'steps': 2\}, for one with \{'steps': 3\}"):
        pretrain(corpus, replace(CONFIG, steps=3), tmp_path, device="cpu")
    other = save_corpus(tmp_path / "other", LINES[:100])
    with pytest.raises(SetupError, match=r"holds a training with \{'sha256'"):
        pretrain(other, replace(CONFIG, steps=2), tmp_path, device="cpu")


def test_a_folder_is_claimed_bit_by_bit(tmp_path: Path) -> None:
    claim(tmp_path / "new", {"lines": 3})
    claim(tmp_path / "new", {"config": {"layers": 2}})
    assert json.loads((tmp_path / "new" / "pretraining.json").read_text()) == {"lines": 3, "config": {"layers": 2}}
    with pytest.raises(SetupError, match=r"with \{'lines': 3, 'layers': 2\}, for one with \{'lines': 4, 'layers': 1\}"):
        claim(tmp_path / "new", {"lines": 4, "config": {"layers": 1}})
    with pytest.raises(SetupError, match="which is a file"):
        claim(tmp_path / "new" / "pretraining.json", {})


def test_a_spoilt_corpus_is_noticed_before_training(tmp_path: Path) -> None:
    folder = save_corpus(tmp_path / "corpus", LINES)
    text = (folder / "lines.jsonl").read_text().replace("turn right", "turn left", 1)
    (folder / "lines.jsonl").write_text(text)
    with pytest.raises(SetupError, match="not the one that was written"), time_limit(5.0):
        pretrain(folder, CONFIG, tmp_path / "out", device="cpu")


def test_the_options_of_the_command_give_the_embedded_models_shape() -> None:
    assert config_for(330_000) == PretrainConfig()
    small = config_for(500, hidden=160)
    assert (small.intermediate_size, small.held_out_lines) == (432, 50)
    check_config(replace(small, heads=5), 500)
