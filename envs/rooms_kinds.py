"""The kinds of random MiniGrid worlds: the table of all, and those that ask for the goal and need no key."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from minigrid.core.world_object import Lava

from sb3_llm.envs.rooms_keys import draw_blocked, draw_boxed, draw_corridor, draw_key_door, draw_locked_room
from sb3_llm.envs.rooms_layout import Cell, chain, divided, draw_size, flood, one_room, pick, rivers, side_of
from sb3_llm.envs.rooms_things import (
    draw_carry_to,
    draw_fetch,
    draw_go_to,
    draw_go_to_and_say,
    draw_open,
    draw_open_two,
    draw_put_near,
)
from sb3_llm.envs.rooms_world import GREEN, LAVA, OPENING, REACH, TRAVERSE, Crowded, World, is_solvable
from sb3_llm.errors import SetupError

Random = np.random.Generator


def draw_goal(rng: Random, max_size: int) -> World:
    """One room or several, joined by gaps and doors."""
    one = rng.random() < 0.25
    world = World(rng, divided(rng, max_size, 1, 1) if one else divided(rng, max_size, 2, 9, extra=0.2))
    world.put_doors(pick(rng, (0.0, 0.0, 0.5, 1.0)))
    world.put_goal(pick(rng, (REACH, GREEN) if one else (REACH, GREEN, TRAVERSE)))
    world.put_agent()
    return world


def draw_walls(rng: Random, max_size: int) -> World:
    """A room crossed by walls; in half of the worlds only the gaps between agent and goal are open."""
    plan = rivers(rng, draw_size(rng, 7, max_size), int(rng.integers(1, 5)), extra=0.1 * int(rng.integers(3)))
    start, end = rng.integers(len(plan.rooms), size=2).tolist()
    if rng.integers(2) and start != end:
        plan = plan.replace_links(link for link in plan.links if end not in side_of(plan.links, start, without=link))
    world = World(rng, plan)
    world.put_goal(pick(rng, (OPENING, REACH, GREEN)), [end])
    world.put_agent([start])
    return world


def draw_lava(rng: Random, max_size: int) -> World:
    """A room crossed by lava, or with lava here and there, or in strips."""
    shape = pick(rng, ("rivers", "rivers", "scattered", "strips"))
    if shape == "rivers":
        world = draw_walls(rng, max_size)
        inside = one_room((world.plan.width, world.plan.height)).rooms[0].cells()
        world.things |= {cell: Lava() for cell in inside if cell not in world.floor and cell not in world.links}
    else:
        world = _open_lava(rng, max_size, _strips if shape == "strips" else _scattered)
    world.mission = pick(rng, (LAVA, LAVA, GREEN, REACH))
    return world


def _open_lava(rng: Random, max_size: int, burn: Callable[[Random, World], set[Cell]]) -> World:
    world = World(rng, one_room(draw_size(rng, 5, max_size)))
    world.things = {cell: Lava() for cell in sorted(burn(rng, world))}
    world.put_goal(LAVA)
    safe = flood(world.walkable(), world.where(world.task.target))[1:]
    if len(safe) < 4:
        raise Crowded
    world.put_agent(among=safe)
    return world


def _scattered(rng: Random, world: World) -> set[Cell]:
    share = rng.uniform(0.08, 0.25)
    return {cell for cell in sorted(world.floor) if rng.random() < share}


def _strips(rng: Random, world: World) -> set[Cell]:
    """Between one and three strips along or across, each with a gap at one end or both."""
    sides = (world.plan.width - 2, world.plan.height - 2)
    burning = set()
    for axis in rng.integers(2, size=int(rng.integers(1, 4))).tolist():
        length = int(rng.integers(2, sides[axis]))
        first, line = int(rng.integers(1, sides[axis] - length + 2)), int(rng.integers(1, sides[1 - axis] + 1))
        strip = [(at, line) for at in range(first, first + length)]
        burning |= {cell if axis == 0 else (cell[1], cell[0]) for cell in strip}
    return burning


def draw_chain(rng: Random, max_size: int) -> World:
    """Rooms behind closed doors, one after the other."""
    world = World(rng, chain(rng, draw_size(rng, 9, max_size), int(rng.integers(2, 8))))
    world.put_doors(1.0)
    world.put_goal(pick(rng, (TRAVERSE, TRAVERSE, REACH, GREEN)), [len(world.plan.rooms) - 1])
    world.put_agent([0])
    return world


# --- all kinds


class Kind(NamedTuple):
    """
    A kind of world.

    :param draw: makes one; raises :class:`Crowded` if a draw can't be finished
    :param weight: how often kind "any" gives it, in relation to the others
    :param steps: default time limit, in steps a cell of the grid
    """

    draw: Callable[[Random, int], World]
    weight: float = 1.0
    steps: int = 5


KINDS: dict[str, Kind] = {
    "goal": Kind(draw_goal, 3.0),
    "walls": Kind(draw_walls, 2.0),
    "lava": Kind(draw_lava, 2.0),
    "chain": Kind(draw_chain, 2.0),
    "keydoor": Kind(draw_key_door, 3.0, steps=10),
    "lockedroom": Kind(draw_locked_room, 1.5, steps=10),
    "corridor": Kind(draw_corridor, 1.5, steps=10),
    "blocked": Kind(draw_blocked, 1.5, steps=10),
    "boxed": Kind(draw_boxed, 0.5, steps=10),
    "fetch": Kind(draw_fetch, 1.5),
    "goto": Kind(draw_go_to),
    "gotodone": Kind(draw_go_to_and_say, 1.5),
    "open": Kind(draw_open, steps=10),
    "opentwo": Kind(draw_open_two),
    "putnear": Kind(draw_put_near, 1.5),
    "carryto": Kind(draw_carry_to),
}
_NAMES = tuple(KINDS)
_BOUNDS = np.cumsum([kind.weight for kind in KINDS.values()])

#: A draw fails about one time in ten, so this many in a row never fail.
MAX_DRAWS = 100


def draw_kind(rng: Random) -> str:
    """:return: a kind, by weight."""
    return _NAMES[int(np.searchsorted(_BOUNDS, rng.random() * _BOUNDS[-1], side="right"))]


def draw_world(kind: str, rng: Random, max_size: int) -> World:
    """
    Draw worlds until one can be solved.

    :param kind: a key of :data:`KINDS`
    :param rng: every draw comes from here
    :param max_size: the largest outer width and height
    :return: a world that :func:`~sb3_llm.envs.rooms_world.is_solvable` proves solvable
    :raises SetupError: if there seems to be none
    """
    for _ in range(MAX_DRAWS):
        try:
            world = KINDS[kind].draw(rng, max_size)
        except Crowded:
            continue
        if is_solvable(world):
            return world
    raise SetupError(
        f"kind={kind!r} with max_size={max_size}, and no solvable world in {MAX_DRAWS} draws",
        "room for everything that the kind needs",
        "pass a larger max_size, such as 13",
    )
