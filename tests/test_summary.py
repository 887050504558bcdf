"""The summary told from a memory: ways that work, everything untried and nothing else, and texts that lose nothing."""

from collections.abc import Hashable, Mapping
from typing import Any

import gymnasium
import minigrid  # noqa: F401  # registers the ids
import numpy as np
import pytest
from numpy.typing import NDArray

import sb3_llm.envs  # noqa: F401  # registers the ids
from sb3_llm.describe.maze import describe_maze
from sb3_llm.describe.maze_memory import MazeMemory
from sb3_llm.describe.memory import Memory, Place
from sb3_llm.describe.minigrid import describe_minigrid
from sb3_llm.describe.summary import MAX_BEFORE, MAX_UNTRIED, OPENING, Ways, groups, recall
from sb3_llm.describe.view import read_view
from sb3_llm.envs.layout import DIRECTIONS, GENERATORS, OFFSETS, open_directions
from sb3_llm.envs.maze import Code, MazeEnv, view_grid
from sb3_llm.words.facts import Spot, Thing
from tests.drawn import MOVES, DrawnWorld, RealWalks, Truth, act, thing
from tests.test_memory import lives
from tests.walks import wander


def remembered(*rows: str, hands: str = ".", **kwargs: Any) -> tuple[DrawnWorld, Memory]:
    env = DrawnWorld(*rows, **{"see_through_walls": True} | kwargs)
    env.reset()
    env.carrying = thing(hands)
    return env, Memory(env.gen_obs())


# --- the ways to things


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("#>k..#", Spot(Thing("key", "yellow"), 1, 0, "here", 0)),
        ("#>.k.#", Spot(Thing("key", "yellow"), 2, 0, "ahead", 1)),
        ("#>D..#", Spot(Thing("door", "yellow", "closed"), 1, 0, "here", 0)),
        ("#>.L.#", Spot(Thing("door", "yellow", "locked"), 2, 0, "ahead", 1)),
        ("#>..G#", Spot(Thing("goal"), 3, 0, "ahead", 3)),  # to stand on it, not before it
        ("#>G..#", Spot(Thing("goal"), 1, 0, "ahead", 1)),
        ("#>.~.#", Spot(Thing("lava"), 2, 0)),
        ("#>#.k#", Spot(Thing("key", "yellow"), 3, 0)),  # no way is known
    ],
)
def test_way_to_one_thing(row: str, expected: Spot) -> None:
    env, memory = remembered("######", row, "######")
    view, past = recall(memory, read_view(env.gen_obs()), ())
    assert (*view.seen, *past.before) == (expected,)


def test_things_are_moved_only_where_there_is_no_other_way() -> None:
    _, shut = remembered("######", "#>bD.#", "######")
    _, around = remembered("######", "#>bD.#", "#....#", "######")
    door, there = Thing("door", "yellow", "closed"), (2, 0)
    assert Ways(shut).spot(there) == Spot(door, 2, 0, "clear", 9)
    assert Ways(around).spot(there) == Spot(door, 2, 0, "right", 6)  # and look at it from below
    assert Ways(shut).spot((1, 0)) == Spot(Thing("ball", "blue"), 1, 0, "here", 0)


def test_a_long_way_round_is_taken_before_anything_is_moved() -> None:
    _, memory = remembered("#########", "#>b..k..#", "#.#####.#", "#.#####.#", "#.......#", "#########")
    assert Ways(memory).spot((4, 0)) == Spot(Thing("key", "yellow"), 4, 0, "right", 17)
    assert Ways(memory).spot((1, 0)) == Spot(Thing("ball", "blue"), 1, 0, "here", 0)
    _, shut = remembered("#########", "#>b..k..#", "#.#####.#", "#.#####.#", "#...#...#", "#########")
    assert Ways(shut).spot((4, 0)) == Spot(Thing("key", "yellow"), 4, 0, "clear", 11)


