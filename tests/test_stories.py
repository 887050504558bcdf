"""Stories: told in the texts an agent will read, labelled by the expert, with detours, and no waiting for anyone."""

import re
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.utils.baby_ai_bot import BabyAIBot

from sb3_llm import make_env
from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.describe.worded import CANONICAL, DRAWN
from sb3_llm.envs.dialogue import DialogueEnv
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.errors import SetupError
from sb3_llm.pretrain import corpus, experts, stories
from sb3_llm.pretrain.corpus import tell_stories
from sb3_llm.pretrain.experts import make_expert
from sb3_llm.pretrain.sayings import CHINESE_LISTS, say, talk
from sb3_llm.pretrain.sources import LISTS, ORDERS, REWORDED, SAYINGS, SOURCES, Source
from sb3_llm.pretrain.stories import Line, StoryTimeout, Telling, draw_telling, tell_story, time_limit
from sb3_llm.words.mission import parse
from sb3_llm.words.statements import LORE
from tests.drawn import DrawnWorld

TRAIN = {"generator": "dfs", "split": "train"}
WORLDS: list[tuple[str, dict[str, Any]]] = [
    ("sb3_llm/Maze-v0", {"size": 4, **TRAIN}),
    ("sb3_llm/MiniGridMaze-v0", {"size": 3, **TRAIN}),
    ("sb3_llm/Rooms-v0", {"kind": "keydoor"}),
    ("sb3_llm/Rooms-v0", {"kind": "carryto"}),
    ("BabyAI-OpenTwoDoors-v0", {}),
    ("BabyAI-PutNextS4N1-v0", {}),
]
worlds = pytest.mark.parametrize(("env_id", "env_kwargs"), WORLDS, ids=str)
PLAIN = Telling(SUMMARY, "en", CANONICAL)


