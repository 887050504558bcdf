"""The zero-shot table and its controls: the same episodes for all, and the same stories as numbers."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from minigrid.utils.baby_ai_bot import BabyAIBot
from torch import nn
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.controls.cloning import Schedule, clone_network, examine, hold_out, kept_network
from benchmarks.controls.networks import NETWORKS, Cnn
from benchmarks.controls.numbers import ACTIONS, GRID, MAZE, PLANES, CommonNumbers, spread
from benchmarks.controls.playing import (
    FIRST_SEED,
    ClonedPlayer,
    RandomPlayer,
    fresh_weights,
    play_expert,
    play_lm,
    play_model,
    play_network,
    play_random,
    side_by_side,
)
from benchmarks.controls.replay import CODE, ROOT, Demonstrations, choices_digest, gather, replay
from benchmarks.controls.results import Results, table, wordings_table
from benchmarks.controls.tasks import TASKS, TWINS, WORDED, Task, tasks_named
from benchmarks.zeroshot import OTHER_WORDS, Words, model_digest
from sb3_llm import make_env
from sb3_llm.describe.actions import KEYS
from sb3_llm.errors import SetupError
from sb3_llm.language_model import load_language_model
from sb3_llm.numeric import make_numeric_env
from sb3_llm.pretrain.corpus import digest, tell_stories
from sb3_llm.pretrain.sources import Source
from sb3_llm.words.wording import default_wording

SMALL = Schedule(rates=(1e-3, 1e-6), epochs=4, patience=2)
MAZES = Source("sb3_llm/Maze-v0", 1.0, {"size": 4, "generator": "dfs", "split": "train"})
GRIDS = Source("sb3_llm/MiniGridMaze-v0", 1.0, {"size": 2, "generator": "dfs", "split": "train"})
SAYING_DONE = Source("sb3_llm/Rooms-v0", 1.0, {"kind": "gotodone"})
BY_BOT = Source("BabyAI-GoToRedBall-v0", 1.0, use_bot=True)


# --- tasks


def test_tasks_are_held_out_and_named_once() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS) == 17 + 4 + 5
    assert set(WORDED) | set(TWINS) <= {task.name for task in TASKS}
    for source in ("BabyAI-GoToLocal-v0", "sb3_llm/Rooms-v0"):
        with pytest.raises(SetupError, match="the corpus may not hold"):
            Task("a source", source, 0.9)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_can_be_made_and_has_its_own_limit(task: Task) -> None:
    env = make_env(task.env_id, **task.env_kwargs)
    env.reset(seed=FIRST_SEED)
    if task.env_id == "sb3_llm/Maze-v0":
        kwargs = task.env_kwargs
        assert env.spec is not None
        assert (env.spec.max_episode_steps, kwargs["split"]) == (4 * kwargs["size"] ** 2, "test")
    assert task.level is None or BabyAIBot(_reset(task.level if task.name in TWINS else task.env_id, task))


def _reset(env_id: str, task: Task) -> Any:
    env = make_env(env_id, **task.env_kwargs)
    env.reset(seed=FIRST_SEED)
    return env.unwrapped


def test_tasks_by_name_in_the_tables_order() -> None:
    assert [task.name for task in tasks_named("FourRooms, Empty-8x8")] == ["Empty-8x8", "FourRooms"]
    assert tasks_named(None) == list(TASKS)
    with pytest.raises(SetupError, match=r"\['Emty-8x8'\]"):
        tasks_named("Emty-8x8,FourRooms")


# --- the same episodes


class Seeds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Notes which episodes are begun, and how many steps are made."""

    def __init__(self, begun: list[int | None], steps: list[int]) -> None:
        super().__init__(make_env("MiniGrid-Empty-8x8-v0", max_steps=5, history=0))
        self.begun, self.steps = begun, steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.begun.append(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.steps.append(action)
        return super().step(action)


@pytest.mark.parametrize("episodes", [3, 20, 47])
def test_each_episode_is_played_once(episodes: int) -> None:
    begun: list[int | None] = []
    steps: list[int] = []
    env = side_by_side(lambda: Seeds(begun, steps), episodes)
    found = play_model(RandomPlayer(env.action_space.n), env, episodes, "empty")  # type: ignore[attr-defined]
    assert sorted(begun) == list(range(FIRST_SEED, FIRST_SEED + episodes))  # type: ignore[type-var]
    assert found["episodes"] == episodes
    assert len(steps) == round(found["mean_length"] * episodes)  # whoever has no episode left stands still


def test_a_policy_without_tuning_plays_the_same_again() -> None:
    task = Task("short", "MiniGrid-PutNear-6x6-N2-v0", 0.5, {"max_steps": 6})
    first, again = (play_lm(task, 3, "embedded", Words(), "putnear") for _ in range(2))
    assert first == again
    assert (first["policy"], first["episodes"]) == ("sampled", 3)


@pytest.mark.parametrize("words", OTHER_WORDS, ids=str)
def test_other_words_can_be_played(words: Words) -> None:
    env = make_env("MiniGrid-Fetch-5x5-N2-v0", wording=words.wording, language=words.language)
    env.reset(seed=FIRST_SEED)
    canonical = make_env("MiniGrid-Fetch-5x5-N2-v0")
    canonical.reset(seed=FIRST_SEED)
    assert env.text != canonical.text


def test_experts_and_random() -> None:
    bot = play_expert(tasks_named("BALROG-open")[0], 2, use_bot=True, title="open")
    assert (bot["success"], bot["policy"], bot["env_id"]) == (1.0, "bot", "sb3_llm/Balrog-v0")
    twin = play_expert(tasks_named("UnlockPickup")[0], 1, use_bot=True, title="twin")
    assert (twin["success"], twin["env_id"]) == (1.0, "BabyAI-UnlockPickup-v0")
    task = tasks_named("GoToDoor-5x5")[0]
    expert = play_expert(task, 3, use_bot=False, title="gotodoor")
    assert (expert["success"], expert["broken"], expert["policy"]) == (1.0, 0, "planner")
    assert expert["mean_length"] < play_random(tasks_named("Empty-8x8")[0], 3, "empty")["mean_length"]


def test_an_expert_that_breaks_loses() -> None:
    broken = Task("no level", "MiniGrid-Empty-8x8-v0", 0.9)  # the bot asks for instructions, and there are none
    found = play_expert(broken, 2, use_bot=True, title="broken")
    assert (found["success"], found["broken"]) == (0.0, 2)


# --- the same stories


@pytest.mark.parametrize("source", [MAZES, SAYING_DONE, BY_BOT], ids=["maze", "done", "bot"])
def test_replayed_stories_are_the_corpus(source: Source) -> None:
    _, manifest = tell_stories(source, 60, seed=3)
    lines, checked = [], 0
    for told, story in replay(source, 60, seed=3):
        lines += told
        words = default_wording(story.describer.language)
        for before, _, action in story.choices:
            if story.describer.wording == "canonical":
                assert told[before].completion.strip() == words.phrase(ACTIONS[story.eyes.kind][action])
                checked += 1
    assert digest(lines[:60]) == manifest["sha256"]
    assert checked > 20


@pytest.mark.parametrize(
    "source",
    [Source(each.env_id, 1.0, each.env_kwargs, detours=(0.0,)) for each in (MAZES, GRIDS)],
    ids=["maze", "grid"],
)
def test_replayed_numbers_are_those_of_playing(source: Source) -> None:
    _, story = next(iter(replay(source, 1, seed=0)))
    env = CommonNumbers(gymnasium.make(source.env_id, **source.env_kwargs))
    assert len(story.choices) > 5
    numbers = env.reset(seed=_first_seed(source))[0]
    for _, told, action in story.choices:
        np.testing.assert_array_equal(told, numbers.astype(np.float16))
        numbers = env.step(action)[0]


def _first_seed(source: Source) -> int:
    """As the corpus numbers its stories."""
    return zlib.crc32(json.dumps(asdict(source), sort_keys=True).encode()) % 2**31


def test_done_is_learned_without_being_asked_for() -> None:
    said = {}
    for _, story in replay(SAYING_DONE, 400, seed=0):
        if story.choices[-1][2] == KEYS.index("done"):
            said[story.plain] = story.choices[-1][1].tobytes()
    assert set(said) == {False, True}  # as in GoToObject, whose mission does not say so


def test_gathering_counts_the_corpus_lines() -> None:
    found = gather(GRID, 300, sources=(GRIDS, MAZES))
    assert found.inputs.dtype == np.float16
    assert 110 < len(found) <= round(300 * 0.945 / 2)  # plans and questions are lines as well
    assert len(np.unique(found.stories)) > 3
    assert gather(MAZE, 300, sources=(GRIDS, MAZES)).inputs.shape[1] != found.inputs.shape[1]


# --- numbers


def test_numbers_are_the_baselines_with_every_action() -> None:
    mine = CommonNumbers(gymnasium.make("MiniGrid-DoorKey-6x6-v0"))
    plain = make_numeric_env("MiniGrid-DoorKey-6x6-v0", history="summary")
    (ours, _), (theirs, _) = mine.reset(seed=5), plain.reset(seed=5)
    for action in (0, 2, 3, 1):
        ours, theirs = mine.step(action)[0], plain.step(action)[0]
    past = 49 * 20 + 4 + 64
    assert (ours[:past] == theirs[:past]).all()
    assert (ours[past + 14 :] == theirs[past + 12 :]).all()
    assert ours[past : past + 14].nonzero()[0].tolist() == [3, 7 + 1]
    assert mine.offered == (0, 1, 2, 3, 4, 5)
    assert CommonNumbers(gymnasium.make("MiniGrid-GoToDoor-5x5-v0")).offered == tuple(range(7))


def test_mazes_of_all_sizes_have_one_layout() -> None:
    small, large = (CommonNumbers(gymnasium.make("sb3_llm/Maze-v0", size=size)) for size in (3, 8))
    (few, _), (many, _) = small.reset(seed=0), large.reset(seed=0)
    assert few.shape == many.shape == small.observation_space.shape
    view, way = 49 * 6, 49 * 6 + 20 + 38
    assert few[view : view + 20].nonzero()[0].tolist() == many[view : view + 20].nonzero()[0].tolist() == [0, 10]
    np.testing.assert_allclose(few[way : way + 2], [0.2, 0.2])
    np.testing.assert_allclose(many[way : way + 2], [0.7, 0.7])
    offsets = [numbers[view + 20 : way].nonzero()[0].tolist() for numbers in (few, many)]
    assert offsets == [[9 + 2, 19 + 9 + 2], [9 + 7, 19 + 9 + 7]]  # nothing stands for two distances
    assert (spread(few[: 49 * 6 + 2 * 3 + 2 * 5], 3)[:view] == few[:view]).all()


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("MiniGrid-Dynamic-Obstacles-5x5-v0", {}), ("CartPole-v1", {}), ("sb3_llm/Maze-v0", {"view": "full"})],
)
def test_worlds_without_a_layout(env_id: str, options: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match="seen in part"):
        CommonNumbers(gymnasium.make(env_id, **options))


