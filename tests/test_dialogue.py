"""The dialogue: documented probabilities, rewards, the expert, words, errors, the contracts of Gymnasium and SB3."""

import copy
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sb3_llm import LLMPolicy, TextObservation
from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.envs.dialogue import BOOK, CONFIRM, CONFIRM_FROM, DialogueEnv, scripted_action
from sb3_llm.envs.dialogue_user import SIZES, UserAct
from sb3_llm.envs.dialogue_words import LANGUAGES, N_WORDINGS
from sb3_llm.errors import SetupError

FOOD, AREA, PEOPLE, DAY = range(4)
TRIALS = 3000
GOAL = [2, 3, 1, 5]


def outcomes(env: DialogueEnv, action: int, heard: list[int], changed: bool = True) -> Iterator[dict[str, Any]]:
    """What is observed after an action, again and again from one state with the goal ``GOAL``."""
    env.reset(seed=action)
    for _ in range(TRIALS):
        env.user.goal, env.user.changed = list(GOAL), changed
        env.heard, env.confirmed, env.turn, env.over = list(heard), [int(value > 0) for value in heard], 0, False
        yield env.step(action)[0]


def agrees(counts: Counter[Any], expected: dict[Any, float]) -> None:
    """Each share within four standard errors, and nothing else ever seen."""
    total = sum(counts.values())
    assert set(counts) <= {outcome for outcome, share in expected.items() if share > 0}
    for outcome, share in expected.items():
        assert abs(counts[outcome] / total - share) <= 4 * (share * (1 - share) / total) ** 0.5, (outcome, counts)


def returns(env: DialogueEnv, rule: Callable[[dict[str, Any]], int], episodes: int) -> list[tuple[float, bool]]:
    """Return and success of whole dialogues."""
    env.reset(seed=0)
    found = []
    for _ in range(episodes):
        (observation, _), total, ended = env.reset(), 0.0, False
        while not ended:
            observation, reward, terminated, truncated, info = env.step(rule(observation))
            total, ended = total + reward, terminated or truncated
        found.append((total, info["is_success"]))
    return found


# --- the documented probabilities