def test_opening_a_door_on_the_way_is_one_move() -> None:
    rows = ("######", "#>D.b#", "######")
    for door, expected in (("D", ("open", 3)), ("O", ("ahead", 2)), ("L", (None, None))):
        _, memory = remembered(*(row.replace("D", door) for row in rows))
        assert Ways(memory).spot((3, 0))[3:] == expected
    _, memory = remembered("######", "#>L.b#", "######", hands="k")
    assert Ways(memory).spot((3, 0))[3:] == ("open", 3)


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-DoorKey-8x8-v0",
        "MiniGrid-BlockedUnlockPickup-v0",
        "MiniGrid-ObstructedMaze-1Dlhb-v0",
        "sb3_llm/Rooms-v0",
    ],
)
def test_every_spot_is_where_it_is_said_to_be_and_its_way_works(env_id: str) -> None:
    told, ways = 0, set()
    for number, (env, truth, memory) in enumerate(lives(env_id, 60, purposeful=True)):
        if number % 5:
            continue
        view, past = recall(memory, read_view(env.unwrapped.gen_obs()), ())
        real = RealWalks(env, memory).reached()
        places = {memory.relative(place): place for place in memory.known}
        for spot in (*view.seen, *past.before):
            place = places[spot.ahead, spot.right]
            kind = spot.thing.kind
            assert place in truth.in_view or spot in past.before
            check_way(spot, place, real)
            assert (spot.way == "here") == ((spot.ahead, spot.right) == (1, 0) and kind not in ("goal", "lava")), spot
            told, ways = told + 1, ways | {spot.way}
    assert told > 20
    assert {"here", "ahead", "left", "right"} <= ways


def check_way(spot: Spot, place: Place, real: Mapping[tuple[int, int, int], tuple[int, set[str]]]) -> None:
    """Against every pose that MiniGrid's own steps reach: from which of them is the place ahead soonest?"""
    poses = [(place[0] - x, place[1] - y, heading) for heading, (x, y) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1)))]
    reached = [real[pose] for pose in poses if pose in real]
    if spot.thing.kind == "lava":
        assert spot.way is None
    elif not reached:
        assert spot.way in (None, "clear") or (spot.moves or 0) > 8, spot  # something has to be moved on the way
    else:
        fewest = min(moves for moves, _ in reached)
        firsts = set().union(*(names for moves, names in reached if moves == fewest))
        last = ("ahead", 1) if spot.thing.kind == "goal" else ("here", 0)
        assert spot.moves == fewest + last[1], spot
        assert spot.way in (firsts if fewest else {last[0]}), spot


def test_the_nearest_come_first_and_no_more_than_are_read_well() -> None:
    rows = ["#" * 9, "#" + "." * 7 + "#", "#...^...#", "#" + "." * 7 + "#", "#kbkbkbk#", "#" * 9]
    env, memory = remembered(*rows, agent_view_size=9)
    for _ in range(2):
        memory.note(1, act(env, 1))
    for _ in range(2):
        memory.note(0, act(env, 0))
    view, past = recall(memory, read_view(env.gen_obs(), compass=False), ("turn left", "turn left"))
    assert view.seen == ()
    assert view.compass is None
    assert past.turns == ("turn left", "turn left")
    assert past.visits == 2
    assert len(past.before) == MAX_BEFORE
    moves = [spot.moves for spot in past.before]
    assert moves == sorted(moves)
    assert [spot.ahead for spot in past.before] == [-2] * MAX_BEFORE


# --- what is left to try


STATIC = (
    "MiniGrid-FourRooms-v0",
    "MiniGrid-MultiRoom-N4-S5-v1",
    "MiniGrid-SimpleCrossingS9N3-v0",
    "MiniGrid-RedBlueDoors-8x8-v0",
    "MiniGrid-Empty-Random-6x6-v0",
    "sb3_llm/MiniGridMaze-v0",
    "BabyAI-GoToObjMazeS4-v0",
    "BabyAI-OpenDoor-v0",
)
ROOMS = ("goal", "walls", "chain")
EVERYWHERE = [(env_id, {}) for env_id in STATIC] + [("sb3_llm/Rooms-v0", {"kind": kind}) for kind in ROOMS]


@pytest.mark.parametrize(("env_id", "env_kwargs"), EVERYWHERE)
def test_following_the_first_untried_sees_everything_and_then_nothing_is_left(
    env_id: str, env_kwargs: dict[str, Any]
) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    for seed in range(1 if env.unwrapped.width > 15 else 3):
        memory, truth = Memory(env.reset(seed=seed)[0]), Truth(env)
        floor = reachable(env, truth)
        for _ in range(2 * 4 * len(floor)):
            untried = Ways(memory).untried()
            assert bool(untried) == something_is_left(env, truth, memory)
            if not untried:
                break
            action = MOVES[str(untried[0].way)]
            memory.note(action, act(env, action))
        assert not untried, "it walks in circles"
        assert floor <= memory.known.keys()
        assert {(x + right, y + down) for x, y in floor for down, right in OFFSETS} <= memory.known.keys()


