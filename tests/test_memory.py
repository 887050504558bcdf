"""The memory of a MiniGrid world: true to the world at every step, from observations alone, with the shortest ways."""

import pickle
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import gymnasium
import minigrid  # noqa: F401  # registers the ids
import pytest

import sb3_llm.envs  # noqa: F401  # registers the ids
from sb3_llm.describe.actions import KEYS
from sb3_llm.describe.memory import CLEARED, MAX_DEEDS, Deeds, Memory
from sb3_llm.describe.view import thing_of
from sb3_llm.pretrain.experts import make_expert
from tests.drawn import DrawnWorld, RealWalks, Truth, act, thing
from tests.walks import random_actions

STILL = (
    "MiniGrid-Empty-Random-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-MultiRoom-N4-S5-v0",
    "MiniGrid-SimpleCrossingS9N3-v0",
    "MiniGrid-LavaCrossingS9N1-v0",
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-LockedRoom-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
    "MiniGrid-BlockedUnlockPickup-v0",
    "MiniGrid-RedBlueDoors-8x8-v0",
    "MiniGrid-PutNear-8x8-N3-v0",
    "MiniGrid-Fetch-8x8-N3-v0",
    "MiniGrid-GoToDoor-6x6-v0",
    "MiniGrid-MemoryS9-v0",
    "MiniGrid-Playground-v0",
    "BabyAI-PutNextS5N2-v0",
    "BabyAI-SynthS5R2-v0",
    "BabyAI-GoToObjMazeS4-v0",
    "sb3_llm/MiniGridMaze-v0",
    "sb3_llm/Rooms-v0",
)
MOVING = tuple(f"MiniGrid-Dynamic-Obstacles-{name}-v0" for name in ("5x5", "Random-5x5", "6x6", "Random-6x6", "8x8"))