@pytest.mark.parametrize("noise", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("slot", [FOOD, PEOPLE])
def test_asked_for_a_slot_the_user_is_misheard_with_the_noise(noise: float, slot: int) -> None:
    seen = list(outcomes(DialogueEnv(noise), slot, [1, 1, 1, 1]))
    wrong = {value: noise / (SIZES[slot] - 1) for value in range(1, SIZES[slot] + 1) if value != GOAL[slot]}
    agrees(Counter(int(observation["heard"][slot]) for observation in seen), wrong | {GOAL[slot]: 1 - noise})
    assert {(int(o["user_act"]), int(o["user_slot"]), int(o["confirmed"][slot])) for o in seen} == {(1, slot + 1, 0)}
    assert {int(observation["extra"]) for observation in seen} == {0}


@pytest.mark.parametrize("area", [0, 1])
def test_asked_for_a_slot_the_user_volunteers_another_unknown_one(area: int) -> None:
    seen = list(outcomes(DialogueEnv(0.2), AREA, [0, area, 4, 0]))
    agrees(Counter(int(o["extra"]) for o in seen), {0: 0.75, FOOD + 1: 0.125, DAY + 1: 0.125})
    days = [int(o["heard"][DAY]) for o in seen if o["extra"] == DAY + 1]
    agrees(Counter(days), {1: 0.05, 2: 0.05, 3: 0.05, 4: 0.05, 5: 0.8})
    assert all((o["heard"][DAY] == 0) == (o["extra"] != DAY + 1) for o in seen)
    assert {int(o["heard"][PEOPLE]) for o in seen} == {4}


def test_confirming_what_is_right_brings_yes_or_a_misheard_no() -> None:
    seen = outcomes(DialogueEnv(0.3), CONFIRM + FOOD, GOAL)
    counts = Counter((UserAct(o["user_act"]), int(o["heard"][FOOD]), int(o["confirmed"][FOOD])) for o in seen)
    agrees(counts, {(UserAct.YES, 2, 1): 0.9, (UserAct.NO, 0, 0): 0.1})


def test_confirming_what_is_wrong_brings_no_a_correction_or_a_misheard_yes() -> None:
    seen = list(outcomes(DialogueEnv(0.3), CONFIRM + PEOPLE, [2, 3, 4, 5]))
    assert all(o["denied"] == (0 if o["user_act"] == UserAct.YES else 4) for o in seen)
    counts = Counter((UserAct(o["user_act"]), int(o["heard"][PEOPLE]), int(o["confirmed"][PEOPLE])) for o in seen)
    expected = {(UserAct.YES, 4, 1): 0.1, (UserAct.NO, 0, 0): 0.9 * 0.3, (UserAct.CORRECT, 1, 0): 0.9 * 0.7 * 0.7}
    # Four values: misheard is one of the two that are neither wanted nor denied.
    agrees(counts, expected | {(UserAct.CORRECT, value, 0): 0.9 * 0.7 * 0.15 for value in (2, 3)})


def test_confirming_what_was_never_said_puzzles() -> None:
    for observation in outcomes(DialogueEnv(0.3), CONFIRM + FOOD, [0, 3, 1, 5]):
        assert observation["user_act"] == UserAct.PUZZLED
        assert observation["heard"].tolist() == [0, 3, 1, 5]
        assert observation["confirmed"].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("action", [FOOD, CONFIRM + AREA])
def test_the_user_changes_its_mind_once_and_only_about_what_is_known(action: int) -> None:
    env = DialogueEnv(0.0)
    changes: Counter[int] = Counter()
    for observation in outcomes(env, action, [0, 3, 0, 5], changed=False):
        slot = int(observation["user_slot"]) - 1 if observation["user_act"] == UserAct.CHANGE else -1
        changes[slot] += 1
        if slot >= 0:
            assert env.user.changed
            assert env.user.goal[slot] != GOAL[slot]
            assert (observation["heard"][slot], observation["confirmed"][slot]) == (env.user.goal[slot], 0)
            assert observation["heard"][FOOD] == 0  # no answer to the act itself
    agrees(changes, {-1: 0.97, AREA: 0.015, DAY: 0.015})
    for heard, changed in (([0, 0, 0, 0], False), (GOAL, True)):
        seen = outcomes(env, action, heard, changed=changed)
        assert UserAct.CHANGE not in {observation["user_act"] for observation in seen}


def test_goals_and_wordings_are_uniform() -> None:
    env = DialogueEnv()
    env.reset(seed=0)
    goals, wordings = [], []
    for _ in range(TRIALS):
        wordings.append(int(env.reset()[0]["wording"]))
        goals.append(tuple(env.user.goal))
    agrees(Counter(wordings), dict.fromkeys(range(N_WORDINGS), 1 / N_WORDINGS))
    for slot, size in enumerate(SIZES):
        agrees(Counter(goal[slot] for goal in goals), {value: 1 / size for value in range(1, size + 1)})


# --- rewards and ends


@pytest.mark.parametrize("wrong", [None, FOOD, AREA, PEOPLE, DAY])
@pytest.mark.parametrize("unknown", [False, True])
def test_booking_pays_for_exactly_the_goal_and_ends(wrong: int | None, unknown: bool) -> None:
    env = DialogueEnv()
    env.reset(seed=0)
    env.heard = list(env.user.goal)
    if wrong is not None:
        env.heard[wrong] = 0 if unknown else env.user.goal[wrong] % SIZES[wrong] + 1
    observation, reward, terminated, truncated, info = env.step(BOOK)
    right = wrong is None
    assert (reward, terminated, truncated, info) == (1.0 if right else -1.0, True, False, {"is_success": right})
    assert observation["user_act"] == UserAct.GOODBYE
    with pytest.raises(SetupError, match="without a dialogue under way"):
        env.step(BOOK)


def test_talking_costs_and_is_cut_off_after_max_turns() -> None:
    env = DialogueEnv(max_turns=7)
    env.reset(seed=0)
    results = [env.step(turn % BOOK) for turn in range(7)]
    assert [result[1] for result in results] == [-0.05] * 7
    assert [result[2:4] for result in results] == [(False, False)] * 6 + [(False, True)]
    assert [result[0]["turn"] for result in results] == list(range(1, 8))
    assert results[-1][4] == {"is_success": False}
    env.reset()
    ends = [env.step(action)[2:4] for action in (0, 0, 0, 0, 0, 0, BOOK)]
    assert ends[-1] == (True, False)  # a booking in the last turn is an end, not a cut


# --- the expert


def test_expert_is_far_above_random_acts() -> None:
    random = np.random.default_rng(0)
    env = DialogueEnv()
    expert = returns(env, env.expert_action, 1500)
    chance = returns(env, lambda _: int(random.integers(BOOK + 1)), 500)
    assert abs(fmean(total for total, _ in expert) - 0.473) < 0.05
    assert fmean(success for _, success in expert) > 0.93
    assert fmean(total for total, _ in chance) < -0.85


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.08])
def test_expert_confirms_where_that_pays(noise: float) -> None:
    env = DialogueEnv(noise)
    rules = {
        rule: fmean(total for total, _ in returns(env, partial(scripted_action, confirm=rule), 600))
        for rule in ("at once", "at the end", "never")
    }
    expert = fmean(total for total, _ in returns(env, env.expert_action, 600))
    assert max(rules.values()) - expert < 0.03
    assert (rules["never"] > rules["at once"]) == (noise < CONFIRM_FROM)


