"""Diary: what is written of a training, training as without it, bad arguments."""

import pickle
import random
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from sb3_llm import LLMPolicy, TextObservation, make_env
from sb3_llm.demos import expert_for
from sb3_llm.diary import Diary
from sb3_llm.diary.pages import episode_page, plain, probe_page, quoted
from sb3_llm.diary.playing import Episode
from sb3_llm.errors import SetupError
from tests.test_policy import Follow
from tests.watching import TRAININGS, drop, follow, paths_env, train

SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0}
MAZE, DOOR = "sb3_llm/Maze3x3-v0", "MiniGrid-DoorKey-5x5-v0"


def told(env: TextObservation) -> int:
    """An expert of the user's own: do as the text says."""
    return int(env.state[0])


# --- what is written


def read_board(folder: Path) -> tuple[EventAccumulator, Callable[[str], list[tuple[int, str]]]]:
    board = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0}).Reload()

    def texts(tag: str) -> list[tuple[int, str]]:
        found = board.Tensors(f"{tag}/text_summary")
        return [(each.step, each.tensor_proto.string_val[0].decode()) for each in found]

    return board, texts


def test_tensorboard_has_probes_episodes_and_agreement(gpt2_folder: Path, tmp_path: Path) -> None:
    diary = Diary(follow, every=2, probes=2, expert=told)
    model = train(gpt2_folder, diary, env=follow, steps=160, logged=tmp_path)
    board, texts = read_board(tmp_path)
    looks = [0, 64, 128, 160]  # before the first update, after two and four, and after the fifth
    for tag in ("diary/probe/0", "diary/probe/1", "diary/episode/0", "diary/episode/1"):
        assert [step for step, _ in texts(tag)] == looks
    for tag in ("diary/agreement", "diary/agreement_probability"):
        assert [each.step for each in board.Scalars(tag)] == looks
    assert [each.step for each in board.Images("diary/probes")] == looks[1:]
    # The last page tells what the trained policy says now.
    prompt, *_ = diary.probing.questions[0]
    with torch.no_grad():
        (now,), (base,) = (
            ask([prompt]).exp().tolist() for ask in (model.policy.action_log_probs, model.policy.base_log_probs)
        )
    page = texts("diary/probe/0")[-1][1]
    before = diary.probing.history[-2][1][0]
    assert page.startswith(quoted(prompt))
    for phrase, mine, theirs, last in zip(Follow.phrases, now, base, before, strict=True):
        assert f"| {phrase} | {mine:.3f} | {theirs:.3f} | {round(mine - last, 3) + 0.0:+.3f} |" in page
    # So does the last episode, step by step.
    episode = diary.played[0]
    page = texts("diary/episode/0")[-1][1]
    assert page == episode_page(episode)
    assert len(episode.decisions) == page.count("\nStep ") == 8
    for decision in episode.decisions:
        assert f"> {decision.text}\n\n**{decision.phrases[decision.action]}** with probability" in page
    assert "broken off" not in page
    assert board.Scalars("diary/agreement")[-1].value == pytest.approx(diary.values["diary/agreement"])
    assert "diary/agreement" in (tmp_path / "progress.csv").read_text().partition("\n")[0]


def test_a_folder_is_enough(gpt2_folder: Path, tmp_path: Path) -> None:
    diary = Diary(follow, every=1, probes=["Do: drop.\nAction:"], folder=tmp_path / "new" / "pages", figures=True)
    train(gpt2_folder, diary, env=follow, steps=32)
    first, last = sorted((tmp_path / "new" / "pages").glob("*.md"))
    page = last.read_text()
    assert (first.name, last.name) == ("000000000.md", "000000032.md")
    assert page.startswith("# After 32 steps, update 1")
    assert "> Do: drop.  \n> Action:\n\n| phrase |" in page
    assert page.count("## diary/episode/") == 2
    for image in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (last.parent / image).read_bytes().startswith(b"\x89PNG")
    assert "![diary/probes]" in page
    assert "agreement" not in page, "nobody knows what is right here"