def reachable(env: Any, truth: Truth, known: set[Place] | None = None) -> set[Place]:
    """Floor and doors that walking can reach, from the world itself; nothing is moved, and the goal ends the walk."""
    found, stack = {truth.place}, [truth.place]
    while stack:
        x, y = stack.pop()
        for down, right in OFFSETS:
            place = (x + right, y + down)
            what = env.unwrapped.grid.get(place[0] + truth.start[0], place[1] + truth.start[1])
            free = what is None or (what.type == "door" and not what.is_locked)
            if free and place not in found and (known is None or place in known):
                found.add(place)
                stack.append(place)
    return found


def something_is_left(env: Any, truth: Truth, memory: Memory) -> bool:
    """Whether a place beside known floor was never in view, or a door on it is shut."""
    floor = reachable(env, truth, set(memory.known))
    beside = {(x + right, y + down) for x, y in floor - shut(env, truth) for down, right in OFFSETS}
    return bool(floor & shut(env, truth)) or not beside <= memory.known.keys()


def shut(env: Any, truth: Truth) -> set[Place]:
    doors = {place: env.unwrapped.grid.get(*place) for place in np.ndindex(env.unwrapped.width, env.unwrapped.height)}
    return {
        (x - truth.start[0], y - truth.start[1])
        for (x, y), what in doors.items()
        if what is not None and what.type == "door" and not what.is_open
    }


def test_a_closed_door_is_listed_until_it_is_open_and_a_locked_one_needs_its_key() -> None:
    closed = Spot(Thing("door", "yellow", "closed"), 1, 0, "open", 1)
    env, memory = remembered("#####", "#>D.#", "#####")
    for expected in ([closed], [], [closed]):
        assert untried_doors(memory) == expected
        memory.note(5, act(env, 5))
    for hands, count in ((".", 0), ("K", 0), ("b", 0), ("k", 1)):
        _, memory = remembered("#####", "#>L.#", "#####", hands=hands)
        assert len(untried_doors(memory)) == count


def untried_doors(memory: Memory) -> list[Spot]:
    return [spot for spot in Ways(memory).untried() if spot.thing != OPENING]


def test_openings_that_touch_are_one_and_the_best_two_are_told() -> None:
    route = ("ahead", 1)
    together = groups([(route, place) for place in ((0, 0), (1, 1), (2, 2), (5, 0), (7, 0), (5, 1))])
    assert sorted(sorted(place for _, place in group) for group in together) == [
        [(0, 0), (1, 1), (2, 2)],
        [(5, 0), (5, 1)],
        [(7, 0)],
    ]
    most = 0
    for number, (env, _, memory) in enumerate(lives("MiniGrid-LockedRoom-v0", 60)):
        if number % 6 == 0:
            untried = Ways(memory).untried()
            _, past = recall(memory, read_view(env.unwrapped.gen_obs()), ())
            assert past.untried == tuple(untried[:MAX_UNTRIED])
            most = max(most, len(untried))
    assert most > MAX_UNTRIED


def test_ways_leave_the_memory_as_it_was() -> None:
    env, memory = remembered("######", "#>bD.#", "#...##", "######")
    before = (dict(memory.known), memory.pose, dict(memory.visits), memory.deeds.told())
    first = recall(memory, read_view(env.gen_obs()), ())
    assert recall(memory, read_view(env.gen_obs()), ()) == first
    assert (dict(memory.known), memory.pose, dict(memory.visits), memory.deeds.told()) == before


# --- the text alone tells one view from another


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-DoorKey-6x6-v0",
        "MiniGrid-SimpleCrossingS9N3-v0",
        "MiniGrid-FourRooms-v0",
        "sb3_llm/MiniGridMaze-v0",
        "BabyAI-GoToLocal-v0",
    ],
)
def test_distinct_views_have_distinct_texts(env_id: str) -> None:
    texts: dict[Hashable, str] = {}
    for obs in wander(gymnasium.make(env_id, disable_env_checker=True), 3000):
        view = (obs["image"].tobytes(), int(obs["direction"]), obs["mission"])
        if view not in texts:
            texts[view] = describe_minigrid(obs)
    check_sufficient(env_id, texts)


