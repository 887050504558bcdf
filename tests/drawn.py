"""MiniGrid worlds drawn in letters, and what is true in any world, as places from where the agent started."""

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from minigrid.core.actions import Actions
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.describe.memory import Memory, Place

HEADINGS = ">v<^"
EMPTY_CODE, WALL_CODE = (1, 0, 0), (2, 5, 0)
#: Names of the planned moves, each with MiniGrid's action.
MOVES = {
    "ahead": Actions.forward,
    "left": Actions.left,
    "right": Actions.right,
    "open": Actions.toggle,
    "clear": Actions.pickup,
    "here": Actions.done,
}
State = tuple[int, int, int, frozenset[Place]]  # x and y in the grid, heading, where doors are open


def thing(letter: str) -> WorldObj | None:
    """Doors and the small key are yellow, the large key and the box red, the ball blue."""
    if letter in "DOL":
        return Door("yellow", is_open=letter == "O", is_locked=letter == "L")
    made = {"#": Wall(), "k": Key("yellow"), "K": Key("red"), "b": Ball("blue"), "x": Box("red")}
    return (made | {"G": Goal(), "~": Lava()}).get(letter)


class DrawnWorld(MiniGridEnv):
    """``#`` wall, ``.`` floor, ``G`` goal, ``~`` lava, ``D O L`` doors, ``k K b x`` things, ``> v < ^`` the agent."""

    def __init__(self, *rows: str, mission: str = "get to the green goal square", **kwargs: Any) -> None:
        self.rows, self.said = rows, mission
        space = MissionSpace(mission_func=lambda: mission)
        super().__init__(space, width=len(rows[0]), height=len(rows), max_steps=1000, **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid, self.mission = Grid(width, height), self.said
        for y, row in enumerate(self.rows):
            for x, letter in enumerate(row):
                if letter in HEADINGS:
                    self.agent_pos, self.agent_dir = (x, y), HEADINGS.index(letter)
                elif (what := thing(letter)) is not None:
                    self.put_obj(what, x, y)


class Truth:
    """What is so in a world, whatever the agent knows."""

    def __init__(self, env: Any) -> None:
        self.env = env.unwrapped
        self.start = where(self.env)
        self.last: dict[Place, tuple[int, ...]] = {}  # each place as it was when it was last in view
        self.trodden: set[Place] = set()
        self.look()

    @property
    def place(self) -> Place:
        x, y = where(self.env)
        return x - self.start[0], y - self.start[1]

    def look(self) -> None:
        self.in_view = self.visible()
        self.last |= self.in_view
        self.trodden.add(self.place)

    def visible(self) -> dict[Place, tuple[int, ...]]:
        """Every place in view but the agent's own, by MiniGrid's own account of what it shows."""
        _, mask = self.env.gen_obs_grid()
        left, top, right, bottom = self.env.get_view_exts()
        shown = {}
        for x in range(left, right):
            for y in range(top, bottom):
                if mask[self.env.get_view_coords(x, y)] and (x, y) != where(self.env):
                    shown[x - self.start[0], y - self.start[1]] = self.code(x, y)
        return shown

    def code(self, x: int, y: int) -> tuple[int, ...]:
        if not (0 <= x < self.env.grid.width and 0 <= y < self.env.grid.height):
            return WALL_CODE  # beyond its edge MiniGrid shows walls
        what = self.env.grid.get(x, y)
        return EMPTY_CODE if what is None else tuple(map(int, what.encode()))


def act(env: Any, action: int) -> dict[str, Any]:
    """A step under the bare rules: no task ends it, no limit."""
    return MiniGridEnv.step(env.unwrapped, action)[0]


class RealWalks:
    """
    The poses that a copy of the world lets the agent walk to over places it knows, without goal and lava, each with
    the fewest steps there and every first move that begins so short a walk. Independent of the memory's own search.
    """

    def __init__(self, env: Any, memory: Memory) -> None:
        self.world = deepcopy(env.unwrapped)
        self.world.gen_obs = lambda: {}  # nobody looks
        here = where(self.world)
        self.shift = (here[0] - memory.place[0], here[1] - memory.place[1])
        self.known = {(x + self.shift[0], y + self.shift[1]) for x, y in memory.known}
        self.doors = doors_of(self.world)
        self.locked = {place for place, door in self.doors.items() if door.is_locked}

    def reached(self) -> dict[tuple[int, int, int], tuple[int, set[str]]]:
        found: dict[tuple[int, int, int], tuple[int, set[str]]] = {}
        for (x, y, heading, _), (steps, begun) in self.searched().items():
            pose = (x - self.shift[0], y - self.shift[1], heading)
            fewest, names = found.get(pose, (steps, set()))
            if steps <= fewest:
                found[pose] = (steps, begun | (names if steps == fewest else set()))
        return found

    def searched(self) -> dict[State, tuple[int, set[str]]]:
        start = self.state()
        found: dict[State, tuple[int, set[str]]] = {start: (0, set())}
        queue = deque([start])
        while queue:
            state = queue.popleft()
            steps, begun = found[state]
            for name, after in self.possible(state):
                if after not in found:
                    found[after] = (steps + 1, set())
                    queue.append(after)
                if found[after][0] == steps + 1:
                    found[after][1].update(begun or {name})
        return found

    def possible(self, state: State) -> Iterator[tuple[str, State]]:
        self.restore(state)
        x, y = (int(i) for i in self.world.front_pos)
        what = self.world.grid.get(x, y) if (x, y) in self.known else Lava()
        shut = what is not None and what.type in ("goal", "lava", "box")  # a box would be gone for good
        names = ("left", "right") if shut else ("left", "right", "ahead", "open")
        for name in names:
            self.restore(state)
            MiniGridEnv.step(self.world, MOVES[name])
            if self.state() != state:
                yield name, self.state()

    def state(self) -> State:
        doors = frozenset(place for place, door in self.doors.items() if door.is_open)
        return (*where(self.world), int(self.world.agent_dir), doors)

    def restore(self, state: State) -> None:
        self.world.agent_pos, self.world.agent_dir = state[:2], state[2]
        for place, door in self.doors.items():
            door.is_open, door.is_locked = place in state[3], place in self.locked and place not in state[3]


def where(world: MiniGridEnv) -> Place:
    return int(world.agent_pos[0]), int(world.agent_pos[1])


def doors_of(world: MiniGridEnv) -> dict[Place, Door]:
    places = [(x, y) for x in range(world.grid.width) for y in range(world.grid.height)]
    return {place: door for place in places if isinstance(door := world.grid.get(*place), Door)}