def test_expert_asks_confirms_and_books_by_what_it_sees() -> None:
    env = DialogueEnv()
    observation = env.reset(seed=0)[0]
    table: list[tuple[list[int], list[int], int]] = [
        ([0, 0, 0, 0], [0, 0, 0, 0], FOOD),
        ([1, 2, 0, 3], [1, 1, 0, 1], PEOPLE),
        ([1, 2, 3, 4], [1, 0, 1, 0], CONFIRM + AREA),
        ([1, 2, 3, 4], [1, 1, 1, 1], BOOK),
    ]
    for heard, confirmed, action in table:
        seen = observation | {"heard": np.array(heard), "confirmed": np.array(confirmed)}
        assert env.expert_action(seen) == action
    assert DialogueEnv(noise=0.0).expert_action(observation | {"heard": np.array([1, 2, 3, 4])}) == BOOK


# --- words


def observed(**parts: Any) -> dict[str, Any]:
    """An observation in the middle of a dialogue, with some parts replaced."""
    return {
        "heard": np.array([4, 1, 0, 0]),
        "confirmed": np.array([0, 1, 0, 0]),
        "user_act": UserAct.CORRECT,
        "user_slot": 1,
        "denied": 1,
        "extra": 0,
        "wording": 0,
        "system_act": CONFIRM + FOOD + 1,
        "turn": 4,
    } | parts


@pytest.mark.parametrize(
    ("language", "parts", "text"),
    [
        (
            "en",
            {},
            "User: no, not italian food, thai food please. Known: food thai, area north (confirmed), people unknown, "
            "day unknown. Turn 4. Last act: confirm the food.",
        ),
        ("en", {"wording": 1}, "User: not italian food, I said thai food. Known"),
        ("en", {"user_act": UserAct.TELL, "denied": 0, "extra": 2}, "User: thai food please, and in the north. Known"),
        ("en", {"user_act": UserAct.CHANGE, "wording": 1}, "User: I changed my mind, thai food please. Known"),
        ("en", {"user_act": UserAct.GREET, "user_slot": 0, "system_act": 0}, "Last act: none."),
        (
            "zh",
            {},
            "用户：不，不是意大利菜，是泰国菜。已知：菜系泰国菜，地区北区（已确认），人数未知，日期未知。"  # noqa: RUF001
            "第4轮。上一步：确认菜系。",  # noqa: RUF001
        ),
        ("zh", {"user_act": UserAct.TELL, "denied": 0, "extra": 2}, "用户：泰国菜，谢谢，还有在北区。"),  # noqa: RUF001
    ],
)
def test_observations_in_words(language: str, parts: dict[str, Any], text: str) -> None:
    assert text in describe_dialogue(observed(**parts), language)


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_texts_tell_apart_what_is_observed_and_transcripts_say_the_same(language: str) -> None:
    env = DialogueEnv(noise=0.3, language=language, render_mode="ansi")
    assert env.phrases == LANGUAGES[language].phrases
    env.reset(seed=1)
    random = np.random.default_rng(0)
    texts: dict[str, str] = {}
    for _ in range(150):
        observation, ended = env.reset()[0], False
        while not ended:
            told = repr([observation[name] for name in ("heard", "confirmed", "system_act", "turn")])
            text = describe_dialogue(observation, language)
            assert texts.setdefault(text, told) == told
            assert "{" not in text
            said = LANGUAGES[language].sentence(observation)
            assert said in text
            assert said in env.render().splitlines()[-1]
            action = int(random.integers(BOOK))
            observation, _, ended, truncated, _ = env.step(action)
            ended |= truncated
            assert env.phrases[action] in env.render().splitlines()[-2]


def test_transcript_ends_with_what_was_booked_and_what_was_wanted() -> None:
    env = DialogueEnv(render_mode="ansi")
    env.reset(seed=0)
    env.user.goal, env.heard = list(GOAL), [2, 3, 1, 4]
    env.step(BOOK)
    lines = env.render().splitlines()
    assert lines[1] == "System: book the restaurant."
    booked, wanted = "chinese food, in the east, for two, on thursday", "chinese food, in the east, for two, on friday"
    assert lines[-1] == f"Booked: {booked}. Wanted: {wanted}."
    env.reset()
    assert len(env.render().splitlines()) == 1


