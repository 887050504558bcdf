"""TextObservation: history, reward functions, is_success, silence, and the environments it refuses."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env
from sb3_llm.wrappers import TextObservation

LEFT, RIGHT, FORWARD = range(3)
TO_THE_GOAL = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]  # in MiniGrid-Empty-5x5-v0


class Corridor(gymnasium.Env[np.int64, int]):
    """Cells 0 to 3: the walk starts in 1, 3 is the goal, and 0 is a pit that ends it without pay."""

    observation_space = spaces.Discrete(4)

    def __init__(self, action_space: spaces.Space | None = None, own: dict[str, Any] | None = None) -> None:
        self.action_space: spaces.Space = action_space or spaces.Discrete(2)
        self.own = own or {}
        self.cell = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = 1
        return np.int64(self.cell), {"start": True}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.cell += 1 if action == 1 else -1
        return np.int64(self.cell), float(self.cell == 3), self.cell in (0, 3), False, dict(self.own)


def play(env: TextObservation, actions: list[int]) -> list[str]:
    """The observation texts of an episode, the first included."""
    texts = [env.text_space.decode(env.reset(seed=0)[0])]
    return texts + [env.text_space.decode(env.step(action)[0]) for action in actions]


# --- the text


@pytest.mark.parametrize(
    ("history", "texts"),
    [
        (0, ["Observation: 1.", "Observation: 2.", "Observation: 1.", "Observation: 2.", "Observation: 3."]),
        (
            1,
            [
                "Observation: 1. Last action: none.",
                "Observation: 2. Last action: on.",
                "Observation: 1. Last action: back.",
                "Observation: 2. Last action: on.",
                "Observation: 3. Last action: on.",
            ],
        ),
        (
            3,
            [
                "Observation: 1. Last actions: none.",
                "Observation: 2. Last actions: on.",
                "Observation: 1. Last actions: on, back.",
                "Observation: 2. Last actions: on, back, on.",
                "Observation: 3. Last actions: back, on, on.",
            ],
        ),
    ],
)
def test_history_is_told_and_forgotten_at_reset(history: int, texts: list[str]) -> None:
    env = TextObservation(Corridor(), phrases=["back", "on"], history=history)
    for _ in range(2):
        assert play(env, [1, 0, 1, 1]) == texts
        assert env.text == texts[-1]


def test_history_of_an_interrupted_episode_is_forgotten() -> None:
    env = TextObservation(Corridor(), history=2)
    assert play(env, [1])[-1].endswith("Last actions: action 1.")
    assert play(env, [])[-1].endswith("Last actions: none.")


def test_describe_gets_the_environments_own_observation() -> None:
    seen: list[Any] = []

    def describe(obs: Any) -> str:
        seen.append(obs)
        return f"第 {obs} 格"

    env = TextObservation(Corridor(), describe=describe, phrases=["退", "进"], history=1)
    assert play(env, [1]) == ["第 1 格 Last action: none.", "第 2 格 Last action: 进."]
    assert [(type(obs), obs) for obs in seen] == [(np.int64, 1), (np.int64, 2)]


@pytest.mark.parametrize("history", [0, 1])
@pytest.mark.parametrize("said", [None, 3, b"bytes", ["a", "b"]])
def test_describe_that_returns_no_text_raises(said: Any, history: int) -> None:
    env = TextObservation(Corridor(), describe=lambda obs: said, history=history)
    with pytest.raises(SetupError, match=f"of type {type(said).__name__}.*describe"):
        env.reset()


def test_text_too_long_for_max_bytes_raises_with_the_option() -> None:
    env = TextObservation(Corridor(), describe=lambda obs: "界" * 10, max_bytes=29)
    with pytest.raises(SetupError, match=r"30 bytes.*at most 29 bytes.*max_bytes=30"):
        env.reset()


# --- rewards


def test_reward_function_sees_raw_observations_the_action_and_the_finished_info() -> None:
    calls: list[tuple[Any, int, Any, dict[str, Any]]] = []

    def reward(state: Any, action: int, next_state: Any, info: dict[str, Any]) -> float:
        calls.append((state, action, next_state, dict(info)))
        return np.float32(2.5)

    env = make_env("MiniGrid-Empty-5x5-v0", reward=reward)
    raw = gymnasium.make("MiniGrid-Empty-5x5-v0")
    env.reset(seed=0)
    states = [raw.reset(seed=0)[0]]
    for action in TO_THE_GOAL:
        _, value, _, _, info = env.step(np.int64(action))
        states.append(raw.step(action)[0])
        assert (value, type(value)) == (2.5, float)
        assert calls[-1][3] == info
    assert [call[1] for call in calls] == TO_THE_GOAL
    assert {type(call[1]) for call in calls} == {int}
    assert [call[3].get("is_success") for call in calls] == [None] * 4 + [True]
    for number, (state, _, next_state, _) in enumerate(calls):
        for seen, real in ((state, states[number]), (next_state, states[number + 1])):
            assert (seen["image"] == real["image"]).all()
            assert (seen["direction"], seen["mission"]) == (real["direction"], real["mission"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "1.0", [1.0], 1j, np.array([1.0])])
def test_reward_that_is_no_number_raises(value: Any) -> None:
    env = TextObservation(Corridor(), reward=lambda *_: value)
    env.reset()
    with pytest.raises(SetupError, match=r"reward function returned .*finite number"):
        env.step(1)


@pytest.mark.parametrize("value", [0, True, np.float64(-0.5), np.int8(3)])
def test_any_real_number_is_a_reward(value: Any) -> None:
    env = TextObservation(Corridor(), reward=lambda *_: value)
    env.reset()
    reward = env.step(1)[1]
    assert (reward, type(reward)) == (float(value), float)


def test_without_a_function_the_reward_is_the_environments_own() -> None:
    env, raw = make_env("MiniGrid-Empty-5x5-v0"), gymnasium.make("MiniGrid-Empty-5x5-v0")
    env.reset(seed=0)
    raw.reset(seed=0)
    for action in TO_THE_GOAL:
        assert env.step(action)[1:4] == raw.step(action)[1:4]


# --- is_success


def ends(env: TextObservation, actions: list[int]) -> list[tuple[bool, bool, bool | None]]:
    """Terminated, truncated, is_success of each step."""
    return [(*step[2:4], step[4].get("is_success")) for step in map(env.step, actions)]


GOING = (False, False, None)


def test_success_at_the_goal_and_not_at_a_time_limit() -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", max_steps=6)
    for _ in range(2):
        env.reset(seed=0)
        assert ends(env, TO_THE_GOAL) == [GOING] * 4 + [(True, False, True)]
        env.reset(seed=0)
        assert ends(env, [LEFT] * 6) == [GOING] * 5 + [(False, True, False)]


def test_no_success_in_lava() -> None:
    env = make_env("MiniGrid-LavaGapS5-v0")
    fell = 0
    for seed in range(12):
        env.reset(seed=seed)
        ahead = env.unwrapped.grid.get(*env.unwrapped.front_pos)
        if ahead is not None and ahead.type == "lava":
            assert ends(env, [FORWARD]) == [(True, False, False)]
            fell += 1
    assert fell > 2


def test_success_is_of_the_task_not_of_the_users_reward() -> None:
    env = make_env("MiniGrid-Empty-5x5-v0", reward=lambda *_: -1.0)
    env.reset(seed=0)
    assert ends(env, TO_THE_GOAL)[-1] == (True, False, True)
    env = make_env("MiniGrid-Empty-5x5-v0", reward=lambda *_: 1.0, max_steps=2)
    env.reset(seed=0)
    assert ends(env, [LEFT] * 2)[-1] == (False, True, False)


@pytest.mark.parametrize(
    ("actions", "success"), [([1, 1], True), ([0], False), ([1, 0, 1, 0], False)], ids=["goal", "pit", "time"]
)
@pytest.mark.parametrize("sparse", [True, False])
def test_success_of_sparse_tasks_alone(actions: list[int], success: bool, sparse: bool) -> None:
    env = TextObservation(TimeLimit(Corridor(), 4), sparse=sparse)
    env.reset()
    steps = ends(env, actions)
    assert steps[:-1] == [GOING] * (len(actions) - 1)
    assert steps[-1][2] is (success if sparse else None)
    assert any(steps[-1][:2])


def test_success_of_the_environments_own_is_kept() -> None:
    env = TextObservation(Corridor(own={"is_success": True}), sparse=True)
    env.reset()
    assert ends(env, [0]) == [(True, False, True)]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_no_word_of_success_where_it_is_unknown(env_id: str) -> None:
    env = make_env(env_id)
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(0)
        assert "is_success" not in info


def test_frozen_lake_success() -> None:
    env = make_env("FrozenLake-v1", is_slippery=False)
    for path, end in (("down down right right down right", True), ("right down", False)):
        env.reset(seed=0)
        actions = [env.phrases.index(phrase) for phrase in path.split()]
        assert ends(env, actions) == [GOING] * (len(actions) - 1) + [(True, False, end)]


# --- an environment like any other


def test_babyai_prints_nothing_at_reset(capsys: pytest.CaptureFixture[str]) -> None:
    env, raw = make_env("BabyAI-PickupLoc-v0"), gymnasium.make("BabyAI-PickupLoc-v0")
    for seed in range(40):
        env.reset(seed=seed)
    assert capsys.readouterr().out == ""
    print("still heard")  # nothing stays redirected
    assert capsys.readouterr().out == "still heard\n"
    for seed in range(40):
        raw.reset(seed=seed)
    assert "Sampling rejected" in capsys.readouterr().out


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-5x5-v0", "sb3_llm/Maze3x3-v0", "FrozenLake-v1"])
def test_render_is_the_environments_own(env_id: str) -> None:
    env, raw = (make(env_id, render_mode="rgb_array") for make in (make_env, gymnasium.make))
    env.reset(seed=0)
    raw.reset(seed=0)
    image = env.render()
    assert (image.ndim, image.shape[-1], image.dtype) == (3, 3, np.uint8)
    assert (image == raw.render()).all()
    env.step(1)
    assert (env.render_mode, env.metadata) == ("rgb_array", raw.metadata)
    env.close()
    raw.close()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,)),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Discrete(3, start=1),
        spaces.Discrete(3, start=-1),
        spaces.Tuple((spaces.Discrete(2),)),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused(space: spaces.Space) -> None:
    with pytest.raises(SetupError) as caught:
        TextObservation(Corridor(space))
    assert f"the action space {space!r}. Expected: a Discrete space that starts at 0" in str(caught.value)
    assert "To mend it: wrap the environment" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"history": -1}, "history=-1. Expected: how many past turns"),
        ({"history": 1.0}, "history=1.0. Expected"),
        ({"history": True}, "history=True. Expected"),
        ({"history": None}, "history=None. Expected"),
        ({"describe": "words"}, "describe='words'. Expected: a callable"),
        ({"reward": 1.0}, "reward=1.0. Expected: a callable (state, action, next_state, info) -> float"),
        ({"phrases": ["back"]}, "1 phrases ['back'] for 2 actions"),
        ({"phrases": []}, "phrases=[]"),
        ({"max_bytes": 0}, "max_bytes=0"),
    ],
)
def test_bad_options_raise_at_construction(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError) as caught:
        TextObservation(Corridor(), **options)
    assert text in str(caught.value)


def test_phrases_come_from_the_user_then_the_environment_then_numbers() -> None:
    env = Corridor()
    assert TextObservation(env).phrases == ("action 0", "action 1")
    env.phrases = ("back", "on")  # type: ignore[attr-defined]
    assert TextObservation(env).action_space.phrases == ("back", "on")
    assert TextObservation(env, phrases=["退", "进"]).phrases == ("退", "进")


# --- made again from its spec


def double_reward(state: Any, action: int, next_state: Any, info: dict[str, Any]) -> float:
    return 2.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_env("MiniGrid-DoorKey-5x5-v0", history=2, reward=double_reward, max_bytes=999),
        lambda: make_env("sb3_llm/Maze-v0", size=3, view="full", phrases=("up", "down", "right", "left")),
        lambda: TextObservation(gymnasium.make("CartPole-v1"), history=3),
    ],
    ids=["doorkey", "maze", "cartpole"],
)
def test_an_env_made_again_from_its_spec_is_the_same(make: Callable[[], TextObservation]) -> None:
    env = make()
    assert env.spec is not None
    twin = gymnasium.make(env.spec)
    assert type(twin) is TextObservation
    assert (twin.observation_space, twin.action_space) == (env.observation_space, env.action_space)
    for made in (env, twin):
        made.reset(seed=3)
    for action in (0, 1, 1, 0):
        (ours, *mine), (theirs, *others) = env.step(action), twin.step(action)
        assert (ours == theirs).all()
        assert mine[:3] == others[:3]
        assert env.text == twin.text