def test_the_convolutions_see_the_view() -> None:
    env = CommonNumbers(gymnasium.make("MiniGrid-DoorKey-6x6-v0"))
    numbers = torch.from_numpy(env.reset(seed=1)[0])[None]
    image = Cnn(GRID, numbers.shape[1]).image(numbers)[0]
    planes = [part.argmax(0).numpy() for part in image.split(PLANES[GRID])]
    np.testing.assert_array_equal(np.stack(planes, -1), env.numeric.state["image"])


# --- networks


@pytest.fixture(scope="module")
def demonstrations() -> Demonstrations:
    return gather(GRID, 900, sources=(GRIDS,))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_learn_and_the_best_epoch_is_kept(name: str, demonstrations: Demonstrations) -> None:
    network, report = clone_network(name, GRID, demonstrations, SMALL)
    tried = report["tried"]
    assert [each["learning_rate"] for each in tried] == list(SMALL.rates)
    assert tried[0]["accuracy"] > 0.6 > tried[1]["accuracy"]
    _, held_out = hold_out(demonstrations, SMALL.seed)
    loss, accuracy = examine(network, demonstrations, held_out)
    assert (loss, accuracy) == pytest.approx((tried[0]["loss"], tried[0]["accuracy"]), abs=1e-5)
    assert 0.5e6 < report["parameters"] < 3e6
    assert report["trained_on"] + report["held_out"] == len(demonstrations)


