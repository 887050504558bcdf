"""Controls of the zero-shot table: the same stories as numbers, and networks that learn from them."""

import json
import zlib
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from sb3_llm.benchmarks.controls.cloning import Schedule, clone_network, examine, hold_out, kept_network
from sb3_llm.benchmarks.controls.networks import NETWORKS, as_image
from sb3_llm.benchmarks.controls.numbers import ACTIONS, GRID, MAZE, PLANES, CommonNumbers, spread
from sb3_llm.benchmarks.controls.playing import ClonedPlayer, play_network
from sb3_llm.benchmarks.controls.replay import CODE, FOLDERS, Demonstrations, choices_digest, files, gather, replay
from sb3_llm.benchmarks.controls.tasks import tasks_named
from sb3_llm.describe.actions import KEYS
from sb3_llm.errors import SetupError
from sb3_llm.numeric import make_numeric_env
from sb3_llm.pretrain.corpus import digest, tell_stories
from sb3_llm.pretrain.sources import SAYINGS, Source
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.wording import default_wording

SMALL = Schedule(rates=(1e-3, 1e-6), epochs=4, patience=2)
MAZES = Source("sb3_llm/Maze-v0", 1.0, {"size": 4, "generator": "dfs", "split": "train"})
GRIDS = Source("sb3_llm/MiniGridMaze-v0", 1.0, {"size": 2, "generator": "dfs", "split": "train"})
SAYING_DONE = Source("sb3_llm/Rooms-v0", 1.0, {"kind": "gotodone"})
BY_BOT = Source("BabyAI-GoToRedBall-v0", 1.0, use_bot=True)


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
    env = CommonNumbers(gymnasium.make(source.env_id, **source.env_kwargs))
    for number, (_, story) in enumerate(islice(replay(source, 1000, seed=0), 2)):
        assert len(story.choices) > 5
        numbers = env.reset(seed=_first_seed(source) + number)[0]
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
    found, n_lines = gather(GRID, 300, sources=(GRIDS, MAZES)), round(300 * (1 - sum(SAYINGS.values())) / 2)
    cue = DEFAULT_TEMPLATE.partition("{observation}")[2]
    chosen = [line for line in tell_stories(GRIDS, n_lines, seed=0)[0] if line.prompt.endswith(cue)]
    assert len(found) == len(chosen) < n_lines  # plans and questions are lines as well
    assert found.inputs.dtype == np.float16
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
    image = as_image(numbers, PLANES[GRID])[0]
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


def test_training_stops_and_goes_back_to_its_best(
    demonstrations: Demonstrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def scripted(network: nn.Module, *_: Any) -> tuple[float, float]:
        seen.append(next(network.parameters()).detach().clone())
        return (0.9, 0.5, 0.6, 0.7)[len(seen) - 1], 0.0

    monkeypatch.setattr("sb3_llm.benchmarks.controls.cloning.examine", scripted)
    few = Schedule(rates=(1e-3,), epochs=9, patience=2)
    network, report = clone_network("mlp", GRID, demonstrations, few)
    assert (len(seen), report["tried"][0]["epochs"]) == (4, 2)
    assert torch.equal(next(network.parameters()), seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_networks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "__defaults__", (0, (GRIDS, MAZES)))
    first, report = kept_network(tmp_path, "mlp", MAZE, 200, SMALL)
    monkeypatch.setattr("sb3_llm.benchmarks.controls.cloning.clone_network", None)  # nothing is cloned again
    again, same = kept_network(tmp_path, "mlp", MAZE, 200, SMALL)
    assert report == same
    for mine, theirs in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(TypeError, match="NoneType"):
        kept_network(tmp_path, "mlp", MAZE, 200, Schedule(epochs=1))  # unless it is to be cloned differently


def test_other_choices_are_gathered_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = choices_digest()
    assert all(files(pattern) for pattern in CODE)
    monkeypatch.setitem(FOLDERS, "envs", tmp_path)
    found = [choices_digest()]
    for code in ("a = 1", "import os\na = 1  # the same", "a = 2"):
        (tmp_path / "rooms.py").write_text(code)
        found.append(choices_digest())
    assert found[1] == found[2]
    assert len({before, *found}) == 4
    monkeypatch.setattr("sb3_llm.benchmarks.controls.replay.SOURCES", (GRIDS,))
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