def lives(env_id: str, steps: int, purposeful: bool = False) -> Iterator[tuple[Any, Truth, Memory]]:
    """Every moment of some episodes: a random walk, or an expert's with every fifth step a random one."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    actions = random_actions(int(env.action_space.n), steps)
    ended = True
    for number, action in enumerate(actions):
        if ended or number % 60 == 0:
            obs, _ = env.reset(seed=number)
            truth, memory = Truth(env), Memory(obs)
            expert = make_expert(env, obs) if purposeful else None
            yield env, truth, memory
        if expert is not None and number % 5:
            action = KEYS.index(expert.advice()[0])
        obs, _, terminated, truncated, _ = env.step(action)
        truth.look()
        memory.note(action, obs)
        if expert is not None:
            expert.note(action, obs)
        ended = terminated or truncated
        if not terminated:  # nobody needs to know where it ended: in lava, or under an obstacle
            yield env, truth, memory


# --- dead reckoning


@pytest.mark.parametrize("purposeful", [False, True])
@pytest.mark.parametrize("env_id", STILL)
def test_memory_is_true_to_the_world(env_id: str, purposeful: bool) -> None:
    places = set()
    for env, truth, memory in lives(env_id, 120, purposeful):
        check_true(env, truth, memory)
        places.add(memory.place)
    assert len(places) > 3


@pytest.mark.parametrize("env_id", MOVING)
def test_memory_is_true_where_obstacles_move(env_id: str) -> None:
    moments = 0
    for env, truth, memory in lives(env_id, 400):
        check_true(env, truth, memory)
        moments += 1
    assert moments > 400


@pytest.mark.xfail(strict=True, reason="away from walls a step that an obstacle stopped counts as made: Memory.note")
def test_memory_is_true_where_obstacles_move_away_from_walls() -> None:
    for _, truth, memory in lives("MiniGrid-Dynamic-Obstacles-16x16-v0", 400):
        assert memory.place == truth.place


def check_true(env: Any, truth: Truth, memory: Memory) -> None:
    assert memory.place == truth.place
    assert memory.pose == (*truth.place, env.unwrapped.agent_dir)
    assert memory.in_view == set(truth.in_view)
    assert memory.known.keys() == truth.last.keys() | truth.trodden
    assert {place: memory.known[place] for place in truth.last} == truth.last
    carried = env.unwrapped.carrying
    assert memory.carrying == (None if carried is None else tuple(carried.encode()))
    x, y = memory.front
    assert (x + truth.start[0], y + truth.start[1]) == tuple(env.unwrapped.front_pos)
    for x, y in truth.in_view:
        across, down = env.unwrapped.get_view_coords(x + truth.start[0], y + truth.start[1])
        middle = env.unwrapped.agent_view_size // 2
        assert memory.relative((x, y)) == (2 * middle - down, across - middle)


def test_steps_that_fail_leave_the_place_alone() -> None:
    env = DrawnWorld("######", "#>Db.#", "#....#", "######")
    memory = Memory(env.reset()[0])

    def do(*names: str) -> tuple[tuple[int, int], str]:
        for name in names:
            action = KEYS.index(name)
            memory.note(action, act(env, action))
        front = thing_of(memory.known[memory.front])
        return memory.place, " ".join(word for word in front if word)

    assert do("go forward") == ((0, 0), "door yellow closed")
    assert do("pick up", "drop") == ((0, 0), "door yellow closed")
    assert do("open") == ((0, 0), "door yellow open")
    assert do("go forward") == ((1, 0), "ball blue")
    assert do("go forward") == ((1, 0), "ball blue")
    assert do("pick up") == ((1, 0), "empty")
    assert memory.carrying == (6, 2, 0)
    assert do("go forward", "go forward", "go forward") == ((3, 0), "wall")
    assert do("turn left", "turn left", "drop") == ((3, 0), "ball blue")
    assert memory.carrying is None
    assert memory.visits[0, 0, 0] == 5  # once at first, and once after each step that led nowhere


# --- from observations alone


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-8x8-v0", "MiniGrid-Dynamic-Obstacles-8x8-v0"])
def test_same_observations_give_the_same_memory_without_a_world(env_id: str) -> None:
    env = gymnasium.make(env_id)
    stream = [(None, env.reset(seed=3)[0])]
    for action in random_actions(int(env.action_space.n), 60):
        obs, _, terminated, _, _ = env.step(action)
        stream.append((action, obs))
        if terminated:
            break
    del env
    bare = [(action, {key: deepcopy(obs[key]) for key in ("image", "direction", "mission")}) for action, obs in stream]
    memory, again = Memory(stream[0][1]), Memory(bare[0][1])
    for (action, obs), (_, copied) in zip(stream[1:], bare[1:], strict=True):
        memory.note(action, obs)
        again.note(action, copied)
        for image in (copied["image"], obs["image"]):
            image[...] = 9  # a memory that kept it would change
    assert len(memory.visits) > 3
    assert state_of(memory) == state_of(again)


def test_a_copy_and_a_pickled_memory_go_on_by_themselves() -> None:
    _, _, memory = list(lives("MiniGrid-DoorKey-8x8-v0", 40, purposeful=True))[-1]
    before = state_of(memory)
    for twin in (deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert state_of(twin) == before
        twin.note(0, gymnasium.make("MiniGrid-Empty-8x8-v0").reset()[0])
        assert state_of(twin) != before
    assert state_of(memory) == before


def state_of(memory: Memory) -> dict[str, Any]:
    return vars(memory) | {"deeds": vars(memory.deeds), "routes": memory.routes(), "edges": memory.unknown_edges()}


# --- routes


@pytest.mark.parametrize(
    ("env_id", "every"),
    [
        ("MiniGrid-DoorKey-8x8-v0", 4),
        ("MiniGrid-LavaCrossingS9N1-v0", 4),
        ("MiniGrid-MultiRoom-N4-S5-v1", 6),
        ("MiniGrid-KeyCorridorS3R2-v0", 6),
        ("MiniGrid-BlockedUnlockPickup-v0", 6),
        ("MiniGrid-ObstructedMaze-1Dlhb-v0", 6),
        ("MiniGrid-FourRooms-v0", 12),
        ("sb3_llm/Rooms-v0", 6),
    ],
)
def test_routes_are_the_shortest_under_minigrids_own_rules(env_id: str, every: int) -> None:
    seen = Counter[str]()
    for number, (env, _, memory) in enumerate(lives(env_id, 72, purposeful=True)):
        if number % every == 0:
            seen += check_routes(env, memory)
    assert min(seen[name] for name in ("ahead", "left", "right")) > 20


def check_routes(env: Any, memory: Memory) -> Counter[str]:
    told = {pose: route for pose, route in memory.routes().items() if pose[2] < 4}
    real = RealWalks(env, memory).reached()
    assert {pose: moves for pose, (_, moves) in told.items()} == {pose: moves for pose, (moves, _) in real.items()}
    for pose, (first, moves) in told.items():
        assert (first is None and moves == 0) or first in real[pose][1], pose
    return Counter(first for first, _ in told.values() if first)


def pose_in(env: DrawnWorld, x: int, y: int, heading: int = 0) -> tuple[int, int, int]:
    """A pose by the drawing's columns and rows."""
    start = Truth(env).start
    return x - start[0], y - start[1], heading


