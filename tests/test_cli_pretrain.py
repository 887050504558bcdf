"""``sb3-llm pretrain`` and ``sb3-llm record``, as a user types them."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sb3_llm import cli_pretrain
from sb3_llm.cli import main
from sb3_llm.demos import read_demos
from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain import corpus, train
from sb3_llm.pretrain.sources import SAYINGS, SOURCES, Source

torch.set_num_threads(1)

MAZE = Source("sb3_llm/Maze-v0", 1, {"size": 3, "generator": "dfs", "split": "train"})
TINY = ["--lines", "120", "--hidden", "16", "--layers", "1", "--heads", "2", "--vocab", "300", "--processes", "1"]
MAKE = ["pretrain", *TINY, "--steps", "3", "--out", "made"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command in an empty folder. Returns exit code, output and errors. Stories of one small source."""
    monkeypatch.chdir(tmp_path)
    real: Callable[..., Any] = corpus.write_corpus
    monkeypatch.setattr(cli_pretrain, "write_corpus", lambda *args: real(*args, sources=(MAZE,)))

    def typed(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sb3-llm", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return typed


# --- pretrain


def test_pretrain_makes_a_model_that_loads(run: Run, tmp_path: Path) -> None:
    code, told, errors = run(*MAKE)
    assert code == 0, errors
    assert "The model is made/model: sb3-llm evaluate --model made/model" in told
    assert json.JSONDecoder().raw_decode(told)[0]["step"] == 3
    lm, tokenizer = load_language_model(str(tmp_path / "made" / "model"))
    assert (lm.config.hidden_size, lm.config.num_hidden_layers, len(tokenizer)) == (16, 1, 300)
    published = json.loads((tmp_path / "made" / "model" / "manifest.json").read_text())
    assert (published["corpus"]["asked"], published["training"]["config"]["steps"]) == (120, 3)
    card = (tmp_path / "made" / "model" / "README.md").read_text()
    options = r"--lines 120 --seed 0 --steps 3 --hidden 16 --layers 1 --heads 2 --vocab 300"
    assert f"sb3-llm pretrain --out FOLDER {options}" in card
    code, _, errors = run(*MAKE)  # finished already
    assert code == 0, errors
    for changed, said in (
        (["--steps", "4"], "{'steps': 3}, for one with {'steps': 4}"),
        (["--seed", "1"], "the corpus in made/corpus, of 120 lines and seed 0"),
        (["--lines", "130"], "the corpus in made/corpus, of 120 lines and seed 0"),
        (["--precision", "bfloat16"], "{'precision': 'float32'}"),
        (["--hidden", "32"], "'hidden_size': 16"),
    ):
        code, _, errors = run(*MAKE, *changed)
        assert code == 2
        assert said in errors
        assert "Traceback" not in errors
    assert json.loads((tmp_path / "made" / "model" / "manifest.json").read_text()) == published


def test_a_corpus_is_used_again(run: Run, tmp_path: Path) -> None:
    corpus.write_corpus(tmp_path / "told", 120, 5, sources=(MAZE,))
    code, _, errors = run("pretrain", "--corpus", "told", "--out", "new", *TINY[2:-2], "--steps", "1")
    assert code == 0, errors
    assert not (tmp_path / "new" / "corpus").exists()
    found = json.loads((tmp_path / "new" / "model" / "manifest.json").read_text())
    assert (found["corpus"]["seed"], found["training"]["config"]["seed"]) == (5, 0)


BAD = {
    "--lines -5": "--lines -5. Expected: a whole number, 1 or more",
    "--processes 0": "--processes 0. Expected",
    "--steps -1": "steps=-1. Expected: a whole number, 1 or more",
    "--seed -1": "seed=-1. Expected: a whole number, 0 or more",
    "--heads 5": "hidden_size=16 with heads=5",
    "--vocab 100": "vocab_size=100",
    "--precision half": "precision='half'. Expected: 'float32' or 'bfloat16'",
    "--device gpu": "device='gpu'",
    "--device cuda:99": "device='cuda:99'",
    "--lines 1": "a corpus of 1 lines with held_out_lines=1",
    "--corpus nowhere": "nowhere as a corpus",
    "--corpus old": "the corpus in old, of format 1. Expected: format 5",
    "--out file": "file, which is a file",
    "--out old": "old, which holds a model that no training there has made",
    "--epochs 3": "--epochs without --from-demos FILE. Expected: options that belong together",
    "--model embedded --lr 0.1": "--model, --lr without --from-demos FILE",
    "--from-demos file": "with --from-demos, which makes no corpus",
}


@pytest.mark.parametrize("changed", BAD)
def test_bad_options_are_one_sentence_before_anything_is_done(changed: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "old" / "model").mkdir(parents=True)
    (tmp_path / "old" / "manifest.json").write_text('{"format": 1}')
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    code, told, errors = run(*MAKE, *changed.split())
    assert code == 2
    assert BAD[changed] in errors
    assert "To mend it" in errors
    assert "Traceback" not in errors
    assert told == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_while_training_says_how_to_go_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = train.token_losses
    steps: list[int] = []

    def pressed(*args: Any) -> Any:
        steps.append(len(steps))
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with monkeypatch.context() as patch:
        patch.setattr(train, "token_losses", pressed)
        code, told, _ = run(*MAKE)
    signal.signal(signal.SIGINT, before)
    assert code == 130
    assert f"To go on: sb3-llm {' '.join(MAKE)}" in told
    assert torch.load(tmp_path / "made" / "state.pt", weights_only=True)["run"]["step"] == 2
    assert not (tmp_path / "made" / "model").exists()
    code, told, errors = run(*MAKE)
    assert code == 0, errors
    run(*MAKE, "--out", "whole")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "made" / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()


def test_ctrl_c_while_stories_are_told(tmp_path: Path) -> None:
    """In a terminal all processes get it: none goes on telling, and what is whole is kept."""
    command = [sys.executable, "-m", "sb3_llm", "pretrain", "--out", "made", "--lines", "40000"]

    def begin() -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore

    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=begin
    )
    parts = len(SOURCES) + len(SAYINGS)
    try:
        assert process.stderr is not None
        shown = ""
        while not re.search(rf"[1-9]\d*/{parts}\b", shown):  # a part is whole
            letter = process.stderr.read(1)
            assert letter, shown
            shown += letter
        before = set((tmp_path / "made" / "corpus").iterdir())
        os.killpg(process.pid, signal.SIGINT)
        told, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "To go on: sb3-llm pretrain --out made --lines 40000" in told
    assert "Traceback" not in errors
    after = {path for path in (tmp_path / "made" / "corpus").iterdir() if path.suffix != ".part"}
    assert before & after
    assert len(after - before) <= 2, "workers went on, though one may just have been finishing a part"
    assert tmp_path / "made" / "corpus" / "manifest.json" not in after