def test_without_figures_nothing_is_drawn(gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(SetupError, match=r"without matplotlib.*pip install 'sb3_llm\[benchmarks\]'"):
        Diary(follow)
    train(gpt2_folder, Diary(follow, every=1, folder=tmp_path, figures=False), env=follow)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md"}


@pytest.mark.parametrize(
    "text",
    [
        "a | b *c* _d_ `e` [f](g) <b>h</b> &lt; \\ # i",
        "<script>alert(1)</script>\n# no head\n| a | b |\n| --- | --- |",
        "~~~ 向前走! \\* ***",
        "1. one\n2) two\n- three\n\n    <i>four</i> | five\n===\n+ six\n---\n```",
    ],
)
def test_texts_are_shown_as_they_are(text: str) -> None:
    """By TensorBoard's own renderer."""

    def shown(page: str) -> str:
        return unescape(re.sub(r"<[^>]*>", "", markdown_to_safe_html(page)))

    assert shown(quoted(text)).split() == text.split()
    assert set(re.findall(r"<(\w+)", markdown_to_safe_html(quoted(text)))) <= {"blockquote", "p", "br"}
    one_line = " ".join(text.split())
    cells = re.findall(r"<td.*?>(.*?)</td>", markdown_to_safe_html(probe_page("?", [one_line, "go"], [0.25, 0.75])))
    assert unescape(re.sub(r"<[^>]*>", "", cells[0])) == one_line
    assert cells[1:] == ["0.250", "", "", "go", "0.750", "", ""]


def test_what_is_invisible_is_shown() -> None:
    assert quoted("a\x1b[31m\u202eb\rc") == "> a\u241b\\[31m\ufffdb\u240dc"


def test_a_page_says_how_an_episode_ended_and_where_an_expert_gave_up() -> None:
    assert "Seed 3: broken off, return 0.00, 0 steps." in episode_page(Episode(3))
    assert "Seed 3: no success" in episode_page(Episode(3, ended=True, success=False))
    assert f"The expert gave up: {plain('KeyError: [1]')}" in episode_page(Episode(3, lost="KeyError: [1]"))


# --- training goes on as without it


@pytest.mark.parametrize(("algorithm", "given"), [*TRAININGS, (PPO, {"value_warmup": 2}), (PPO, {"prior_kl": True})])
def test_training_is_the_same_to_the_bit(
    algorithm: Any, given: dict[str, Any], gpt2_folder: Path, tmp_path: Path
) -> None:
    change = drop if "dropout" in given else lambda policy: None
    size: dict[str, Any] = {"n_steps": 8, "steps": 32} if algorithm is TRPO else {"steps": 96}
    size |= {"ent_coef": 0.1} if "prior_kl" in given else {}
    policy_kwargs = {name: value for name, value in given.items() if name != "dropout"}
    after = []
    for callbacks in ((), (diary := Diary(follow, every=1, expert=told, folder=tmp_path, figures=False),)):
        random.seed(0)
        model = train(
            gpt2_folder, *callbacks, algorithm=algorithm, env=follow, policy_kwargs=policy_kwargs, change=change, **size
        )
        weights = [*model.policy.lm.state_dict().values(), *model.policy.value_net.state_dict().values()]
        drawn: Any = np.random.get_state()
        states = torch.random.get_rng_state(), torch.tensor(drawn[1].astype(np.int64))
        after.append((weights, states, random.random(), model.policy.training))
    assert diary.played
    for plainly, watched in zip(after[0][:2], after[1][:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plainly, watched, strict=True))
    assert after[0][2:] == after[1][2:]


def test_an_equal_policy_plays_equally(gpt2_folder: Path, tmp_path: Path) -> None:
    diary = Diary(follow, folder=tmp_path)
    model = train(gpt2_folder, diary, env=follow, learning_rate=0.0)
    first, *_, last = sorted(tmp_path.glob("*.md"))
    told_first, told_last = (path.read_text().partition("## diary/episode/0")[2] for path in (first, last))
    assert told_first == told_last
    assert not model.policy.wanting.decisions


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_phrases_that_come_with_each_observation(algorithm: Any, gpt2_folder: Path, tmp_path: Path) -> None:
    diary = Diary(cast(Any, paths_env), folder=tmp_path, expert=lambda env: [0, len(env.phrases) - 1])
    train(gpt2_folder, diary, algorithm=algorithm, env=paths_env)
    for episode in diary.played:
        for decision in episode.decisions:
            assert decision.phrases[0] == "turn left"
            assert sum(decision.probabilities) == pytest.approx(1)
            assert decision.right == {0, len(decision.phrases) - 1}


def test_goes_on_with_a_loaded_model(gpt2_folder: Path, tmp_path: Path) -> None:
    diary = Diary(follow, folder=tmp_path, expert=told)
    model = train(gpt2_folder, diary, env=follow)
    model.save(tmp_path / "model.zip")
    again: Diary = pickle.loads(pickle.dumps(diary))
    loaded = PPO.load(tmp_path / "model.zip", env=DummyVecEnv([follow] * 2))
    loaded.learn(32, callback=again, reset_num_timesteps=False)
    assert [step for step, _ in again.probing.history] == [0, 32, 32, 64]
    loaded.learn(32, callback=again)
    assert [step for step, _ in again.probing.history] == [0, 32], "another training began"


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"every": 0}, "every=0. Expected: a whole number, 1 or more"),
        ({"every": 1.5}, "every=1.5"),
        ({"episodes": True}, "episodes=True"),
        ({"seed": -1}, "seed=-1. Expected: a whole number, 0 or more"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"probes": -1}, "probes=-1"),
        ({"expert": "bott"}, "expert='bott'. Expected: one of ('auto', 'shortest path', 'planner', 'bot'), None, or"),
        ({"expert": 3}, "expert=3"),
        ({"expert": expert_for(make_env(MAZE))}, 'pass expert="planner"'),
        ({"make": None}, "make=None. Expected: an environment's id"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SetupError) as error:
        Diary(**{"make": MAZE, **arguments})
    assert told in str(error.value)


