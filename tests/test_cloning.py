"""A language model taught by demonstrations: what is refused, what is optimised, what is saved, and how it goes on."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sb3_llm import LLMPolicy, PhraseSpace, TextSpace, make_env
from sb3_llm.demos import CloneReport, Demo, clone, cloning, expert_for, read_demos, record
from sb3_llm.demos.cloning import split
from sb3_llm.demos.pupil import Lesson, Pupil
from sb3_llm.errors import SetupError
from sb3_llm.language_model import load_language_model
from sb3_llm.scoring import ReferenceScorer, Row
from sb3_llm.settings import complete
from tests.test_demos import BRIEF, DEMOS, MAZE
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm

pytestmark = pytest.mark.filterwarnings("ignore:the policy starts out")

# --- cloning: what is refused before anything is loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0. Expected: a whole number, 1 or more"),
        ({"batch": 2.0}, "batch=2.0"),
        ({"seed": -1}, "seed=-1"),
        ({"save_every": True}, "save_every=True"),
        ({"lr": 0}, "lr=0. Expected: a number above 0"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"held_out": 1}, "held_out=1. Expected: a share from 0 to below 1"),
        ({"finetune": "some"}, "finetune='some'"),
        ({"template": "no place"}, "the template 'no place'"),
        ({"normalization": "char"}, "normalization='char'"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"prior_kl": True}, "the argument 'prior_kl'"),
        ({"demos": []}, "demos=[]"),
        ({"demos": [("x", "go")]}, "demos of type list"),
        ({"demos": [Demo("x", "go", ("stop",))]}, "demonstration 1: the phrase 'go'"),
        ({"demos": [Demo("x", "go")]}, "1 line with held_out=0.1. Expected: at least two episodes"),
        ({"demos": [Demo("x", "go", None, 1), Demo("y", "go", None, 1)]}, "2 lines of one episode with held_out=0.1"),
        (
            {"demos": [Demo("x", "a0", tuple(f"a{i}" for i in range(65))), Demo("x", "a0", ("a0",))]},
            "65 phrases on one line",
        ),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused_before_a_model_is_loaded(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"model": tmp_path / "no/such/model", "demos": DEMOS, "out": tmp_path / "out"}
    with pytest.raises(SetupError) as caught:
        clone(**good | options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_folder_is_never_written_over(tmp_path: Path, llama_folder: Path) -> None:
    before = {each.name: each.read_bytes() for each in llama_folder.iterdir()}
    with pytest.raises(SetupError, match=r"which holds config\.json.*Expected: a new or empty folder"):
        clone(llama_folder, DEMOS, llama_folder)
    assert {each.name: each.read_bytes() for each in llama_folder.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="which is a file"):
        clone(llama_folder, DEMOS, tmp_path / "file")
    with pytest.raises(SetupError, match="which is no existing folder"):
        clone(tmp_path / "no/such/model", DEMOS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_too_long_shows_before_training(tmp_path: Path, llama_folder: Path) -> None:
    with pytest.raises(SetupError, match="at most 256 tokens together"):
        clone(llama_folder, [*DEMOS, Demo("A wall. " * 200, "drop")], tmp_path / "out", held_out=0)
    assert not (tmp_path / "out").exists()


# --- cloning: what is held out


def test_episodes_are_not_parted() -> None:
    demos = [Demo("x", "go", None, number // 5) for number in range(50)] + [Demo("x", "go")] * 10
    for seed in range(5):
        train, kept = split(demos, 0.2, seed)
        assert sorted(train + kept) == list(range(60))
        assert 12 <= len(kept) <= 16
        episodes = [{demos[place].episode for place in places} - {None} for places in (train, kept)]
        assert not episodes[0] & episodes[1]
    assert split(demos, 0.2, 1) == split(demos, 0.2, 1) != split(demos, 0.2, 2)
    assert split(demos, 0, 1) == (list(range(60)), [])
    assert len(split(demos[:10], 0.99, 0)[0]) == 5, "an episode is left to train on"


# --- cloning: the loss is the policy's


def rows_of_json(texts: Sequence[str], phrases: Sequence[str], said: Sequence[int]) -> list[Demo]:
    return [Demo(text, phrases[index], tuple(phrases)) for text, index in zip(texts, said, strict=True)]


@pytest.mark.parametrize("varies", [False, True], ids=["same phrases", "phrases of each line"])
def test_gradient_is_that_of_the_definition_in_float64(tmp_path: Path, varies: bool) -> None:
    tokenizer = byte_level_tokenizer(bos=True)
    folder = save_language_model(tmp_path / "lm", tiny_lm("gpt2", len(tokenizer)), tokenizer)
    phrases = ("turn left", "go forward", "向前走", "go")
    demos = rows_of_json(["A wall.", "You see a red key.", "向 a door."], phrases, [2, 0, 3])
    if varies:
        demos[1] = Demo("You see a red key.", "turn left", ("drop", "turn left"))
    settings = complete({"model": folder, "dtype": "float64", "normalization": "token", "temperature": 2.0})
    pupil = Pupil(Lesson(demos), settings, 1e-4, 0, "cpu")
    loss = pupil.loss([0, 1, 2])
    loss.backward()
    lm, _ = load_language_model(folder, dtype="float64")
    reference = torch.stack([by_definition(lm, tokenizer, demo) for demo in demos]).mean()
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-12)
    mine = dict(pupil.policy.lm.named_parameters())
    for name, parameter in lm.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(mine[name].grad, parameter.grad, atol=1e-12, rtol=1e-9)
    assert max(float(each.grad.abs().max()) for each in lm.parameters() if each.grad is not None) > 1e-3


def by_definition(lm: Any, tokenizer: Any, demo: Demo) -> torch.Tensor:
    """Minus log pi of what was said: written out, one row for each phrase."""
    prompt = f"{demo.observation}\nAction:"
    assert demo.phrases is not None
    mark = "\n" if "go" in demo.phrases else ""  # "go" begins "go forward"
    head = tokenizer(prompt)["input_ids"]
    added = [tuple(tokenizer(f"{prompt} {phrase}{mark}")["input_ids"][len(head) :]) for phrase in demo.phrases]
    scores = ReferenceScorer(lm).score([Row(tuple(head), tuple(added))]).log_probs[0]
    lengths = torch.tensor([len(ids) for ids in added])
    return -(scores / lengths / 2.0).log_softmax(dim=0)[demo.phrases.index(demo.phrase)]


@pytest.fixture(scope="module")
def maze_demos(tmp_path_factory: pytest.TempPathFactory) -> list[Demo]:
    env, path = make_env(MAZE, **BRIEF), tmp_path_factory.mktemp("demos") / "maze.jsonl"
    record(env, expert_for(env), 45, 0, path, progress=False)
    return read_demos(path)[:200]


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm("llama", len(tokenizer), torch.float32, std=0.1)
    return save_language_model(tmp_path_factory.mktemp("small") / "lm", lm, tokenizer)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory, maze_demos: list[Demo], small_folder: str) -> CloneReport:
    out = tmp_path_factory.mktemp("cloned") / "out"
    return clone(
        small_folder,
        maze_demos,
        out,
        epochs=4,
        lr=3e-3,
        batch=12,
        held_out=0.2,
        template="{observation}\nGo:",
        progress=False,
    )


def test_a_tiny_model_learns_from_200_maze_demos(cloned: CloneReport, maze_demos: list[Demo]) -> None:
    assert len(maze_demos) == cloned.lines + cloned.held_out_lines == 200
    assert cloned.before is not None
    assert cloned.after is not None
    assert cloned.after.accuracy > cloned.before.accuracy + 0.25
    kept = Counter(maze_demos[place].phrase for place in split(maze_demos, 0.2, 0)[1])
    assert cloned.after.accuracy > max(kept.values()) / kept.total() + 0.1, "it does not say the same thing each time"
    assert cloned.after.mean_log_prob > cloned.before.mean_log_prob + 0.5
    assert 0 < cloned.held_out_seen < cloned.held_out_lines
    assert cloned.policy_kwargs == {"model": cloned.folder, "template": "{observation}\nGo:"}


def test_what_was_measured_is_what_a_policy_on_the_folder_does(cloned: CloneReport, maze_demos: list[Demo]) -> None:
    env = make_env(MAZE, **BRIEF)
    policy = LLMPolicy(env.observation_space, env.action_space, lambda _: 1e-4, **cloned.policy_kwargs)
    kept = [maze_demos[place] for place in split(maze_demos, 0.2, 0)[1]]
    encoded = torch.from_numpy(np.stack([env.text_space.encode(demo.observation) for demo in kept]))
    with torch.no_grad():
        log_probs = policy.action_log_probs(policy.render(encoded))
    said = torch.tensor([policy.phrases.index(demo.phrase) for demo in kept])
    assert cloned.after is not None
    assert log_probs[range(len(kept)), said].mean().item() == pytest.approx(cloned.after.mean_log_prob, abs=1e-5)
    assert (log_probs.argmax(1) == said).float().mean().item() == pytest.approx(cloned.after.accuracy)
    pupil = Pupil(Lesson(kept), complete({**cloned.policy_kwargs}), 1e-4, 0, "cpu")  # type: ignore[typeddict-item]
    torch.testing.assert_close(pupil.log_probs(range(len(kept))), log_probs, atol=1e-5, rtol=0)


def test_the_folder_holds_a_plain_model_and_its_report(cloned: CloneReport) -> None:
    names = {each.name for each in Path(cloned.folder).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "clone.json"} <= names
    assert not any("state" in name or name.endswith((".new", ".part")) for name in names)
    found = json.loads((Path(cloned.folder) / "clone.json").read_text(encoding="utf-8"))
    assert found["run"]["epochs"] == 4
    assert found["report"]["after"]["accuracy"] == cloned.after.accuracy  # type: ignore[union-attr]


def test_a_finished_clone_is_not_made_again(cloned: CloneReport, maze_demos: list[Demo], small_folder: str) -> None:
    weights = Path(cloned.folder) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    options: dict[str, Any] = {"epochs": 4, "lr": 3e-3, "batch": 12, "held_out": 0.2, "template": "{observation}\nGo:"}
    assert clone(small_folder, maze_demos, cloned.folder, **options) == cloned
    with pytest.raises(SetupError, match=r"holds a clone made with \{'epochs': 4\}, for one with \{'epochs': 6\}"):
        clone(small_folder, maze_demos, cloned.folder, **options | {"epochs": 6})
    with pytest.raises(SetupError, match="'demos'"):
        clone(small_folder, maze_demos[:-1], cloned.folder, **options)
    assert weights.stat().st_mtime_ns == before


# --- cloning: interrupted, adapters, phrases of each line


@pytest.mark.parametrize("finetune", ["full", "top:1", "lora"])
def test_an_interrupted_clone_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maze_demos: list[Demo], small_folder: str, finetune: str
) -> None:
    demos, step = maze_demos[:24], cloning._step
    options: dict[str, Any] = {"epochs": 2, "lr": 1e-3, "finetune": finetune, "batch": 4, "save_every": 3}
    options |= {"seed": 1, "held_out": 0.3, "progress": False}
    whole = clone(small_folder, demos, tmp_path / "whole", **options)
    for stop in (1, 7):  # Ctrl-C in the middle of a step

        def interrupted(pupil: Pupil, plan: cloning.Plan, number: int, stop: int = stop) -> float:
            if number == stop:
                pupil.loss([0]).backward()
                raise KeyboardInterrupt
            return step(pupil, plan, number)

        monkeypatch.setattr(cloning, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clone(small_folder, demos, tmp_path / "stopped", **options)
        assert not (tmp_path / "stopped" / "model.safetensors").exists()
    with pytest.raises(SetupError, match=r"for one with \{'lr': 0\.1\}"):
        clone(small_folder, demos, tmp_path / "stopped", **options | {"lr": 0.1})
    monkeypatch.setattr(cloning, "_step", step)
    again = clone(small_folder, demos, tmp_path / "stopped", **options)
    assert (again.before, again.after, again.steps) == (whole.before, whole.after, whole.steps)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]
    assert weights[0] != (Path(small_folder) / "model.safetensors").read_bytes()


def test_lines_without_phrases_choose_among_all_in_the_file_and_chinese_is_learnt(
    tmp_path: Path, small_folder: str
) -> None:
    demos = [Demo(f"前面有门 {n}。", "开门", None) for n in range(6)] + [Demo("墙。", "左转", ("左转", "右转"))] * 6
    report = clone(small_folder, demos, tmp_path / "out", epochs=8, lr=3e-3, batch=4, held_out=0, progress=False)
    assert (report.before, report.after, report.held_out_lines) == (None, None, 0)
    space = TextSpace(64)
    policy = LLMPolicy(space, PhraseSpace(["开门", "左转", "右转"]), lambda _: 1e-4, model=report.folder)
    obs = torch.from_numpy(np.stack([space.encode(text) for text in ("前面有门 9。", "墙。")]))
    probabilities = policy.action_log_probs(policy.render(obs)).exp()
    assert probabilities.argmax(dim=1).tolist()[0] == 0
    assert probabilities[1, 1] > probabilities[1, 2]


def test_weights_that_burst_stop_it_with_advice(tmp_path: Path, small_folder: str) -> None:
    demos = [Demo("A wall.", "drop", ("drop", "go")), Demo("A door.", "go", ("drop", "go"))] * 3
    with pytest.raises(cloning.TrainingStopped, match=r"step \d+ of 60: .*with a smaller lr than 1e\+30"):
        clone(small_folder, demos, tmp_path / "out", epochs=20, lr=1e30, batch=2, held_out=0, progress=False)
