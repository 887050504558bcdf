"""Random MiniGrid worlds of the project's own, to tell stories from and to train in."""

from collections.abc import Callable
from typing import Any, SupportsFloat

import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Door, Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.envs.rooms_kinds import KINDS, draw_kind, draw_world
from sb3_llm.envs.rooms_layout import Plan
from sb3_llm.envs.rooms_world import REACH, Task
from sb3_llm.errors import SetupError

SMALLEST, LARGEST = 9, 25

Outcome = bool | None  # success, failure, or the episode goes on


def _mission() -> str:
    return REACH


class AnyMission(MissionSpace):
    """Every sentence: the worlds ask for too many things to list them."""

    def __init__(self) -> None:
        super().__init__(mission_func=_mission)

    def contains(self, x: Any) -> bool:
        """:return: whether it is a sentence."""
        return isinstance(x, str)


class RoomsEnv(MiniGridEnv):
    """
    A new world at every reset, under MiniGrid's rules and in its words: rooms, walls, lava, keys, doors, things.

    Every world can be solved. None is a world that a MiniGrid or BabyAI id could make: its outer size is one that no
    id has, so never square, and 11 x 6 and the like are left out (:data:`~sb3_llm.envs.rooms_layout.TAKEN_SIZES`);
    and never does the agent start at (1, 1) with the goal at (width - 2, height - 2).

    Reward: ``1 - 0.9 * step_count / max_steps`` for success, else 0. Lava ends the episode, and so do picking up the
    wrong thing in kind "fetch", opening the second door first in "opentwo", and "done" in "gotodone". After a reset
    ``kind_drawn`` is the world's kind, ``task`` what counts as success and ``plan`` its floor plan.

    :param kind: a key of :data:`~sb3_llm.envs.rooms_kinds.KINDS`, or "any" to draw one at each reset
    :param max_size: the largest outer width and height, from 9 to 25
    :param max_steps: time limit; by default five or ten steps for each cell of the world's grid
    :param kwargs: as ``MiniGridEnv``; ``see_through_walls`` is drawn for each world unless it is given
    :raises SetupError: if an argument can't work
    """

    kind_drawn: str
    task: Task
    plan: Plan

    def __init__(self, kind: str = "any", max_size: int = 13, max_steps: int | None = None, **kwargs: Any) -> None:
        if kind not in ("any", *KINDS):
            raise SetupError(f"kind={kind!r}", f"'any' or one of {list(KINDS)}", "pass kind='any'")
        _check_number("max_size", max_size, SMALLEST, LARGEST, 13)
        if max_steps is not None:
            _check_number("max_steps", max_steps, 1, 10**9, 200)
        drawn = sorted({"width", "height", "grid_size", "mission_space"} & kwargs.keys())
        if drawn:
            raise SetupError(f"{drawn}, which are drawn for each world", "max_size and kind", "pass max_size=13")
        self.kind, self.max_size = kind, int(max_size)
        self._max_steps = None if max_steps is None else int(max_steps)
        self._sees_through = kwargs.get("see_through_walls")
        steps = self._max_steps or 10 * self.max_size**2
        super().__init__(AnyMission(), width=self.max_size, height=self.max_size, max_steps=steps, **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        rng = self.np_random
        self.kind_drawn = draw_kind(rng) if self.kind == "any" else self.kind
        world = draw_world(self.kind_drawn, rng, self.max_size)
        self.plan, self.task, self.mission = world.plan, world.task, world.mission
        self.agent_pos, self.agent_dir = world.agent, world.heading
        self.width, self.height = world.plan.width, world.plan.height
        self.grid = Grid(self.width, self.height)
        self.grid.grid = [Wall()] * (self.width * self.height)  # one for all, as in MiniGrid's MultiRoom
        for x, y in world.floor | world.links:
            self.grid.set(x, y, None)
        for cell, thing in world.things.items():
            self.put_obj(thing, *cell)
        self.max_steps = self._max_steps or KINDS[self.kind_drawn].steps * self.width * self.height
        drawn = bool(rng.random() < 1 / 3)
        self.see_through_walls = drawn if self._sees_through is None else self._sees_through
        self._first_was_open = False

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """
        Do one of MiniGrid's seven actions.

        :param action: MiniGrid's number of the action
        :return: observation, reward, terminated, truncated, info
        """
        carried = self.carrying
        observation, reward, terminated, truncated, info = super().step(action)
        if self.task.verb != "reach" and not terminated:
            outcome = OUTCOMES[self.task.verb](self, int(action), carried)
            if outcome is not None:
                reward, terminated = (self._reward() if outcome else 0), True
        return observation, reward, terminated, truncated, info

    @property
    def uses_done(self) -> bool:
        """:return: whether the action "done" can mean something here."""
        return self.kind in ("any", "gotodone")

    def faces(self, thing: WorldObj) -> bool:
        """:return: whether a thing is right before the agent."""
        return self.grid.get(*self.front_pos) is thing


def _check_number(name: str, value: object, low: int, high: int, example: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:  # type: ignore[operator]
        raise SetupError(f"{name}={value!r}", f"a whole number from {low} to {high}", f"pass {name}={example}")


# --- what ends an episode, by the task's verb


def _go_to(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    return True if env.faces(env.task.target) else None


def _say_done(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    return env.faces(env.task.target) if action == env.actions.done else None


def _pick_up(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    return True if env.carrying is env.task.target else None


def _fetch(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    return None if env.carrying is None else env.carrying is env.task.target


def _open(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    return True if _is_open(env.task.target) else None


def _open_two(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    if _is_open(env.task.second):
        return env._first_was_open
    env._first_was_open |= _is_open(env.task.target)
    return None


def _is_open(thing: WorldObj | None) -> bool:
    return isinstance(thing, Door) and thing.is_open


def _carry_to(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    second = env.task.second
    return True if second is not None and env.carrying is env.task.target and env.faces(second) else None


def _put(env: RoomsEnv, action: int, carried: WorldObj | None) -> Outcome:
    """BabyAI's "next to" leaves diagonals out, and MiniGrid's "near" doesn't."""
    target, second = env.task.target, env.task.second
    if second is None or env.carrying is not None or carried is None or carried is not target:
        return None
    (x, y), (beside_x, beside_y) = _place(target), _place(second)
    across, along = abs(x - beside_x), abs(y - beside_y)
    return True if (max(across, along) if env.task.verb == "put near" else across + along) == 1 else None


def _place(thing: WorldObj) -> tuple[int, int]:
    """MiniGrid's own record: (-1, -1) for what is carried, so beside no floor."""
    x, y = (-1, -1) if thing.cur_pos is None else thing.cur_pos
    return int(x), int(y)


OUTCOMES: dict[str, Callable[[RoomsEnv, int, WorldObj | None], Outcome]] = {
    "go to": _go_to,
    "say done": _say_done,
    "pick up": _pick_up,
    "fetch": _fetch,
    "open": _open,
    "open two": _open_two,
    "carry to": _carry_to,
    "put next to": _put,
    "put near": _put,
}
