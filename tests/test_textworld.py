"""TextWorld's games: what is refused, what can be seen and done, splits, files, copies; skipped where it is missing."""

import copy
import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, TextObservation, make_env
from sb3_llm.describe.textworld import describe_textworld
from sb3_llm.envs import textworld_files
from sb3_llm.envs.textworld_files import Recipe, draw_games, game_file, read_recipe, split_of, world_of
from sb3_llm.envs.textworld_games import TextWorldEnv, clean, textworld_candidates, textworld_env
from sb3_llm.errors import SetupError

played = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="needs TextWorld: pip install 'sb3_llm[textworld]'"
)
EASY = {"level": 5}  # of treasure_hunter: the games that take the least time to make


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("textworld")


@pytest.fixture
def env(cache: Path) -> Iterator[TextWorldEnv]:
    env = TextWorldEnv("treasure_hunter", games=2, cache=cache, render_mode="ansi", **EASY)
    yield env
    env.close()


# --- what is refused, with and without TextWorld


def test_without_the_package_the_error_names_extra_command_and_licence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(SetupError) as caught:
        make_env("textworld:coin_collector", cache=tmp_path / "new")
    for part in ("sb3_llm[textworld]", "pip install 'sb3_llm[textworld]'", "GNU GPL", "Linux or macOS"):
        assert part in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("zork", {}, "'zork'. Expected: one of ['coin_collector', 'treasure_hunter', 'simple', 'custom']"),
        ("coin_collector", {"level": 0}, "level=0 for TextWorld's coin_collector. Expected: 1 to 100"),
        ("coin_collector", {"level": 151}, "level=151"),
        ("coin_collector", {"level": True}, "level=True"),
        ("coin_collector", {"level": "5"}, "level='5'"),
        ("coin_collector", {"rooms": 3}, "rooms=3 for TextWorld's coin_collector. Expected: one of its settings"),
        ("treasure_hunter", {"level": 31}, "level=31"),
        ("simple", {"rewards": "rich"}, "rewards='rich'"),
        ("simple", {"goal": ["brief"]}, "goal=['brief']"),
        ("custom", {"objects": 0}, "objects=0"),
        ("coin_collector", {"split": "valid"}, "split='valid'. Expected: one of ['train', 'test', 'all']"),
        ("coin_collector", {"games": 0}, "games=0. Expected: a whole number, 1 or more"),
        ("coin_collector", {"seed": -1}, "seed=-1. Expected: a whole number, 0 or more"),
        ("coin_collector", {"max_steps": 1.5}, "max_steps=1.5"),
        ("coin_collector", {"render_mode": "human"}, "render_mode='human'. Expected: None or 'ansi'"),
    ],
)
def test_bad_arguments_raise_before_any_game_is_made(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError) as caught:
        textworld_env(f"textworld:{name}", **options)
    assert text in str(caught.value)


def test_description_leaves_out_what_is_empty() -> None:
    obs = {"objective": "Take the coin.", "room": "Attic. A coin.", "feedback": "", "inventory": "You carry a key."}
    obs |= {"came_from": ""}
    assert describe_textworld(obs) == "Take the coin. Attic. A coin. You carry a key."
    obs |= {"feedback": "Taken.", "inventory": "You are carrying nothing."}
    assert describe_textworld(obs) == "Take the coin. Taken. Attic. A coin."
    assert (
        describe_textworld(obs | {"came_from": "east"})
        == "Take the coin. Taken. Attic. A coin. You came from the east."
    )


def test_clean_takes_prompt_status_line_and_end_away() -> None:
    assert clean("\n\n-= Attic =-\nDark.\n\n\nA coin.\n\n\n>      -= Attic =-0/4") == "Attic. Dark. A coin."
    assert clean("You win.\n\n     *** The End ***\n\nRESTART?\n>") == "You win."
    assert clean(None) == ""


# --- playing


@played
@pytest.mark.parametrize("kind", ["coin_collector", "treasure_hunter", "simple", "custom"])
def test_expert_wins_each_kind_and_the_rewards_add_up(kind: str, cache: Path) -> None:
    env = textworld_env(f"textworld:{kind}", split="all", games=1, cache=cache)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space
    assert not re.search("north|south|east|west", obs["objective"])  # it spells out no way
    total, terminated = 0.0, False
    for command in env.expert_commands():
        assert command in textworld_candidates(obs, info)
        assert not terminated
        obs, reward, terminated, truncated, info = env.step(command)
        total += reward
        assert (type(reward), type(terminated), truncated) == (float, bool, False)
        assert info["is_success"] is terminated
    assert terminated
    assert total == info["score"] == info["max_score"] > 0
    assert env.expert_commands() == []


