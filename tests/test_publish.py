"""What is published with a model: weights, manifest, samples, and a card whose every number is the manifest's."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain import samples
from sb3_llm.pretrain.card import model_card
from sb3_llm.pretrain.publish import card_of, publish
from sb3_llm.pretrain.samples import MAX_NEW, Prompt, answer, prompts, sample
from sb3_llm.pretrain.settings import PretrainConfig, config_for
from sb3_llm.pretrain.sources import HELD_OUT
from sb3_llm.pretrain.train import pretrain
from sb3_llm.words.held_out import find_held_out
from sb3_llm.words.mission import parse
from tests.corpora import LINES, save_corpus

torch.set_num_threads(1)

CONFIG = replace(config_for(140, steps=12, hidden=32, layers=1, heads=2, vocab=400), batch_tokens=1000)
LEARNT = replace(CONFIG, steps=80, learning_rate=1e-2, warmup_steps=4, prompt_weight=1.0)  # enough to end a line


def story(env_id: str, lines: int, **others: Any) -> dict[str, Any]:
    plain = {"env_kwargs": {}, "use_bot": False, "episodes": 7, "dropped": 0, "detours": [0.0, 0.1], "layouts": []}
    return {"env_id": env_id, "lines": lines, **plain, **others}


MANIFEST: dict[str, Any] = {
    "format": 2,
    "seed": 7,
    "asked": 140,
    "lines": 2000,
    "sources": [
        story("BabyAI-GoToLocal-v0", 1234, dropped=3),
        story("BabyAI-GoToLocal-v0", 500, use_bot=True, detours=[0.25]),
        story("sb3_llm/Maze-v0", 56, env_kwargs={"size": 3, "split": "train"}, layouts=["ab"]),
        {"kind": "statements", "lines": 110},
        {"kind": "dialogue", "lines": 100},
    ],
}
REPORT: dict[str, Any] = {
    "step": 12,
    "tokens": 34567,
    "seconds": 754.0,
    "prompt_perplexity": 1.23449,
    "phrase_perplexity": 1.05671,
    "first_token_accuracy": 0.9134,
    "device": "cuda",
    "config": asdict(CONFIG),
}
SAMPLES = [
    {"language": "en", "text": "Goal: go.", "asked": "Action:", "expected": "turn left", "said": "turn left"},
    {"language": "en", "text": "Goal: go.", "asked": "Plan:", "expected": "go to the door", "said": "go {home}"},
    {"language": "zh", "text": "", "asked": "钥匙", "expected": "", "said": "能开门。"},
]
WHOLE: dict[str, Any] = {"corpus": MANIFEST, "training": REPORT, "samples": SAMPLES}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trained")
    return pretrain(save_corpus(folder / "corpus", LINES), LEARNT, folder, device="cpu")


@pytest.fixture(scope="module")
def published(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    model, tokenizer, report = trained
    twin = LlamaForCausalLM(model.config)
    twin.load_state_dict(model.state_dict())
    publish(folder, twin, tokenizer, MANIFEST, report)
    return folder


# --- the folder


def test_published_model_loads_and_scores_as_the_trained_one(published: Path, trained: Any) -> None:
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


def test_published_weights_are_float16_safetensors(published: Path, trained: Any) -> None:
    files = {path.name for path in published.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "manifest.json", "README.md"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".part"))]
    size = (published / "model.safetensors").stat().st_size
    assert size < 2.2 * trained[0].num_parameters() + 4096


def test_published_manifest_holds_corpus_training_and_samples(published: Path, trained: Any) -> None:
    manifest = json.loads((published / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["corpus"] == MANIFEST
    assert manifest["training"] == trained[2]
    assert manifest["training"]["config"] == asdict(LEARNT)
    lm, tokenizer = load_language_model(str(published))
    assert manifest["samples"] == sample(lm, tokenizer), "by the weights as they are stored"


def test_the_card_is_made_of_the_folder(published: Path) -> None:
    lm, tokenizer = load_language_model(str(published))
    card = (published / "README.md").read_text(encoding="utf-8")
    assert card == card_of(published, lm, tokenizer)
    assert f"{lm.num_parameters():,} parameters" in card
    assert f"{(published / 'model.safetensors').stat().st_size / 1e6:.1f} MB" in card


# --- the card


@pytest.fixture(scope="module")
def card() -> str:
    return model_card(2_345_678, 2048, 4_720_000, WHOLE)


@pytest.mark.parametrize(
    "fact",
    [
        "2,345,678 parameters",
        "BPE\nof 2,048 tokens and a context of 1,024 tokens. 4.7 MB on disk",
        "2,000 lines",
        "told with seed 7: 1,790 of stories",
        "210 of sayings: 110 statements, 100 dialogue.",
        "25% of the lines are\ntold by the BabyAI bot",
        "21 episodes; 3 more\nwere dropped",
        "a chance of 0%, 10%, 25%, drawn",
        "60% canonical English, 20% drawn English, 10% canonical Chinese, 10% drawn Chinese",
        "90% of the stories tell a summary",
        "80% of the summaries are followed by drills: up to 5 other missions",
        "45% of them Chinese. A text in which the actions have other phrases",
        "`sb3_llm/Dialogue-v0` after acts of its expert, 20% of them random",
        "| BabyAI-GoToLocal-v0 | 1,234 | 500 | 86.7% |",
        "| sb3_llm/Maze-v0 size=3 split=train | 56 | 0 | 2.8% |",
        "sb3-llm pretrain --out FOLDER --lines 140 --seed 0 --steps 12 --hidden 32 --layers 1 --heads 2 --vocab 400\n",
        "It took 34,567 tokens in 12 steps and 13 minutes on cuda.",
        "Settings that no option of the command has: batch_tokens=1000.",
        *(f"`{name}`" for name in HELD_OUT),
        "mazes of more than 6 cells a side",
        "phrases, nouns, colors, missions, templates",
        "## On 14 lines kept from training",
        "| 1.234 | 1.057 | 91.3% |",
        "```text\nGoal: go.\nAction: → turn left\nPlan: → go {home}   (expected: go to the door)\n```",
        "```text\n钥匙 → 能开门。\n```",
        "the navigation is the describer's",
        "BALROG",
    ],
)
def test_card_says(fact: str, card: str) -> None:
    assert fact in card


def test_card_tells_of_corrections(card: str) -> None:
    rounds = [{"lines": 1_000, "step": 20, "sha256": ""}, {"lines": 1_234, "step": 22, "sha256": ""}]
    told = model_card(1, 2, 3, {**WHOLE, "training": REPORT | {"corrections": rounds}})
    assert "played itself\nin the worlds of the table that a planner tells of, in 2 rounds, and 2,234 lines" in told
    assert "less than 90%. It was trained for 42 more steps,\n60% of them on these lines." in told
    assert "played itself" not in card


def test_card_has_no_number_of_another_corpus(card: str) -> None:
    other = {**MANIFEST, "lines": 4000, "asked": 300, "seed": 8}
    following = {"held_out_lines": 30, "correction_lines": 36, "correction_steps": 12}  # from 300 lines and 99 steps
    config = replace(CONFIG, steps=99, seed=8, batch_tokens=PretrainConfig.batch_tokens, **following)
    report = {**REPORT, "config": asdict(config)}
    told = model_card(1, 2, 3_000_000, {"corpus": other, "training": report, "samples": []})
    assert "4,000 lines" in told
    assert "--lines 300 --seed 8 --steps 99" in told
    assert "no option of the command" not in told
    for old in ("2,345,678", "2,048", "4.7 MB", "2,000", "140", "seed 7", "On 14"):
        assert old in card
        assert old not in told


def test_the_command_of_the_default_settings_is_short() -> None:
    whole = {**WHOLE, "training": {**REPORT, "config": asdict(PretrainConfig())}}
    whole["corpus"] = {**MANIFEST, "asked": 330_000}
    assert "\n    sb3-llm pretrain --out FOLDER --lines 330000 --seed 0\n" in model_card(1, 2, 3, whole)


# --- what it is asked


def test_prompts_are_of_every_kind_in_both_languages() -> None:
    found = list(prompts())
    assert found == list(prompts())
    for language in ("en", "zh"):
        ours = [each for each in found if each.language == language]
        action, plan, seen, question, dialogue, statement = ours
        assert (action.asked, plan.asked) == ("Action:", "Plan:")
        assert action.whole == f"{action.text}\nAction:"
        assert action.text == plan.text == seen.text
        assert question.text == dialogue.text == statement.text == ""
        assert seen.asked[-1] in "?？"  # noqa: RUF001
        assert all(each.expected for each in ours[:-1])
        assert dialogue.asked.endswith("\n")
        assert all((each.asked + each.expected).isascii() is (language == "en") for each in ours[2:])
        assert not [each for each in ours if find_held_out(each.whole + each.expected)]
    assert parse(found[1].expected) is not None


def test_answers_are_the_likeliest_tokens_to_the_end_of_the_line(trained: Any) -> None:
    lm, tokenizer, _ = trained
    ended = []
    for prompt in (LINES[0].prompt, LINES[0].prompt.removesuffix("\nAction:")):
        ids = tokenizer(prompt)["input_ids"]
        first = len(ids)
        for _ in range(MAX_NEW):
            with torch.no_grad():
                ids.append(int(lm(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        said = tokenizer.decode(ids[first:], skip_special_tokens=True)
        assert answer(lm, tokenizer, prompt) == said.split("\n")[0].strip()
        ended.append("\n" in said.rstrip())
    assert any(ended), "what comes after the line is left out"


def test_prompts_that_leave_no_room_are_left_out(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, tokenizer, _ = trained
    short = Prompt("en", "", "A key", "")
    monkeypatch.setattr(samples, "prompts", lambda: iter([short, Prompt("en", "north " * 2000, "Action:", "")]))
    assert [each["asked"] for each in sample(lm, tokenizer)] == ["A key"]