same = follow()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"folder": None}, r"Diary without folder=.*tensorboard_log"),
        ({"make": lambda: same}, r"returns the same environment again"),
        ({"make": lambda: Follow()}, r"an environment of type Follow"),
        ({"make": MAZE}, r"Diary in TextSpace.*'north'.*'turn left'"),
        ({"expert": "shortest path"}, r"expert='shortest path' in .*one of this project's mazes"),
        ({"expert": "planner"}, r"a MiniGrid or BabyAI world, or a maze"),
        ({"expert": "bot"}, r"a MiniGrid or BabyAI world, or a maze"),
        ({"expert": lambda env: "drop"}, r"an expert that returned 'drop'.*index of one of 3 phrases"),
        ({"expert": lambda env: 3}, r"an expert that returned 3"),
        ({"probes": [("Do: drop.", ["drop"])]}, r"a prompt alone, for a policy that has its own phrases"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    arguments: dict[str, Any], told: str, gpt2_folder: Path, tmp_path: Path
) -> None:
    model = PPO(LLMPolicy, DummyVecEnv([follow]), policy_kwargs={"model": str(gpt2_folder)}, **SMALL)
    with pytest.raises(SetupError, match=told):
        model.learn(8, callback=Diary(**{"make": follow, "folder": tmp_path / "pages", **arguments}))
    assert model.num_timesteps == 0
    assert not (tmp_path / "pages").exists()


def test_the_bot_knows_babyai_only(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"expert='bot' in .*Expected: a BabyAI level"):
        PPO(LLMPolicy, make_env(DOOR), **SMALL).learn(8, callback=Diary(DOOR, expert="bot", folder=tmp_path))


def test_refuses_policies_without_a_language_model(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16)
    with pytest.raises(SetupError, match=r"Diary with a ActorCriticPolicy.*LLMPolicy"):
        model.learn(16, callback=Diary(MAZE, folder=tmp_path))
    assert model.num_timesteps == 0