@played
def test_expert_finds_back_from_a_detour(env: TextWorldEnv) -> None:
    _, info = env.reset(options={"game": 0})
    first = env.expert_commands()
    for _ in range(4):
        other = [command for command in info["admissible_commands"] if command.startswith("go")][-1]
        info = env.step(other)[4]
    again = env.expert_commands()
    assert again != first
    assert [env.step(command)[2] for command in again][-1] is True


@played
def test_came_from_leads_back(env: TextWorldEnv) -> None:
    before, info = env.reset(seed=0)
    assert before["came_from"] == ""
    for _ in range(4):
        way = next(command for command in info["admissible_commands"] if command.startswith("go"))
        after, *_, info = env.step(way)
        stayed = env.step("inventory")[0]
        assert stayed["came_from"] == after["came_from"] != before["came_from"]
        assert env.step(f"go {after['came_from']}")[0]["room"] == before["room"]
        before, *_, info = env.step(way)


@played
def test_texts_are_without_banner_status_line_and_prompt(env: TextWorldEnv) -> None:
    obs, _ = env.reset(seed=1)
    assert obs["feedback"] == ""
    seen = [obs]
    for command in env.expert_commands():
        seen.append(env.step(command)[0])
    for obs in seen:
        text = describe_textworld(obs)
        assert not re.search(r"-=|=-|[$>*|\n]|  |RESTART", text)
        assert text.startswith(obs["objective"])
        assert obs["room"] in text
        assert text.count(obs["room"]) == 1
    assert "score" in seen[-1]["feedback"]
    assert seen[-1]["inventory"] != seen[0]["inventory"] == "You are carrying nothing."


@played
def test_candidates_are_what_changes_something(env: TextWorldEnv) -> None:
    obs, info = env.reset(seed=0)
    offered = textworld_candidates(obs, info)
    left_out = set(info["admissible_commands"]) - set(offered)
    assert offered
    assert {"look", "inventory"} <= left_out
    for command in left_out:
        after, reward, *_, info = env.step(command)
        assert reward == 0
        assert (after["room"], after["inventory"]) == (obs["room"], obs["inventory"])
        assert textworld_candidates(after, info) == offered


@played
def test_same_seed_same_games_and_numbers_leave_the_stream_alone(env: TextWorldEnv) -> None:
    games = [env.reset(seed=3)[1]["game"]] + [env.reset()[1]["game"] for _ in range(7)]
    assert len(set(games)) == 2
    again = [env.reset(seed=3)[1]["game"]]
    assert env.reset(options={"game": 1})[1]["game"] == world_of(env.games[1])[:16]
    assert games == again + [env.reset()[1]["game"] for _ in range(7)]


@played
def test_max_steps_truncates_and_what_cannot_be_done_raises(cache: Path) -> None:
    env = TextWorldEnv("treasure_hunter", games=1, max_steps=2, cache=cache, **EASY)
    with pytest.raises(SetupError, match="call reset"):
        env.step("look")
    env.reset(seed=0)
    with pytest.raises(SetupError, match=r"'dance'\. Expected: one of the admissible commands"):
        env.step("dance")
    assert env.step("look")[2:4] == (False, False)
    *_, terminated, truncated, info = env.step("look")
    assert (terminated, truncated, info["is_success"]) == (False, True, False)
    with pytest.raises(SetupError, match="call reset"):
        env.step("look")
    assert env.expert_commands() == []
    for options in ({"game": 1}, {"game": True}, {"game": -1}, {"level": 1}):
        with pytest.raises(SetupError, match="game"):
            env.reset(options=options)


@played
def test_ansi_shows_command_and_room(env: TextWorldEnv) -> None:
    obs, _ = env.reset(seed=0)
    assert env.render().split("\n") == [obs["objective"], obs["room"], obs["inventory"]]
    obs = env.step("inventory")[0]
    assert env.render().split("\n")[0] == "> inventory"
    assert obs["feedback"] in env.render()