# --- record, and pretrain --from-demos

RECORD = ["record", "sb3_llm/Maze3x3-v0", "--out", "demos.jsonl", "--env-arg", "history=1"]  # short, for tiny models


def test_record_then_clone(run: Run, tmp_path: Path, gpt2_folder: Path) -> None:
    code, told, errors = run(*RECORD, "--episodes", "3")
    assert code == 0, errors
    demos = read_demos(tmp_path / "demos.jsonl")
    assert f"3 episodes kept, {len(demos)} lines: demos.jsonl" in told
    assert "0 without success, 0 in which the expert hung, 0 in which it broke" in told
    assert "sb3-llm pretrain --from-demos demos.jsonl" in told
    assert {demo.episode for demo in demos} == {0, 1, 2}
    run(*RECORD, "--episodes", "1", "--seed", "50")
    assert len(read_demos(tmp_path / "demos.jsonl")) > len(demos)
    clone = ["pretrain", "--from-demos", "demos.jsonl", "--out", "clone", "--model", str(gpt2_folder), "--epochs", "1"]
    code, told, errors = run(*clone, "--finetune", "top:1")
    assert code == 0, errors
    assert "The model is clone: policy_kwargs={'model': 'clone'}" in told
    assert json.JSONDecoder().raw_decode(told)[0]["lines"] > 0
    load_language_model(str(tmp_path / "clone"))
    code, _, errors = run(*clone, "--finetune", "full")
    assert code == 2
    assert "holds a clone made with {'finetune': 'top:1'}" in errors


def test_the_bot_records_babyai(run: Run, tmp_path: Path) -> None:
    code, _, errors = run("record", "BabyAI-GoToObjS4-v0", "--out", "demos.jsonl", "--episodes", "2", "--expert", "bot")
    assert code == 0, errors
    assert ". Goal: go to " in read_demos(tmp_path / "demos.jsonl")[0].observation


def test_a_person_records_at_the_keyboard(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*RECORD, "--episodes", "1", "--seed", "4")
    expert = read_demos(tmp_path / "demos.jsonl")
    (tmp_path / "demos.jsonl").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{demo.phrase}\n" for demo in expert)))
    code, told, errors = run(*RECORD, "--expert", "keyboard", "--episodes", "1", "--seed", "4")
    assert code == 0, errors
    assert read_demos(tmp_path / "demos.jsonl") == expert
    assert "1 episode kept" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["record", "NoSuchEnv-v0", "--out", "x"], "NoSuchEnv"),
        ([*RECORD, "--episodes", "0"], "--episodes 0. Expected: a whole number, 1 or more"),
        ([*RECORD, "--expert", "me"], "--expert me. Expected: one of planner, bot, keyboard"),
        ([*RECORD, "--expert", "bot"], "the BabyAI bot in .*Expected: a BabyAI level"),
        (["record", "CartPole-v1", "--out", "x"], "a MiniGrid or BabyAI world, or a maze"),
        (["record", "MiniGrid-Empty-5x5-v0", "--out", "x", "--expert", "bot"], "a BabyAI level"),
        ([*RECORD, "--env-arg", "size"], "name=value"),
        (["pretrain", "--from-demos", "none.jsonl", "--out", "x"], "the file none.jsonl"),
        (["pretrain", "--from-demos", "none.jsonl", "--out", "x", "--epochs", "0"], "epochs=0"),
        (["pretrain", "--from-demos", "none.jsonl", "--out", "x", "--steps", "3"], "--steps with --from-demos"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], said: str, run: Run, tmp_path: Path) -> None:
    code, _, errors = run(*arguments)
    assert code == 2
    assert re.search(said, errors), errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["pretrain", "record"])
def test_help_shows_an_example(command: str, run: Run) -> None:
    code, told, _ = run(command, "--help")
    assert code == 0
    assert f"sb3-llm {command} " in " ".join(told.split())
    assert "offline" in told