class Watched(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps what was done in an episode."""

    def reset(self, **options: Any) -> Any:
        self.actions: list[int] = []
        self.rewards: list[float] = []
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        step = super().step(action)
        self.actions.append(int(action))
        self.rewards.append(float(step[1]))
        self.terminated = step[2]
        return step


def watched(env_id: str, env_kwargs: dict[str, Any]) -> Watched:
    return Watched(gym.make(env_id, disable_env_checker=True, **env_kwargs))


def decisions(lines: list[Line]) -> list[tuple[str, str]]:
    """Texts and phrases, without plans and questions."""
    cue = "\nAction:"
    return [(line.prompt.removesuffix(cue), line.completion.strip()) for line in lines if line.prompt.endswith(cue)]


# --- what is told


@worlds
@pytest.mark.parametrize("history", [SUMMARY, 0, 1, 4])
def test_texts_are_what_make_env_shows(env_id: str, env_kwargs: dict[str, Any], history: History) -> None:
    env, shown = watched(env_id, env_kwargs), make_env(env_id, history=history, **env_kwargs)
    lines = decisions(tell_story(env, 3, (0.3,), telling=Telling(history, "en", CANONICAL)))
    shown.reset(seed=3)
    for (text, phrase), action in zip(lines, env.actions, strict=True):
        assert text == shown.text
        assert phrase in shown.phrases
        shown.step(shown.offer.actions.index(action))


@worlds
def test_labels_are_the_experts_whatever_step_is_taken(env_id: str, env_kwargs: dict[str, Any]) -> None:
    env = watched(env_id, env_kwargs)
    lines = decisions(tell_story(env, 4, (0.3,), telling=PLAIN))
    twin = gym.make(env_id, disable_env_checker=True, **env_kwargs)
    obs, _ = twin.reset(seed=4)
    expert = make_expert(twin, obs)
    for (_, phrase), action in zip(lines, env.actions, strict=True):
        assert phrase == expert.advice()[0]
        obs, *_ = twin.step(action)
        expert.note(action, obs)


@worlds
def test_experts_arrive_without_detours(env_id: str, env_kwargs: dict[str, Any]) -> None:
    env = watched(env_id, env_kwargs)
    for seed in range(4):
        lines = decisions(tell_story(env, seed, (0.0,), telling=PLAIN))
        assert env.terminated
        assert env.rewards[-1] > 0
        keys = DIRECTIONS if env_id == "sb3_llm/Maze-v0" else experts.KEYS
        assert [keys[action] for action in env.actions] == [phrase for _, phrase in lines]


@pytest.mark.parametrize(
    ("detour", "low", "high"), [(0.0, 0, 0), (0.1, 0.03, 0.12), (0.3, 0.15, 0.29), (1.0, 0.55, 0.9)]
)
def test_detours_happen_at_their_rate(detour: float, low: float, high: float) -> None:
    """Some of the random steps are the expert's by chance, so fewer than ``detour`` differ."""
    env = watched("sb3_llm/Rooms-v0", {"kind": "goal"})
    other = []
    for seed in range(6 if detour == 1.0 else 30):
        lines = decisions(tell_story(env, seed, (detour,), telling=PLAIN))
        other += [experts.KEYS[action] != said for action, (_, said) in zip(env.actions, lines, strict=True)]
    assert len(other) > 300
    assert low <= np.mean(other) <= high


def test_the_detour_is_drawn_for_each_story() -> None:
    env = watched("sb3_llm/MiniGridMaze-v0", {"size": 2, **TRAIN})
    straight = []
    for seed in range(30):
        lines = decisions(tell_story(env, seed, (0.0, 1.0), telling=PLAIN))
        straight.append(all(experts.KEYS[a] == said for a, (_, said) in zip(env.actions, lines, strict=True)))
    assert 8 < sum(straight) < 22


def test_detours_are_mostly_moves_and_never_say_done() -> None:
    env = gym.make("sb3_llm/Rooms-v0", kind="gotodone")  # where it is offered
    story = stories.Story(env, 0, PLAIN, np.random.default_rng(0), use_bot=False)
    assert story.describer.keys == experts.KEYS[:7]
    taken = [story._detour() for _ in range(2000)]
    assert set(taken) == set(experts.KEYS[:6])
    assert np.mean([key in experts.KEYS[:3] for key in taken]) == pytest.approx(0.9, abs=0.03)
    maze = stories.Story(gym.make("sb3_llm/Maze-v0"), 0, PLAIN, np.random.default_rng(0), use_bot=False)
    taken = [maze._detour() for _ in range(400)]
    assert set(taken) == set(DIRECTIONS)


def test_plans_and_questions_are_told_at_their_rates() -> None:
    env, counts = gym.make("sb3_llm/Rooms-v0", kind="keydoor"), {"Action:": 0, "Plan:": 0, "?": 0}
    plans = []
    for seed in range(24):
        for prompt, completion, _ in tell_story(env, seed, (0.1,), telling=PLAIN):
            end = next(end for end in counts if prompt.endswith(end))
            counts[end] += 1
            plans += [completion] if end == "Plan:" else []
            assert completion.startswith(" ")
            assert completion.endswith("\n")
            assert completion.strip()
    steps = counts["Action:"]
    assert steps > 600
    assert 0.4 * stories.PLAN_SHARE < counts["Plan:"] / steps <= 1.2 * stories.PLAN_SHARE  # some have no mission
    assert counts["?"] / steps == pytest.approx(stories.QUESTION_SHARE, rel=0.4)
    assert all(parse(plan.strip()) is not None for plan in plans)


def test_worlds_that_want_to_be_told_done() -> None:
    """In half of the stories the mission does not say so, as in MiniGrid's GoToObject."""
    env, said_so = watched("sb3_llm/Rooms-v0", {"kind": "gotodone"}), []
    for seed in range(16):
        lines = tell_story(env, seed, (0.0,), telling=PLAIN)
        assert decisions(lines)[-1][1] == "done"
        assert env.rewards[-1] > 0
        told = [" and say done" in line.prompt for line in lines]
        assert len(set(told)) == 1
        said_so.append(told[0])
    assert 3 <= sum(said_so) <= 13


def test_stories_are_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("BabyAI-GoTo-v0")
    monkeypatch.setattr(stories, "STORY_LIMIT", 7)
    assert len(decisions(tell_story(env, 0, (1.0,), telling=PLAIN))) == 7


class Stubborn:
    """An expert that knows one action."""

    def __init__(self, key: str) -> None:
        self.key = key

    def advice(self) -> tuple[str, str]:
        return self.key, ""

    def note(self, action: int, obs: Any) -> None:
        pass


def stubborn_story(
    env: gym.Env[Any, Any], key: str, monkeypatch: pytest.MonkeyPatch, detour: float = 0.0
) -> list[Line]:
    monkeypatch.setattr(stories, "make_expert", lambda *_: Stubborn(key))
    monkeypatch.setattr(stories, "STORY_LIMIT", 30)
    story = stories.Story(env, 0, PLAIN, np.random.default_rng(0))
    return [line for line in story.told(detour) if line.prompt.endswith("\nAction:")]


def test_a_story_ends_where_the_expert_gets_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Watched(DrawnWorld("#######", "#>..k.#", "#######"))
    assert len(stubborn_story(env, "go forward", monkeypatch)) == 3  # two steps, and one against the key
    assert len(stubborn_story(env, "pick up", monkeypatch)) == 1
    assert len(stubborn_story(env, "turn left", monkeypatch)) == 30, "a turn changes what is seen, or the heading"


def test_a_detour_that_gets_nowhere_does_not_end_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Watched(DrawnWorld("#######", "#>..k.#", "#######"))
    monkeypatch.setattr(stories.Story, "_detour", lambda _: "drop")  # with empty hands
    assert len(stubborn_story(env, "go forward", monkeypatch, detour=1.0)) == 30


def test_a_maze_tells_of_its_walls_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("sb3_llm/Maze-v0", size=4, **TRAIN)
    assert len(stubborn_story(env, "north", monkeypatch)) == 30


@pytest.mark.xfail(strict=True, reason="a step down a long hall looks like none: stories._same sees no places")
def test_a_story_goes_on_where_all_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Watched(DrawnWorld("#" * 16, "#>............G#", "#" * 16))
    assert len(stubborn_story(env, "go forward", monkeypatch)) == 13


def test_tellings_are_drawn_at_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_telling(rng) for _ in range(4000)]
    for (language, wording), share in stories.TELLINGS.items():
        found = np.mean([(each.language, each.wording) == (language, wording) for each in drawn])
        assert found == pytest.approx(share, abs=0.025)
    assert np.mean([each.history == SUMMARY for each in drawn]) == pytest.approx(0.9, abs=0.02)
    assert {each.history for each in drawn} == {SUMMARY, 0, 1, 4}
    assert sum(stories.TELLINGS.values()) == pytest.approx(1)


