"""Demonstrations: files that say what is wrong with them, experts and people that play, and a model taught by them."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from sb3_llm import LLMPolicy, PhraseSpace, TextObservation, TextSpace, make_env
from sb3_llm.demos import CloneReport, Demo, clone, cloning, expert_for, play, read_demos, record, write_demos
from sb3_llm.demos.cloning import split
from sb3_llm.demos.keyboard import matching
from sb3_llm.demos.pupil import Lesson, Pupil
from sb3_llm.errors import SetupError
from sb3_llm.language_model import load_language_model
from sb3_llm.scoring import ReferenceScorer, Row
from sb3_llm.settings import complete
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm

pytestmark = pytest.mark.filterwarnings("ignore:the policy starts out")

MAZE = "sb3_llm/Maze3x3-v0"
BRIEF: dict[str, Any] = {"history": 1}  # for tiny models, whose context is short
GOOD = b'{"observation": "A wall.", "phrase": "go"}\n'
DEMOS = [
    Demo("Goal: 向前 🚪.\nNext line\u2028 \x85", "右转", ("左转", "右转"), 0, 0),
    Demo("", "go forward"),
    Demo('"quoted" \\ {observation}', "turn left", None, 3),
    Demo("A wall.", "drop", ("drop", "turn left", "done"), None, 7),
]


# --- files


def test_what_is_written_is_read_and_chinese_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "demos.jsonl"
    write_demos(path, DEMOS[:1])
    write_demos(path, DEMOS[1:])
    assert read_demos(path) == DEMOS
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 5
    assert "右转".encode() in lines[0]
    assert json.loads(lines[1]) == {"observation": "", "phrase": "go forward"}


def test_files_that_people_write_are_read(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"phrase": "go", "observation": "x", "reward": 1}\r\n\r\n \n' + GOOD.rstrip())
    assert read_demos(path) == [Demo("x", "go"), Demo("A wall.", "go")]
    write_demos(path, [Demo("y", "stop")])
    assert read_demos(path)[1:] == [Demo("A wall.", "go"), Demo("y", "stop")], "a last line without its end is kept"


BAD: dict[bytes, str] = {
    b"go forward": "'go forward', which is no JSON (Expecting value: line 1 column 1 (char 0)). Expected: one JSON",
    b'{"observation": "x", "phr': "which is no JSON (Unterminated string starting at: line 1 column 22 (char 21))",
    b"[" * 100_000: "which is no JSON (",
    b"[1, 2]": "[1, 2], which is no object. Expected: a JSON object, such as {",
    b"null": "None, which is no object",
    b'{"phrase": "go"}': "no key 'observation' among 'phrase'. Expected: the keys 'observation' and 'phrase'. To mend",
    b'{"observation": "x"}': "no key 'phrase' among 'observation'. Expected",
    b"{}": "no key 'observation' among none",
    b'{"observation": 3, "phrase": "go"}': '"observation" is 3 (int). Expected: a string. To mend it: put the words',
    b'{"observation": "x", "phrase": ["go"]}': "\"phrase\" is ['go'] (list). Expected: a string",
    b'{"observation": "x", "phrase": ""}': "\"phrase\" is bad: ''. Expected: words",
    b'{"observation": "x", "phrase": " go"}': "\"phrase\" is bad: ' go', with blanks at an end. Expected: no blanks",
    b'{"observation": "\xff", "phrase": "go"}': "byte 18 is 0xff, which is no UTF-8. Expected: UTF-8. To mend it: save",
    b'{"observation": "\\ud83d", "phrase": "go"}': '"observation" holds half a character. Expected: whole Unicode',
    b'{"observation": "a\\u0000", "phrase": "go"}': '"observation" holds the character NUL. Expected: text without',
    b'{"observation": "x", "phrase": "a\\u0000"}': '"phrase" holds the character NUL',
    b'{"observation": "x", "phrase": "go", "phrases": ["stop", "wait"]}': (
        "the phrase 'go', which is not among \"phrases\" ['stop', 'wait']. Expected: one of these. To mend it: correct"
    ),
    b'{"observation": "x", "phrase": "go", "phrases": "go"}': "\"phrases\" is bad: phrases='go'. Expected: a list",
    b'{"observation": "x", "phrase": "go", "phrases": []}': '"phrases" is bad: phrases=[]. Expected: a list of strings',
    b'{"observation": "x", "phrase": "go", "phrases": ["go", ""]}': "\"phrases\" is bad: phrase 1 is ''. Expected: w",
    b'{"observation": "x", "phrase": "go", "phrases": ["go", 1]}': '"phrases" is bad: phrase 1 is 1. Expected: words',
    b'{"observation": "x", "phrase": "go", "phrases": ["go", "go"]}': "phrases 0 and 1 are both 'go'. Expected: dis",
    b'{"observation": "x", "phrase": "go", "Phrases": ["go"]}': "the key 'Phrases'. Expected: one of 'observation', '",
    b'{"observation": "x", "phrase": "go", "episode": -1}': '"episode" is -1. Expected: a whole number, 0 or more',
    b'{"observation": "x", "phrase": "go", "step": true}': '"step" is True. Expected: a whole number, 0 or more. To',
    b'{"observation": "x", "phrase": "go", "episode": "first"}': "\"episode\" is 'first'. Expected: a whole number",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:40].decode("latin-1"))
def test_a_bad_line_is_named_with_what_it_holds(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    with pytest.raises(SetupError) as caught:
        read_demos(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert BAD[line] in str(caught.value)
    assert all(caught.value.parts)


def test_bad_lines_are_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_bytes(GOOD + b"one\n" + GOOD + b"two\nthree\n")
    with pytest.raises(SetupError, match=r"line 2: 'one', which is no JSON .* \(2 more bad lines in the file\)\. Exp"):
        read_demos(path)
    path.write_bytes(b"one\ntwo\n")
    with pytest.raises(SetupError, match=r"line 1: 'one'.*\(1 more bad line in the file\)"):
        read_demos(path)


def test_files_without_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=r"none\.jsonl \(No such file.*Expected: a file of demonstrations.*sb3-llm rec"
    ):
        read_demos(tmp_path / "none.jsonl")
    with pytest.raises(SetupError, match="Is a directory"):
        read_demos(tmp_path)
    with pytest.raises(SetupError, match="can be written"):
        write_demos(tmp_path, DEMOS)
    for content in (b"", b"\n \n"):
        (tmp_path / "empty.jsonl").write_bytes(content)
        with pytest.raises(SetupError, match=r"empty\.jsonl, which holds no line.*write lines such as"):
            read_demos(tmp_path / "empty.jsonl")


def test_a_kill_loses_at_most_the_last_line(tmp_path: Path) -> None:
    whole, demos, new = tmp_path / "whole.jsonl", [Demo("墙", "走过去"), Demo("门", "停一停")], Demo("", "x")
    write_demos(whole, demos)
    data = whole.read_bytes()
    first = data.index(b"\n") + 1
    for cut in range(len(data)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:cut])
        write_demos(path, [new])
        kept = [demos[number] for number, end in enumerate((first - 1, len(data) - 1)) if cut >= end]
        assert read_demos(path) == [*kept, new], cut


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip", b"a,b\n1,2\n", b'{"episodes": 3}\n', GOOD + b"and notes"])
def test_files_of_other_kinds_are_never_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(SetupError, match="is no demonstration"):
        write_demos(path, DEMOS)
    assert path.read_bytes() == content


def test_nothing_is_written_if_one_is_bad(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="demonstration 2: the phrase 'go', which is not among"):
        write_demos(tmp_path / "new.jsonl", [DEMOS[0], Demo("x", "go", ("stop",))])
    assert not (tmp_path / "new.jsonl").exists()


# --- experts


@pytest.mark.parametrize(
    ("env_id", "use_bot"), [(MAZE, False), ("BabyAI-GoToLocal-v0", True), ("MiniGrid-DoorKey-5x5-v0", False)]
)
def test_an_expert_can_be_replayed_from_its_record(tmp_path: Path, env_id: str, use_bot: bool) -> None:
    env, path = make_env(env_id), tmp_path / "demos.jsonl"
    found = record(env, expert_for(env, use_bot), 3, 5, path, progress=False)
    demos = read_demos(path)
    assert (found.kept, found.lines, found.failed, found.hung, found.broken) == (3, len(demos), 0, 0, 0)
    for episode in range(3):
        env.reset(seed=5 + episode)
        mine = [demo for demo in demos if demo.episode == episode]
        assert [demo.step for demo in mine] == list(range(len(mine)))
        for demo in mine:
            assert (demo.observation, demo.phrases) == (env.text, env.phrases)
            *_, info = env.step(env.phrases.index(demo.phrase))
        assert info["is_success"]


class Sometimes:
    """The maze's expert, but in some episodes it does something else."""

    def __init__(self, env: TextObservation, instead: dict[int, Callable[[], int]]) -> None:
        self.expert: Any = expert_for(env)
        self.instead, self.episode = instead, -1

    def begin(self, env: TextObservation) -> None:
        self.episode += 1
        self.expert.begin(env)

    def __call__(self, env: TextObservation) -> int:
        return self.instead[self.episode]() if self.episode in self.instead else self.expert(env)


