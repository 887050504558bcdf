"""Random MiniGrid worlds: what ends an episode, what the proof of a solution accepts, which arguments are refused."""

from typing import Any

import minigrid  # noqa: F401  # registers the ids
import numpy as np
import pytest
from minigrid.core.actions import Actions
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, WorldObj

from sb3_llm.envs.rooms import RoomsEnv
from sb3_llm.envs.rooms_kinds import KINDS
from sb3_llm.envs.rooms_layout import Link, Plan, Room, shared_wall
from sb3_llm.envs.rooms_world import World, is_solvable
from sb3_llm.errors import SetupError
from tests.rooms_player import Place, Player, targets_of

# --- what ends an episode


def stage(kind: str, mission: str, seeds: int = 400) -> RoomsEnv:
    """A world of that kind whose mission holds some words."""
    env = RoomsEnv(kind)
    for seed in range(seeds):
        env.reset(seed=seed)
        if mission in env.mission:
            return env
    raise AssertionError(mission)


def set_before(env: RoomsEnv, thing: WorldObj | None) -> None:
    """Put the agent on an empty floor of its own, with something right before it."""
    for place in [(x, y) for x in range(1, env.width - 1) for y in range(1, env.height - 1)]:
        ahead = (place[0] + 1, place[1])
        if env.grid.get(*place) is None and env.grid.get(*ahead) is None:
            env.agent_pos, env.agent_dir = place, 0
            if thing is not None:
                env.put_obj(thing, *ahead)
            return
    raise AssertionError("no empty floor")


def clear(env: RoomsEnv) -> None:
    """Nothing but floor, 9 x 9."""
    env.width, env.height, env.grid = 9, 9, Grid(9, 9)


def outcome(env: RoomsEnv, action: Actions) -> tuple[bool, bool]:
    """Whether the step ended the episode, and whether it paid."""
    _, reward, terminated, truncated, _ = env.step(action)
    assert not truncated
    assert reward in (0, pytest.approx(1 - 0.9 * env.step_count / env.max_steps))
    return terminated, reward > 0


def test_lava_ends_without_reward() -> None:
    env = stage("lava", "")
    set_before(env, Lava())
    assert outcome(env, Actions.forward) == (True, False)


def test_fetching_something_else_ends_without_reward() -> None:
    env = stage("fetch", "fetch a")
    set_before(env, Box("grey") if "grey box" not in env.mission else Ball("grey"))
    assert outcome(env, Actions.pickup) == (True, False)


def test_picking_up_something_else_goes_on_in_other_kinds() -> None:
    env = stage("corridor", "pick up")
    set_before(env, Box("grey") if "grey box" not in env.mission else Ball("grey"))
    assert outcome(env, Actions.pickup) == (False, False)


def test_arriving_is_not_saying_done() -> None:
    env = stage("gotodone", "ball")
    place = targets_of(env)[0][0]
    player = Player(env)
    player.face(place)
    assert outcome(env, Actions.toggle) == (False, False)
    assert outcome(env, Actions.done) == (True, True)
    env.reset(seed=0)
    set_before(env, None)
    assert outcome(env, Actions.done) == (True, False)


def test_going_to_something_is_not_done_before_it_begins() -> None:
    env = RoomsEnv("goto")
    for seed in range(100):
        env.reset(seed=seed)
        assert outcome(env, Actions.done) == (False, False)


def test_the_second_door_first_ends_without_reward() -> None:
    env = stage("opentwo", "")
    first, second = (env.grid.get(*places[0]) for places in targets_of(env))
    set_before(env, second)
    assert outcome(env, Actions.toggle) == (True, False)
    env.reset(seed=1)
    first, second = (env.grid.get(*places[0]) for places in targets_of(env))
    set_before(env, first)
    assert outcome(env, Actions.toggle) == (False, False)
    set_before(env, second)
    assert outcome(env, Actions.toggle) == (True, True)


@pytest.mark.parametrize(
    ("words", "offset", "ends"),
    [("next to", (0, 1), True), ("next to", (1, 1), False), ("near", (1, 1), True), ("near", (0, 2), False)],
)
def test_putting_beside(words: str, offset: Place, ends: bool) -> None:
    env = stage("putnear", words)
    first, second = (env.grid.get(*places[0]) for places in targets_of(env))
    clear(env)
    env.agent_pos, env.agent_dir, env.carrying = (1, 1), 0, first
    env.put_obj(second, 2 + offset[0], 1 + offset[1])
    assert outcome(env, Actions.drop) == (ends, ends)


def test_putting_the_other_thing_goes_on() -> None:
    env = stage("putnear", "near")
    first, second = (env.grid.get(*places[0]) for places in targets_of(env))
    clear(env)
    env.agent_pos, env.agent_dir, env.carrying = (1, 1), 0, second
    env.put_obj(first, 2, 2)
    assert outcome(env, Actions.drop) == (False, False)  # lies beside the first now, but the first was to be moved


def test_carrying_one_thing_to_another() -> None:
    env = stage("carryto", "")
    first, second = (env.grid.get(*places[0]) for places in targets_of(env))
    clear(env)
    env.agent_pos, env.agent_dir = (1, 1), 0
    env.put_obj(second, 2, 1)
    assert outcome(env, Actions.done) == (False, False)
    env.carrying = first
    assert outcome(env, Actions.done) == (True, True)