@worlds
@pytest.mark.parametrize("wording", [CANONICAL, DRAWN])
def test_chinese_lines_hold_no_latin_letters_but_for_the_cue(
    env_id: str, env_kwargs: dict[str, Any], wording: str
) -> None:
    env = gym.make(env_id, **env_kwargs)
    for seed in range(3):
        for line in tell_story(env, seed, (0.1,), telling=Telling(SUMMARY, "zh", wording)):
            for prompt, completion in line.exchanges():
                plain = re.sub(r"\n(Action|Plan):$", "", prompt) + completion
                assert not re.search(r"[A-Za-z]", plain), plain


@pytest.mark.parametrize("kind", list(SAYINGS))
def test_sayings_are_lines_in_both_languages(kind: str) -> None:
    rng = np.random.default_rng(0)
    lines = [say(kind, rng) for _ in range(300)]
    chinese = [not line.text().isascii() for line in lines]
    assert np.mean(chinese) == pytest.approx({LISTS: 0.0, REWORDED: CHINESE_LISTS}.get(kind, 0.3), abs=0.08)
    assert len(set(lines)) > 100
    assert any(line.more for line in lines) is (kind in (LISTS, ORDERS, REWORDED))
    for prompt, completion, _ in lines:
        assert completion.endswith("\n")
        assert (prompt == "") is (kind == "statements")
        assert completion[:1] in {"statements": completion, "dialogue": "\n"}.get(kind, " ")
        if kind == "dialogue":
            speakers = LORE["en" if (prompt + completion).isascii() else "zh"].speakers
            turns = (prompt + completion).strip().split("\n")
            assert all(turn.startswith(speakers[place % 2]) for place, turn in enumerate(turns))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_talks_are_moments_of_the_dialogue_with_the_experts_act(language: str) -> None:
    phrases = DialogueEnv(language=language).phrases
    rng, texts, acts = np.random.default_rng(0), set(), []
    for _ in range(400):
        prompt, completion, more = talk(rng, language)
        text = prompt.removesuffix("\nAction:")
        act = completion.removeprefix(" ").removesuffix("\n")
        assert text != prompt
        assert more == ()
        texts.add(text)
        acts.append(phrases.index(act))
    counts = np.bincount(acts, minlength=len(phrases))
    assert (counts >= 10).all(), "each act is said"
    assert counts.max() < 100, "and none so often that others are rare"
    assert len(texts) > 100


