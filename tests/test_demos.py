"""Demonstrations: files that say what is wrong with them, and experts and people that play."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from sb3_llm import TextObservation, make_env
from sb3_llm.demos import Demo, expert_for, play, read_demos, record, write_demos
from sb3_llm.demos.keyboard import matching
from sb3_llm.errors import SetupError

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
    assert ". Goal: reach the goal, " in demos[2].observation


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