def test_whole_stories_are_held_out(demonstrations: Demonstrations) -> None:
    train, held_out = hold_out(demonstrations, 0)
    assert len(held_out) > 10
    assert not set(demonstrations.stories[train]) & set(demonstrations.stories[held_out])
    one = Demonstrations(demonstrations.inputs[:5], demonstrations.actions[:5], np.zeros(5, np.int32))
    with pytest.raises(SetupError, match="at least two stories"):
        hold_out(one, 0)


def test_training_stops_when_it_gets_no_better(demonstrations: Demonstrations) -> None:
    stopped = clone_network("mlp", GRID, demonstrations, Schedule(rates=(0.0,), epochs=9, patience=2))[1]
    assert stopped["tried"][0]["epochs"] == 1


def test_networks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "__defaults__", (0, (GRIDS, MAZES)))
    first, report = kept_network(tmp_path, "mlp", MAZE, 200, SMALL)
    monkeypatch.setattr("benchmarks.controls.cloning.clone_network", None)  # nothing is cloned again
    again, same = kept_network(tmp_path, "mlp", MAZE, 200, SMALL)
    assert report == same
    for mine, theirs in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(TypeError, match="NoneType"):
        kept_network(tmp_path, "mlp", MAZE, 200, Schedule(epochs=1))  # unless it is to be cloned differently


def test_other_choices_are_gathered_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = choices_digest()
    assert all(list(ROOT.glob(pattern)) for pattern in CODE)
    monkeypatch.setattr("benchmarks.controls.replay.ROOT", tmp_path)
    (tmp_path / "envs").mkdir()
    found = [choices_digest()]
    for code in ("a = 1", "a = 1  # the same", "a = 2"):
        (tmp_path / "envs" / "rooms.py").write_text(code)
        found.append(choices_digest())
    assert found[1] == found[2]
    assert len({before, *found}) == 4
    monkeypatch.setattr("benchmarks.controls.replay.SOURCES", (GRIDS,))
    assert choices_digest() != found[3]


