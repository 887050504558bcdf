"""Random MiniGrid worlds whose missions are about things and doors."""

import numpy as np
from minigrid.core.world_object import Key, WorldObj

from sb3_llm.envs.rooms_layout import closets, divided, pick, shuffled
from sb3_llm.envs.rooms_world import Crowded, World, ask_to_open, draw_thing, name_of

FETCH = ("pick up the", "get the", "get a", "go get a", "fetch a", "go fetch a", "you must fetch a")

Random = np.random.Generator


def _scene(rng: Random, max_size: int, doors: int = 0) -> World:
    """One room, or several, or one with doors to nowhere; with at least some doors that differ in colour."""
    shape = rng.random()
    if doors == 0 and shape < 0.4:
        return World(rng, divided(rng, max_size, 1, 1))
    if shape > (0.6 if doors else 0.9):
        world = World(rng, closets(rng, max_size, int(rng.integers(max(doors, 1), 5))))
    else:
        world = World(rng, divided(rng, max_size, 1 + max(doors, 1), 6, extra=0.2))
    world.put_doors(1.0 if doors else pick(rng, (0.0, 0.5, 1.0)))
    if len(world.doors()) < doors:
        raise Crowded
    return world


def _furnish(world: World, targets: list[WorldObj]) -> None:
    """Put the named things, others that can't be taken for them, and the agent."""
    for target in targets:
        world.put(target)
    most = min(8, max(2, len(world.floor) // 4))
    count = int(world.rng.integers(2, most + 1)) - len(targets)
    world.put_objects(count, [name_of(target) for target in targets])
    world.put_agent()


def draw_fetch(rng: Random, max_size: int) -> World:
    """Pick up this and nothing else."""
    world, target = _scene(rng, max_size), draw_thing(rng)
    world.ask(f"{pick(rng, FETCH)} {name_of(target)}", "fetch", target)
    _furnish(world, [target])
    return world


def draw_go_to(rng: Random, max_size: int) -> World:
    """Go and stand before something."""
    world = _go_to(rng, max_size)
    world.ask(f"go to the {name_of(world.task.target)}", "go to", world.task.target)
    ahead = world.front() == world.where(world.task.target)
    world.heading = (world.heading + ahead * int(rng.integers(1, 4))) % 4  # or it is done before it begins
    return world


def draw_go_to_and_say(rng: Random, max_size: int) -> World:
    """Go and stand before something, and say so."""
    world = _go_to(rng, max_size)
    world.ask(f"go to the {name_of(world.task.target)} and say done", "say done", world.task.target)
    return world


def _go_to(rng: Random, max_size: int) -> World:
    to_door = rng.random() < 0.3
    world = _scene(rng, max_size, doors=int(to_door))
    target = pick(rng, world.doors()) if to_door else draw_thing(rng)
    _furnish(world, [] if to_door else [target])
    world.ask("", "go to", target)
    return world


def draw_open(rng: Random, max_size: int) -> World:
    """Open a door, sometimes a locked one."""
    world = _scene(rng, max_size, doors=1)
    door = pick(rng, world.doors())
    if rng.random() < 0.3:
        door.is_locked, world.lock = True, world.where(door)
        world.key = world.put(Key(door.color))
    _furnish(world, [])
    ask_to_open(world, door)
    return world


def draw_open_two(rng: Random, max_size: int) -> World:
    """Open one door, then another."""
    world = _scene(rng, max_size, doors=2)
    first, second = shuffled(rng, world.doors())[:2]
    _furnish(world, [])
    world.ask(f"open the {first.color} door, then open the {second.color} door", "open two", first, second)
    return world


def draw_put_near(rng: Random, max_size: int) -> World:
    """Bring one thing to another."""
    world, first = _scene(rng, max_size), draw_thing(rng)
    second = draw_thing(rng, [name_of(first)])
    word = pick(rng, ("next to", "near"))
    world.ask(f"put the {name_of(first)} {word} the {name_of(second)}", f"put {word}", first, second)
    _furnish(world, [first, second])
    (x, y), (beside_x, beside_y) = world.where(first), world.where(second)
    if abs(x - beside_x) <= 1 and abs(y - beside_y) <= 1:
        raise Crowded
    return world


def draw_carry_to(rng: Random, max_size: int) -> World:
    """Pick up one thing, then go to another."""
    world, first = _scene(rng, max_size), draw_thing(rng)
    second = draw_thing(rng, [name_of(first)])
    parts = f"pick up the {name_of(first)}", f"go to the {name_of(second)}"
    mission = f"{parts[0]}, then {parts[1]}" if rng.random() < 0.7 else f"{parts[1]} after you {parts[0]}"
    world.ask(mission, "carry to", first, second)
    _furnish(world, [first, second])
    return world