def hang() -> int:
    while True:
        pass


def broken() -> int:
    raise KeyError("lost")


@pytest.mark.parametrize("keep_failures", [False, True])
def test_what_is_dropped_is_counted_and_nobody_waits(tmp_path: Path, keep_failures: bool) -> None:
    env, path = make_env(MAZE, **BRIEF), tmp_path / "demos.jsonl"
    expert = Sometimes(env, {0: hang, 2: broken, 3: lambda: 0})  # north, into the wall, for ever
    start = time.monotonic()
    found = record(env, expert, 5, 0, path, seconds=0.2, max_steps=9, keep_failures=keep_failures, progress=False)
    assert time.monotonic() - start < 10
    assert (found.failed, found.hung, found.broken) == (1, 1, 1)
    assert found.kept == 2 + keep_failures
    assert found.reasons == ["no end after 0.2 s", "KeyError: 'lost'"]
    demos = read_demos(path)
    assert {demo.episode for demo in demos} == set(range(found.kept)), "numbered without gaps"
    assert sum([demo.phrase for demo in demos if demo.episode == n] == ["north"] * 9 for n in range(3)) == keep_failures


def test_episodes_are_numbered_on(tmp_path: Path) -> None:
    env, path = make_env(MAZE, **BRIEF), tmp_path / "demos.jsonl"
    write_demos(path, [Demo("x", "north", None, 6), Demo("x", "north")])
    path.write_bytes(path.read_bytes() + b'{"observation": "cut by a ki')
    record(env, expert_for(env), 2, 0, path, progress=False)
    demos = read_demos(path)
    assert {demo.episode for demo in demos[2:]} == {7, 8}
    assert demos[2].observation.startswith("Goal: reach the goal")