class Longing(nn.Module):
    """Wants to be done, and else to open."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 40.0, 80.0]).expand(len(inputs), -1)


def test_a_network_chooses_among_what_is_offered() -> None:
    seen = np.zeros((4, 3), np.float32)
    assert ClonedPlayer(Longing(), range(7)).predict(seen)[0].tolist() == [6] * 4
    assert ClonedPlayer(Longing(), range(6)).predict(seen)[0].tolist() == [5] * 4
    doubtful = np.zeros((4000, 3), np.float32)
    even = ClonedPlayer(nn.Linear(3, 7), range(6))
    nn.init.zeros_(even.network.weight)  # type: ignore[arg-type]
    nn.init.zeros_(even.network.bias)  # type: ignore[arg-type]
    chosen = np.bincount(even.predict(doubtful)[0], minlength=7) / 4000
    np.testing.assert_allclose(chosen, [1 / 6] * 6 + [0], atol=0.03)  # sampled, not greedy


def test_a_network_plays() -> None:
    task = tasks_named("PutNear-6x6-N2")[0]
    found = play_network(task, 2, Longing(), "putnear")
    assert (found["episodes"], found["success"], found["mean_length"]) == (2, 0.0, 30.0)


# --- the table


def test_fresh_weights_are_of_the_same_shape(tmp_path: Path) -> None:
    torch.manual_seed(5)
    folders = [fresh_weights("embedded", tmp_path / name) for name in ("a", "b")]
    assert model_digest(folders[0]) == model_digest(folders[1]) != model_digest("embedded")
    assert model_digest("gpt2") == "gpt2"
    (mine, tokenizer), (theirs, other) = (load_language_model(each) for each in (folders[0], "embedded"))
    assert tokenizer.get_vocab() == other.get_vocab()
    for (name, weight), read in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert weight.shape == read.shape
        assert "norm" in name or not torch.allclose(weight, read, atol=1e-2)


def entry(success: float) -> dict[str, Any]:
    return {"success": success, "success_interval": (success - 0.1, success + 0.05), "made_with": {}}


def test_tables(tmp_path: Path) -> None:
    results, tasks = Results(tmp_path / "r.json"), tasks_named("FourRooms,LockedRoom")
    results.found["tasks"] = {"FourRooms": {"lm": entry(0.6), "random": entry(0.7), "lm, zh": entry(0.3)}}
    assert table(results, tasks, ["lm", "random"]).split("\n")[2:] == [
        "| FourRooms | .60 | **.60** [.50, .65] | .70 [.60, .75] |",
        "| LockedRoom | .30 |  |  |",
    ]
    results.found["tasks"]["LockedRoom"] = {"lm": entry(0.29), "lm, zh": entry(0.1)}
    assert "| LockedRoom | .30 | .29 [.19, .34] |" in table(results, tasks, ["lm", "random"])
    assert wordings_table(results, tasks, ["lm, zh"]).split("\n")[2:] == [
        "| FourRooms | .60 [.50, .65] | .30 (50%) |",
        "| LockedRoom | .29 [.19, .34] | .10 (34%) |",
    ]


def test_the_command_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "found" / "r.json"
    arguments = ["zeroshot", "--rows", "expert,random", "--tasks", "PutNear-6x6-N2,BALROG-goto", "--json", str(path)]
    result = CliRunner().invoke(app, [*arguments, "--episodes", "2"])
    assert result.exit_code == 0, result.exception
    assert "| PutNear-6x6-N2 | .50 | 1.00 [.34, 1.00] |" in result.stdout
    kept = json.loads(path.read_text())
    kept["tasks"]["PutNear-6x6-N2"]["expert"]["success"] = 0.123
    path.write_text(json.dumps(kept))
    assert "| .12 [.34, 1.00]" in CliRunner().invoke(app, [*arguments, "--episodes", "2"]).stdout
    again = CliRunner().invoke(app, [*arguments, "--episodes", "3"])
    assert "| PutNear-6x6-N2 | .50 | 1.00 [.44, 1.00] |" in again.stdout
    rows = json.loads(path.read_text())["tasks"]["BALROG-goto"]
    assert {row["made_with"]["first_seed"] for row in rows.values()} == {1_000_000}


@pytest.mark.parametrize(("option", "given"), [("--rows", "lm,mpl"), ("--tasks", "Maze")])
def test_unknown_names(option: str, given: str) -> None:
    result = CliRunner().invoke(app, ["zeroshot", option, given])
    assert isinstance(result.exception, SetupError)
    assert given.rpartition(",")[2] in str(result.exception)
