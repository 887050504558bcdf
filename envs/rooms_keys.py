"""Random MiniGrid worlds with a locked door, and the key to it somewhere."""

import numpy as np
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Door, Key, WorldObj

from sb3_llm.envs.rooms_layout import MIN_SIDE, Cell, Link, divided, hall, neighbours, pick, shuffled, side_of
from sb3_llm.envs.rooms_world import GREEN, REACH, USE_KEY, World, ask_to_open, draw_thing, name_of

Random = np.random.Generator


def draw_key_door(rng: Random, max_size: int) -> World:
    """The goal, or a thing, or nothing but the task itself, behind a locked door."""
    return _key_door(rng, max_size)


def draw_blocked(rng: Random, max_size: int) -> World:
    """As :func:`draw_key_door`, with something right before the locked door."""
    return _key_door(rng, max_size, blocked=True)


def draw_boxed(rng: Random, max_size: int) -> World:
    """As :func:`draw_key_door`, with the key in a box."""
    return _key_door(rng, max_size, boxed=True)


def _key_door(rng: Random, max_size: int, blocked: bool = False, boxed: bool = False) -> World:
    world = World(rng, divided(rng, max_size, 2, 6))
    lock, near, far = _draw_lock(world)
    color, *others = shuffled(rng, COLOR_NAMES)
    _lock(world, lock, color)
    target = draw_thing(rng, [f"{color} key"])
    but = [f"{color} key", name_of(target)]
    if blocked:
        world.blocker = next(cell for room in near for cell in _fronts(world, lock, room))
        world.things[world.blocker] = draw_thing(rng, but, ("ball", "ball", "box"))
    world.put_doors(pick(rng, (0.0, 0.5, 1.0)), others)
    to_open = _ask_behind(world, target, far)
    key: WorldObj = Key(color)
    if boxed:
        key = draw_thing(rng, but, ("box",))
        key.contains = Key(color)  # type: ignore[assignment]  # MiniGrid types it None
    world.key = world.put(key, near)
    world.put_agent(sorted(near))
    _lock_decoys(world, lock, others)
    if to_open:  # last, for the mission counts all doors
        ask_to_open(world, world.things[lock.cell])
    world.put_objects(int(rng.integers(0, 4)), but)
    return world


def _draw_lock(world: World) -> tuple[Link, set[int], set[int]]:
    """:return: a link, and the rooms on either side of it; there is no way around, for a divided plan is a tree."""
    link = pick(world.rng, world.plan.links)
    sides = [side_of(world.plan.links, room, without=link) for room in (link.first, link.second)]
    near, far = shuffled(world.rng, sides)
    return link, near, far


def _lock(world: World, link: Link, color: str) -> None:
    world.lock = link.cell
    world.things[link.cell] = Door(color, is_locked=True)


def _fronts(world: World, link: Link, room: int) -> list[Cell]:
    cells = set(world.plan.rooms[room].cells())
    return [cell for cell in neighbours(link.cell) if cell in cells]


def _ask_behind(world: World, target: WorldObj, far: set[int]) -> bool:
    """Ask for the goal or a thing behind the locked door, or for nothing: the door itself is left to be asked for."""
    asked = world.rng.random()
    if asked < 0.45:
        world.put_goal(pick(world.rng, (USE_KEY, USE_KEY, REACH, GREEN)), far)
    elif asked < 0.8:
        world.put(target, far)
        world.ask(f"pick up the {name_of(target)}", "pick up", target)
    return asked >= 0.8


def _lock_decoys(world: World, lock: Link, colors: list[str]) -> None:
    """Lock some rooms that hold nothing and lead nowhere, with doors whose key may not exist."""
    for link in world.plan.links:
        for room in (link.first, link.second):
            alone = len(side_of(world.plan.links, room, without=link)) == 1
            used = any(cell in world.things or cell == world.agent for cell in world.plan.rooms[room].cells())
            if alone and not used and link != lock and world.rng.random() < 0.3:
                world.things[link.cell] = Door(pick(world.rng, colors), is_locked=True)


def draw_locked_room(rng: Random, max_size: int) -> World:
    """Rooms around a corridor: the goal in a locked one, the key in another."""
    world, locked, key_room = _hall(rng, max_size)
    world.put_goal(pick(rng, (USE_KEY, REACH, GREEN)), [locked.second])
    door, lock = world.things.get(key_room.cell), world.things[locked.cell]
    if door in world.doors() and rng.integers(2):
        there = f"get the {lock.color} key from the {door.color} room"
        world.mission = f"{there}, unlock the {lock.color} door and go to the goal"
    world.put_objects(pick(rng, (0, 0, 1, 2)), [f"{lock.color} key"])
    _start_in_hall(world, locked)
    return world


def draw_corridor(rng: Random, max_size: int) -> World:
    """Rooms around a corridor: a thing in a locked one, the key in another."""
    world, locked, _ = _hall(rng, max_size)
    key = f"{world.things[locked.cell].color} key"
    target = draw_thing(rng, [key], ("ball", "ball", "box", "key"))
    world.put(target, [locked.second])
    world.ask(f"pick up the {name_of(target)}", "pick up", target)
    world.put_objects(pick(rng, (0, 0, 1, 2)), [key, name_of(target)])
    _start_in_hall(world, locked)
    return world


def _hall(rng: Random, max_size: int) -> tuple[World, Link, Link]:
    """:return: a world with its locked door and key, and the links of the locked room and of the key's."""
    world = World(rng, hall(rng, max_size, pick(rng, (1, MIN_SIDE))))
    locked, key_room = shuffled(rng, world.plan.links)[:2]
    color, *others = shuffled(rng, COLOR_NAMES)
    _lock(world, locked, color)
    world.put_doors(pick(rng, (0.7, 1.0, 1.0)), others)
    world.key = world.put(Key(color), [key_room.second])
    return world, locked, key_room


def _start_in_hall(world: World, locked: Link) -> None:
    rooms = [room for room in range(len(world.plan.rooms)) if room != locked.second]
    world.put_agent([0] if world.rng.random() < 0.7 else rooms)