def test_talks_say_what_an_agent_reads_and_the_expert_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is one that an agent reads that takes the same acts, some of which are not the expert's."""
    acts: list[int] = []
    places: list[float] = []
    real, odd, total = DialogueEnv.step, 0, 0

    def noted(env: DialogueEnv, act: int) -> Any:
        acts.append(act)
        return real(env, act)

    for seed in range(60):
        language = ("en", "zh")[seed % 2]
        acts.clear()
        monkeypatch.setattr(DialogueEnv, "step", noted)
        told = talk(np.random.default_rng(seed), language)
        monkeypatch.undo()
        assert told == talk(np.random.default_rng(seed), language)
        env = make_env("sb3_llm/Dialogue-v0", language=language)
        inner = env.unwrapped
        obs = inner.reset(seed=int(np.random.default_rng(seed).integers(2**31)))[0]
        moments = [exchange_of(inner, obs, language)]
        for act in acts:
            odd, total = odd + (inner.expert_action(obs) != act), total + 1
            assert not inner.over, "a talk does not go on after its end"
            obs = inner.step(act)[0]
            moments.append(exchange_of(inner, obs, language))
        places.append(moments.index((told.prompt, told.completion)) / len(moments))
    assert 0.05 < odd / total < 0.3
    assert min(places) == 0
    assert 0.3 < np.mean(places) < 0.6, "any moment of a talk"


def exchange_of(env: DialogueEnv, obs: Any, language: str) -> tuple[str, str]:
    act = env.phrases[env.expert_action(obs)]
    return f"{describe_dialogue(obs, language)}\nAction:", f" {act}\n"


# --- experts that hang or fail


class HangingBot(BabyAIBot):
    def replan(self, action_taken: Any = None) -> Any:
        while True:
            pass


def test_hanging_expert_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "BabyAIBot", HangingBot)
    monkeypatch.setattr(stories, "STORY_SECONDS", 0.05)
    monkeypatch.setattr(corpus, "MAX_FAILURES", 4)
    before = time.process_time()
    lines, entry = tell_stories(Source("BabyAI-GoToObj-v0", 1, use_bot=True), 50, seed=0)
    assert time.process_time() - before < 2
    assert (lines, entry["episodes"], entry["dropped"], entry["lines"]) == ([], 0, 4, 0)


@pytest.mark.parametrize("failing", [HangingBot, lambda env: 1 / 0], ids=["hangs", "raises"])
def test_stories_go_on_after_an_expert_failed(failing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def fails_when_facing_east(env: Any) -> Any:  # for the same level always the same, so it must not be tried again
        made.append(env.agent_dir == 0)
        return failing(env) if made[-1] else BabyAIBot(env)

    monkeypatch.setattr(experts, "BabyAIBot", fails_when_facing_east)
    monkeypatch.setattr(stories, "STORY_SECONDS", 0.2)
    monkeypatch.setattr(corpus, "MAX_FAILURES", 4)  # in a row; there are more in all
    lines, entry = tell_stories(Source("BabyAI-GoToObj-v0", 1, detours=(0.0,), use_bot=True), 100, seed=0)
    assert len(lines) == 100
    assert (entry["episodes"], entry["dropped"]) == (made.count(False), made.count(True))
    assert entry["dropped"] > 4


def test_a_word_that_no_table_knows_stops_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Any:
        raise SetupError("a word", "another", "add it")

    monkeypatch.setattr(corpus, "tell_story", fails)
    with pytest.raises(SetupError, match="a word"):
        tell_stories(SOURCES[0], 10, seed=0)


def spin(seconds: float) -> None:
    """Use up processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_alarm_rings_and_is_put_away() -> None:
    with pytest.raises(StoryTimeout), time_limit(0.05):
        spin(5)
    with time_limit(0.05):
        pass
    spin(0.1)  # an alarm left behind would ring here


def test_alarm_counts_processor_time() -> None:
    with time_limit(0.05):
        time.sleep(0.2)  # as on a busy machine


def test_bot_plans_from_the_step_really_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int | None] = []

    class WatchedBot(BabyAIBot):
        def replan(self, action_taken: Any = None) -> Any:
            told.append(action_taken)
            return super().replan(action_taken)

    env = watched("BabyAI-GoToLocal-v0", {})
    monkeypatch.setattr(experts, "BabyAIBot", WatchedBot)
    lines = decisions(tell_story(env, 1, (0.9,), use_bot=True, telling=PLAIN))
    assert told[: len(env.actions)] == [None, *env.actions[:-1]]
    assert [experts.KEYS[action] for action in env.actions] != [said for _, said in lines]  # there were detours