# --- the proof


TWO_ROOMS = Plan(9, 4, (Room(1, 1, 3, 2), Room(5, 1, 7, 2)), (Link((4, 1), 0, 1),))


def world_with(things: dict[Place, WorldObj], plan: Plan = TWO_ROOMS, **fields: Any) -> World:
    world = World(np.random.default_rng(0), plan, things, **({"agent": (1, 1)} | fields))
    world.task = world.task._replace(target=next(iter(things.values())))
    return world


def test_the_proof_says_no() -> None:
    lock, key, goal = Door("red", is_locked=True), Key("red"), Goal()
    assert is_solvable(world_with({(7, 2): goal}))
    assert is_solvable(world_with({(7, 2): goal, (4, 1): Door("red")}))
    assert not is_solvable(world_with({(7, 2): goal, (4, 1): lock}))
    assert not is_solvable(world_with({(7, 2): goal, (3, 1): Lava()}))
    assert is_solvable(world_with({(7, 2): goal, (4, 1): lock, (1, 2): key}, lock=(4, 1), key=(1, 2)))
    assert not is_solvable(world_with({(7, 2): goal, (4, 1): lock, (7, 1): key}, lock=(4, 1), key=(7, 1)))
    behind = {(7, 2): goal, (4, 1): lock, (1, 2): key, (6, 1): Lava(), (6, 2): Lava()}
    assert not is_solvable(world_with(behind, lock=(4, 1), key=(1, 2)))


def test_the_proof_wants_places_to_put_things_down() -> None:
    narrow = Plan(9, 3, (Room(1, 1, 3, 1), Room(5, 1, 7, 1)), (Link((4, 1), 0, 1),))
    things: dict[Place, WorldObj] = {(7, 1): Goal(), (4, 1): Door("red", is_locked=True), (2, 1): Key("red")}
    assert is_solvable(world_with(things, narrow, lock=(4, 1), key=(2, 1)))
    things[3, 1] = Ball("blue")
    assert not is_solvable(world_with(things, narrow, lock=(4, 1), key=(2, 1), blocker=(3, 1)))
    # One cell to put the ball on, but it would lie between agent and key.
    tight = Plan(10, 3, (Room(1, 1, 4, 1), Room(6, 1, 8, 1)), (Link((5, 1), 0, 1),))
    things = {(8, 1): Goal(), (5, 1): Door("red", is_locked=True), (1, 1): Key("red"), (4, 1): Ball("blue")}
    assert not is_solvable(world_with(things, tight, agent=(2, 1), lock=(5, 1), key=(1, 1), blocker=(4, 1)))
    wide: dict[Place, WorldObj] = {(7, 2): Goal(), (4, 1): Door("red", is_locked=True), (1, 2): Key("red")}
    wide[3, 1] = Ball("blue")
    assert is_solvable(world_with(wide, lock=(4, 1), key=(1, 2), blocker=(3, 1)))


def test_the_proof_knows_the_order_of_doors() -> None:
    row = Plan(10, 4, (Room(1, 1, 2, 2), Room(4, 1, 5, 2), Room(7, 1, 8, 2)), (Link((3, 1), 0, 1), Link((6, 1), 1, 2)))
    near, far = Door("red"), Door("blue")
    world = World(np.random.default_rng(0), row, {(3, 1): near, (6, 1): far}, agent=(1, 1))
    world.ask("", "open two", near, far)
    assert is_solvable(world)
    world.ask("", "open two", far, near)
    assert not is_solvable(world)


def test_shared_walls() -> None:
    room = Room(1, 1, 3, 4)
    assert shared_wall(room, Room(5, 3, 6, 7)) == shared_wall(Room(5, 3, 6, 7), room) == [(4, 3), (4, 4)]
    assert shared_wall(room, Room(2, 6, 6, 7)) == shared_wall(Room(2, 6, 6, 7), room) == [(2, 5), (3, 5)]
    assert shared_wall(room, Room(5, 6, 6, 7)) == shared_wall(room, Room(6, 1, 7, 4)) == []


# --- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "maze"},
            f"kind='maze'. Expected: 'any' or one of {list(KINDS)}. To mend it: pass kind='any'.",
        ),
        ({"kind": ["goal"]}, f"kind=['goal']. Expected: 'any' or one of {list(KINDS)}. To mend it: pass kind='any'."),
        ({"max_size": 8}, "max_size=8. Expected: a whole number from 9 to 25. To mend it: pass max_size=13."),
        ({"max_size": 9.5}, "max_size=9.5. Expected: a whole number from 9 to 25. To mend it: pass max_size=13."),
        ({"max_size": True}, "max_size=True. Expected: a whole number from 9 to 25. To mend it: pass max_size=13."),
        (
            {"max_steps": 0},
            "max_steps=0. Expected: a whole number from 1 to 1000000000. To mend it: pass max_steps=200.",
        ),
        (
            {"width": 8, "height": 9},
            "['height', 'width'], which are drawn for each world. Expected: max_size and kind. "
            "To mend it: pass max_size=13.",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError) as error:
        RoomsEnv(**options)
    assert str(error.value) == message