@pytest.mark.parametrize(
    ("row", "hands", "expected"),
    [
        ("#>..#", ".", ("ahead", 2)),
        ("#>D.#", ".", ("open", 3)),  # one move to open, two to walk
        ("#>O.#", ".", ("ahead", 2)),
        ("#>L.#", ".", None),
        ("#>L.#", "k", ("open", 3)),
        ("#>L.#", "K", None),  # a key of another colour
        ("#>L.#", "b", None),
        ("#>G.#", ".", None),
        ("#>~.#", ".", None),
        ("#>b.#", ".", None),
        ("#>x.#", ".", None),
        ("#>k.#", ".", None),
    ],
)
def test_what_can_be_walked_over(row: str, hands: str, expected: tuple[str, int] | None) -> None:
    env = DrawnWorld("#####", row, "#####", see_through_walls=True)
    env.reset()
    env.carrying = thing(hands)
    memory = Memory(env.gen_obs())
    assert memory.routes().get(pose_in(env, 3, 1)) == expected


@pytest.mark.parametrize(
    ("row", "can"), [("#>b.#", 1), ("#>x.#", 1), ("#>k.#", 1), ("#>G.#", 0), ("#>~.#", 0), ("#>L.#", 0)]
)
def test_clearing_moves_things_and_costs_more_than_walking(row: str, can: bool) -> None:
    env = DrawnWorld("#####", row, "#####", see_through_walls=True)
    memory = Memory(env.reset()[0])
    route = memory.routes(clearing=True).get(pose_in(env, 3, 1))
    assert route == (("clear", 2 + CLEARED) if can else None)
    way_round = DrawnWorld("#####", row, "#...#", "#####", see_through_walls=True)
    memory = Memory(way_round.reset()[0])
    assert memory.routes(clearing=True)[pose_in(way_round, 3, 1)] == ("right", 8)


# --- deeds

EMPTY, KEY, DOOR, BALL, BOX = (1, 0, 0), (5, 4, 0), (4, 4, 1), (6, 2, 0), (7, 0, 0)
OPENED = (4, 4, 0)


@pytest.mark.parametrize(
    ("mission", "expected"),
    [
        ("pick up the yellow key", ()),
        ("put the blue ball next to the yellow key", ()),
        ("go to a blue ball", ()),
        (
            "pick up the yellow key, then open the yellow door",
            ("picked up yellow key", "opened yellow door", "dropped yellow key"),
        ),
        (
            "go to a blue ball and go to a yellow key",
            ("reached blue ball", "picked up yellow key", "dropped yellow key"),
        ),
        ("go to the green ball and go to the purple key", ()),
        (
            "pick up an object, then go to an object",
            ("reached blue ball", "picked up yellow key", "dropped yellow key", "reached red box"),  # a door is none
        ),
        ("go to the red box after you open a door", ("opened yellow door", "reached red box")),
        (
            "put the red box next to the yellow door and open the blue door, then go to the blue ball",
            ("reached blue ball", "opened yellow door", "reached red box"),
        ),
        ("use the key to open the door and then get to the goal", ()),  # one task, whatever its words
        ("pick up the yellow key, then sing", ()),
    ],
)
def test_deeds_with_what_the_mission_names(mission: str, expected: tuple[str, ...]) -> None:
    deeds = Deeds(mission)
    deeds.note_reached(None)
    deeds.note_reached(EMPTY)
    deeds.note_reached(BALL)
    deeds.note_hands(None, KEY)
    deeds.note_hands(KEY, KEY)
    deeds.note_door(DOOR, DOOR)
    deeds.note_door(DOOR, OPENED)
    deeds.note_hands(KEY, None)
    deeds.note_reached(BOX)
    assert said(deeds) == expected


def test_a_thing_named_without_colour_may_have_any() -> None:
    deeds = Deeds("open a door after you go to the red box")
    deeds.note_door(DOOR, OPENED)
    assert said(deeds) == ("opened yellow door",)


def test_a_deed_done_again_is_told_as_the_newest_and_the_last_few_alone() -> None:
    deeds = Deeds("pick up an object, then go to an object")
    for code in (KEY, BALL, KEY):
        deeds.note_hands(None, code)
    assert said(deeds) == ("picked up blue ball", "picked up yellow key")
    for color in range(MAX_DEEDS):
        deeds.note_reached((6, color, 0))
    assert said(deeds) == tuple(f"reached {color} ball" for color in ("red", "green", "blue", "purple"))


def said(deeds: Deeds) -> tuple[str, ...]:
    return tuple(f"{deed} {thing.color} {thing.kind}" for deed, thing in deeds.told())