@played
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_play_on_alike(env: TextWorldEnv, copied: Any) -> None:
    env.reset(seed=2)
    commands = env.expert_commands()
    env.step(commands[0])
    twin = copied(env)
    for command in [*commands[1:]]:
        assert env.step(command) == twin.step(command)
    assert env.reset()[0] == twin.reset()[0]
    assert copied(env.unwrapped).number == env.number
    env.close()
    env.close()
    assert copied(env).reset(seed=0) == env.reset(seed=0)


# --- files and splits


@played
def test_splits_share_no_world_and_files_are_made_once(cache: Path) -> None:
    recipe = read_recipe("treasure_hunter", EASY)
    paths = {split: draw_games(recipe, split, 2, 0, cache) for split in ("train", "test")}
    worlds = {split: [world_of(path) for path in found] for split, found in paths.items()}
    assert [split_of(world) for world in worlds["train"] + worlds["test"]] == ["train"] * 2 + ["test"] * 2
    assert len({*worlds["train"], *worlds["test"]}) == 4
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert draw_games(recipe, "train", 2, 0, cache) == paths["train"]
    assert before == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert {path.suffix for path in before} == {".json", ".z8"}
    assert draw_games(recipe, "train", 1, 1, cache)[0] not in paths["train"]


@played
def test_a_game_is_the_same_wherever_it_is_made(cache: Path, tmp_path: Path) -> None:
    recipe = read_recipe("treasure_hunter", EASY)
    first, second = game_file(recipe, 7, cache), game_file(recipe, 7, tmp_path)
    assert first is not None
    assert second is not None
    assert first.name == second.name
    assert first.with_suffix(".json").read_bytes() == second.with_suffix(".json").read_bytes()
    second.with_suffix(".json").unlink()  # half of a game is none
    assert game_file(recipe, 7, tmp_path) == second
    assert second.with_suffix(".json").exists()


@played
def test_too_many_games_raise_and_say_how_many_there_are(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textworld_files, "game_seed", lambda seed, number: 7)
    recipe = read_recipe("treasure_hunter", EASY)
    with pytest.raises(SetupError, match=r"gave 1 different ones.*pass games=1, or settings that leave more choice"):
        draw_games(recipe, "all", 2, 0, cache)


@played
def test_what_textworld_cannot_make_raises(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="that TextWorld can't make"):
        game_file(Recipe("treasure_hunter", (("level", 99),)), 0, cache)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SetupError, match="pass cache= a folder you can write to"):
        TextWorldEnv(cache=file)
    env = TextWorldEnv("treasure_hunter", games=1, cache=tmp_path / "gone", **EASY)
    env.games[0].unlink()
    with pytest.raises(SetupError, match="make it anew"):
        env.reset()


# --- as text and phrases


@played
def test_text_observation_acts_by_the_phrases_offered(env: TextWorldEnv) -> None:
    text = TextObservation(env, describe_textworld, history=2, candidates=textworld_candidates, slots=16)
    obs, _ = text.reset(seed=0)
    commands = env.expert_commands()
    for command in commands:
        assert text.text_space.decode_phrases(obs) == list(text.phrases)
        assert text.action_masks().sum() == len(text.phrases)
        obs, reward, terminated, _, info = text.step(text.phrases.index(command))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)
    assert text.text.endswith(f"Last actions: {', '.join(commands[-2:])}.")
    crowded = TextObservation(
        env, describe_textworld, candidates=lambda obs, info: info["admissible_commands"], slots=2
    )
    with pytest.raises(SetupError, match="1 to 2 phrases"):
        crowded.reset(seed=0)


@played
def test_make_env_knows_the_games(env: TextWorldEnv, cache: Path) -> None:
    text = make_env("textworld:treasure_hunter", games=2, cache=cache, render_mode="ansi", level=5)
    text.reset(seed=0)
    env.reset(seed=0)
    assert text.render() == env.render()
    assert text.get_wrapper_attr("games") == env.games
    for command in env.expert_commands():
        _, reward, terminated, _, info = text.step(text.phrases.index(command))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


@played
def test_ppo_learns_a_few_steps(env: TextWorldEnv, llama_folder: Path) -> None:
    text = TextObservation(env, lambda obs: obs["room"][-60:], candidates=textworld_candidates, slots=16)
    kwargs = {"model": str(llama_folder)}
    model = PPO(
        LLMPolicy, text, n_steps=16, batch_size=16, n_epochs=1, ent_coef=0.1, device="cpu", policy_kwargs=kwargs
    )
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(32)
    assert any(
        not np.array_equal(old, new.detach()) for old, new in zip(before, model.policy.parameters(), strict=True)
    )