def check_sufficient(env_id: str, texts: dict[Hashable, str]) -> None:
    ratio = len(texts) / len(set(texts.values()))
    print(f"{env_id}: {len(texts)} views in {len(set(texts.values()))} texts, {ratio:.3f} for each")
    assert len(texts) > 200
    assert ratio <= 1.05


def test_distinct_views_of_a_maze_have_distinct_texts_as_far_as_the_text_reaches() -> None:
    whole: dict[Hashable, str] = {}
    reach: dict[Hashable, str] = {}
    for obs in wander(gymnasium.make("sb3_llm/Maze-v0"), 3000):
        text, where = describe_maze(obs), tuple(obs["position"])
        whole[where, obs["view"].tobytes()] = reach[where, in_reach(view_grid(obs["view"]))] = text
    print(f"maze: {len(whole)} whole views, {len(reach)} as far as the text reaches, {len(set(whole.values()))} texts")
    assert len(set(whole.values())) > 100
    assert len(reach) == len(set(whole.values()))
    assert len(whole) / len(reach) < 2  # the corners of the window are left out


def in_reach(view: NDArray[np.uint8]) -> bytes:
    """What can be seen down the four ways from the middle: each next cell with its walls, where no wall hides it."""
    seen = np.zeros_like(view)
    for turn in range(4):
        turned, kept = np.rot90(view, turn), np.rot90(seen, turn)
        kept[2, 3] = turned[2, 3]
        if turned[2, 3] != Code.WALL:
            kept[1, 3] = turned[1, 3]
            if turned[1, 3] != Code.GOAL:  # where it leads on is not told: nobody goes on from there
                kept[0, 3], kept[1, 2], kept[1, 4] = turned[0, 3], turned[1, 2], turned[1, 4]
    return seen.tobytes()


# --- the maze


@pytest.mark.parametrize("trail", [True, False])
@pytest.mark.parametrize("generator", list(GENERATORS))
@pytest.mark.parametrize("size", range(3, 9))
def test_the_first_untried_cell_leads_out_of_every_maze(generator: str, size: int, trail: bool) -> None:
    env = MazeEnv(size, generator, split="all", trail=trail)
    for seed in range(30 if trail else 3):
        obs, _ = env.reset(seed=seed)
        memory = MazeMemory(obs)
        seen = {env.position} | beyond(env)
        for _ in range(4 * size * size):
            check_maze(env, memory, seen)
            obs, _, ended, _, _ = env.step(DIRECTIONS.index(memory.untried()[0].direction))
            memory.note(obs)
            seen |= {env.position} | beyond(env)
            if ended:
                break
        assert ended, (generator, size, seed)


@pytest.mark.parametrize("size", [3, 4, 6])
def test_exits_of_a_whole_map_are_right(size: int) -> None:
    env = MazeEnv(size, split="all", view="full")
    memory = MazeMemory(env.reset(seed=0)[0])
    every = {(row, column) for row in range(size) for column in range(size)}
    # A whole map no larger than the window is read as the window is.
    assert memory.exits.keys() == ({env.position} | beyond(env) if size == 3 else every)
    assert all(exits == list(open_directions(env.walls, cell)) for cell, exits in memory.exits.items())


def beyond(env: MazeEnv) -> set[tuple[int, int]]:
    """The cells one open step from the walker, which its text tells of, and no others."""
    row, column = env.position
    return {(row + OFFSETS[way][0], column + OFFSETS[way][1]) for way in open_directions(env.walls, env.position)}


def check_maze(env: MazeEnv, memory: MazeMemory, seen: set[tuple[int, int]]) -> None:
    assert memory.cell == env.position
    assert memory.exits.keys() == seen
    assert {cell: memory.exits[cell] for cell in beyond(env)} == {
        cell: list(open_directions(env.walls, cell)) for cell in beyond(env)
    }
    assert memory.exits[env.position] == list(open_directions(env.walls, env.position))
    assert {cell for cell, visits in memory.visits.items() if visits} <= env.walked
    assert sum(memory.visits.values()) == memory.past(()).visits + sum(
        visits for cell, visits in memory.visits.items() if cell != env.position
    )
