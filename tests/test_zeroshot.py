"""The zero-shot table: held-out tasks, the same episodes for whatever plays them, and what is kept of it."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from minigrid.utils.baby_ai_bot import BabyAIBot
from typer.testing import CliRunner

from sb3_llm import make_env
from sb3_llm.benchmarks.__main__ import app
from sb3_llm.benchmarks.controls.fresh import fresh_weights
from sb3_llm.benchmarks.controls.playing import (
    FIRST_SEED,
    RandomPlayer,
    play_expert,
    play_lm,
    play_model,
    play_random,
    side_by_side,
)
from sb3_llm.benchmarks.controls.results import Results, table, wordings_table
from sb3_llm.benchmarks.controls.tasks import TASKS, TWINS, WORDED, Task, tasks_named
from sb3_llm.benchmarks.zeroshot import OTHER_WORDS, Words, model_digest
from sb3_llm.errors import SetupError
from sb3_llm.language_model import load_language_model

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
    task = Task("short", "MiniGrid-GoToDoor-5x5-v0", 0.9, {"max_steps": 12})  # the phrase "open" ends it
    first, again = (play_lm(task, 8, "embedded", Words(), "gotodoor") for _ in range(2))
    assert first == again
    assert first["mean_length"] < 12
    assert (first["policy"], first["episodes"]) == ("sampled", 8)


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
    assert mine.get_parameter("model.layers.0.self_attn.k_proj.bias").any(), "laid out as before the first step"


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