def test_what_can_not_be_recorded(tmp_path: Path) -> None:
    env, path = make_env(MAZE, **BRIEF), tmp_path / "demos.jsonl"
    cart = TextObservation(gymnasium.make("CartPole-v1"))
    with pytest.raises(SetupError, match=r"2 episodes of which none .*\(0 without .* 2 with one that broke: KeyError"):
        record(env, lambda env: broken(), 2, 0, path, progress=False)
    with pytest.raises(SetupError, match="action 4 where the present state offers 4 phrases"):
        record(env, lambda env: 4, 2, 0, path, progress=False)
    with pytest.raises(SetupError, match="returned 'north'"):
        record(env, lambda env: "north", 2, 0, path, progress=False)  # type: ignore[arg-type, return-value]
    with pytest.raises(SetupError, match=r"without info\['is_success'\].*keep_failures"):
        record(cart, lambda env: 0, 2, 0, path, progress=False)
    with pytest.raises(SetupError, match="write an expert of your own"):
        expert_for(cart)
    with pytest.raises(SetupError, match="Expected: a BabyAI level"):
        expert_for(make_env("MiniGrid-DoorKey-5x5-v0"), use_bot=True)
    with pytest.raises(SetupError, match="an environment of type TimeLimit"):
        record(cart.env, lambda env: 0, 2, 0, path)  # type: ignore[arg-type]
    good: dict[str, Any] = {"env": env, "expert": lambda env: 0, "episodes": 1, "seed": 0, "path": path}
    bad: list[dict[str, Any]] = [{"episodes": 0}, {"seed": -1}, {"seconds": 0}, {"max_steps": True}, {"expert": 3}]
    for options in bad:
        with pytest.raises(SetupError, match=next(iter(options))):
            record(**good | options)
    assert not path.exists()
    assert record(cart, lambda env: 0, 1, 0, path, keep_failures=True, progress=False).kept == 1