def test_languages_have_the_same_slots_values_and_wordings() -> None:
    for words in LANGUAGES.values():
        assert tuple(len(slot.values) for slot in words.slots) == SIZES
        assert len(set(words.phrases)) == BOOK + 1
        assert set(words.user) == set(UserAct)
        assert all(len(set(wordings)) == N_WORDINGS for wordings in words.user.values())


def test_render_without_a_mode_warns() -> None:
    env = DialogueEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert env.render() is None


# --- errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"noise": -0.1}, "noise=-0.1. Expected: how often a value is misheard, 0 to 0.5"),
        ({"noise": 0.51}, "noise=0.51. Expected"),
        ({"noise": float("nan")}, "noise=nan. Expected"),
        ({"noise": "0.1"}, "noise='0.1'. Expected"),
        ({"noise": True}, "noise=True. Expected"),
        ({"max_turns": 4}, "max_turns=4. Expected: a whole number of turns, 5 or more"),
        ({"max_turns": 20.0}, "max_turns=20.0. Expected"),
        ({"max_turns": True}, "max_turns=True. Expected"),
        ({"language": "fr"}, "language='fr'. Expected: one of ['en', 'zh']"),
        ({"language": ["en"]}, "language=['en']. Expected"),
        ({"render_mode": "human"}, "render_mode='human'. Expected: None or 'ansi'"),
    ],
)
def test_bad_arguments_raise_at_construction(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError) as caught:
        DialogueEnv(**options)
    assert text in str(caught.value)
    assert "To mend it: " in str(caught.value)


@pytest.mark.parametrize("action", [-1, 9, 1.0, None])
def test_bad_actions_raise(action: Any) -> None:
    env = DialogueEnv()
    env.reset(seed=0)
    with pytest.raises(SetupError) as caught:
        env.step(action)
    mend = "To mend it: pass the index of one of ['ask for the food', "
    assert f"action={action!r}. Expected: 0 to 8. {mend}" in str(caught.value)


def test_options_a_step_before_the_reset_and_an_unknown_language_raise() -> None:
    with pytest.raises(SetupError, match="Expected: None: a dialogue has none"):
        DialogueEnv().reset(options={"goal": 3})
    with pytest.raises(SetupError, match=r"call reset\(\) first"):
        DialogueEnv().step(0)
    with pytest.raises(SetupError, match="language='fr'"):
        describe_dialogue(observed(), "fr")


# --- the contracts of Gymnasium and Stable-Baselines3


def test_checkers_find_nothing_to_warn_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("sb3_llm/Dialogue-v0", render_mode="ansi")
        gymnasium_check_env(env.unwrapped)
        sb3_check_env(env)
        sb3_check_env(env.unwrapped)


def walk(env: DialogueEnv, steps: int) -> list[str]:
    """All that an env gives on random acts, as text."""
    random, given = np.random.default_rng(3), []
    for _ in range(steps):
        result = env.step(int(random.integers(BOOK + 1)))
        given.append(repr(result))
        assert env.observation_space.contains(result[0])
        if result[2] or result[3]:
            given.append(repr(env.reset()))
    return given


def test_equal_seeds_give_equal_dialogues() -> None:
    first, second, third = DialogueEnv(), DialogueEnv(), DialogueEnv()
    for env, seed in ((first, 7), (second, 7), (third, 8)):
        env.reset(seed=seed)
    walked = walk(first, 300)
    assert walked == walk(second, 300)
    assert walked != walk(third, 300)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_talk_on_alike_and_observations_given_away_never_change(copied: Any) -> None:
    env = DialogueEnv()
    first = env.reset(seed=5)[0]
    kept = repr(first)
    env.step(FOOD)
    twin = copied(env)
    assert walk(env, 100) == walk(twin, 100)
    assert repr(first) == kept


@pytest.mark.parametrize("policy", [LLMPolicy, "MultiInputPolicy"])
def test_stock_ppo_trains_on_the_text_and_on_the_numbers(policy: Any) -> None:
    text = policy is LLMPolicy
    env = TextObservation(DialogueEnv(), describe=describe_dialogue) if text else DialogueEnv()
    kwargs = {"normalization": "token"} if text else {}
    model = PPO(policy, env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0, policy_kwargs=kwargs)
    before = copy.deepcopy(list(model.policy.parameters()))
    model.learn(16)
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