# --- by hand


class Script:
    """A person who types what was written down before."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines, self.shown = list(lines), list[str]()

    def read(self, prompt: str) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


def solution(seed: int) -> list[int]:
    """How the expert solves a maze: indices of actions."""
    env = make_env(MAZE, **BRIEF)
    expert: Any = expert_for(env)
    env.reset(seed=seed)
    expert.begin(env)
    actions, ended = [], False
    while not ended:
        actions.append(expert(env))
        ended = env.step(actions[-1])[2]
    return actions


@pytest.mark.parametrize("ending", [["QUIT "], []], ids=["quit", "end of input"])
def test_a_person_plays_by_numbers_phrases_and_their_starts(tmp_path: Path, ending: list[str]) -> None:
    env, path, actions = make_env(MAZE, render_mode="ansi", **BRIEF), tmp_path / "demos.jsonl", solution(4)
    ways = [lambda a: str(a + 1), lambda a: env.phrases[a], lambda a: f" {env.phrases[a][0].upper()}"]
    wrong = ["", "0", "5", "up", "nort h"]
    person = Script(wrong + [ways[n % 3](action) for n, action in enumerate(actions)] + ["x", "1", *ending])
    demos = play(env, path, seed=4, read=person.read, write=person.shown.append)
    assert [env.phrases.index(demo.phrase) for demo in demos] == actions
    assert read_demos(path) == demos, "the episode that went on is not in it"
    assert person.lines == []
    assert {demo.episode for demo in demos} == {0}
    assert sum("there is no such phrase" in each for each in person.shown) == len(wrong) + 1
    assert all(demo.observation in person.shown for demo in demos)
    assert "1 north   2 south   3 east   4 west" in person.shown
    assert any("#" in each for each in person.shown), "the drawing"
    assert person.shown[-1] == f"1 episode kept, {len(demos)} lines."


def test_unsolved_episodes_of_a_person_are_kept_on_request() -> None:
    ways = ("left", "down", "right", "up")
    lost = TextObservation(gymnasium.make("FrozenLake-v1", is_slippery=False), phrases=[f"go {way}" for way in ways])
    lost.sparse = True
    for keep in (False, True):
        person = Script(["go", "go d", "go r"] * 2)  # into the hole at row 2, column 2
        demos = play(lost, None, 2, keep_failures=keep, read=person.read, write=person.shown.append)
        assert [demo.episode for demo in demos] == [0, 0, 1, 1] * keep
        assert any("it can be go left, go down, go right, go up." in each for each in person.shown)
        assert any(f"Not solved: 2 steps, {'kept' if keep else 'dropped'}." in each for each in person.shown)


def test_what_is_meant_by_what_is_typed() -> None:
    phrases = ("go", "go back", "Go", "quit game", "12", "向前走", "向后走")
    meant = {"go": [0], "Go": [2], "go b": [1], "GO BACK": [1], "g": [0, 1, 2], "12": [4], "1": [0], "7": [6], "8": []}
    meant |= {"quit": [], "quit g": [3], "向": [5, 6], "向前": [5], "": [], "²": []}
    assert {typed: matching(typed, phrases) for typed in meant} == meant


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
