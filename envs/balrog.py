"""BALROG's five BabyAI tasks (arXiv 2411.13543), for tests alone: the worlds that published figures are of."""

from collections.abc import Callable
from typing import Any

from minigrid.core.roomgrid import RoomGrid
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from sb3_llm.errors import SetupError

TASKS = ("goto", "pickup", "open", "putnext", "pick_up_seq_go_to")
#: GLAM (arXiv 2302.02662) keeps these for its own test of generalisation, so no mission names them.
LEFT_OUT = ("yellow box", "red key", "red door", "green ball", "grey door")
DOOR_COLORS = ("yellow", "green", "blue", "purple")


class BalrogEnv(LevelGen):
    """
    One of the tasks, under BabyAI's rules: a room with what the mission names, or two rooms with a locked door between.

    The distribution is that of ``BabyAI-MixedTrainLocal-v0`` in the fork of minigrid 2.3.1 that BALROG installs, which
    has it from GLAM. For the same seed the worlds are the same, cell by cell, since the same random numbers are drawn
    in the same order. BALROG draws a task for each environment until it is the one asked for; here it is asked for.

    :param task: one of :data:`TASKS`
    :param room_size: of a room with its walls
    :param num_dists: things beside those that the mission names: 0 in BALROG, 8 in GLAM
    :param kwargs: as BabyAI levels: ``max_steps`` (by default 64 or 128, as BabyAI counts), ``render_mode``, ...
    :raises SetupError: for an unknown task
    """

    def __init__(self, task: str = "goto", room_size: int = 8, num_dists: int = 0, **kwargs: Any) -> None:
        draws: dict[str, Callable[[], Instr]] = {
            "goto": self._go_to,
            "pickup": self._pick_up,
            "open": self._open,
            "putnext": self._put_next,
            "pick_up_seq_go_to": self._pick_up_then_go_to,
        }
        if task not in draws:
            raise SetupError(f"task={task!r}", f"one of {list(TASKS)}", "pass task='goto'")
        self.task, self._draw = task, draws[task]
        super().__init__(
            room_size=room_size,
            num_rows=1,
            num_cols=2 if task == "open" else 1,
            num_dists=num_dists,
            locations=False,
            unblocking=False,
            implicit_unlock=False,
            action_kinds=(task,),
            **kwargs,
        )

    def gen_mission(self) -> None:
        """Draw rooms, things and a mission until all can be reached and nothing that is left out is named."""
        while True:
            RoomGrid._gen_grid(self, self.width, self.height)
            self.instrs = self._draw()
            named = self.instrs.surface(self)
            if self.check_objs_reachable(raise_exc=False) and not any(words in named for words in LEFT_OUT):
                return

    def _go_to(self) -> Instr:
        return GoToInstr(_desc(self._rand_elem(self._things(1))))

    def _pick_up(self) -> Instr:
        return PickupInstr(_desc(self._rand_elem(self._things(1))))

    def _put_next(self) -> Instr:
        return PutNextInstr(*self._two())

    def _pick_up_then_go_to(self) -> Instr:
        first, second = self._two()
        if self._rand_elem(["before", "after"]) == "before":
            return BeforeInstr(PickupInstr(first), GoToInstr(second))
        return AfterInstr(GoToInstr(second), PickupInstr(first))

    def _open(self) -> Instr:
        color = self._rand_elem(DOOR_COLORS)
        self._lock_a_room(color)
        self.add_distractors(*self._key_room, num_distractors=self.num_dists, all_unique=False)
        self.place_agent()
        while self.room_from_pos(*self.agent_pos) is self.locked_room:
            self.place_agent()
        return OpenInstr(ObjDesc("door", self._rand_elem([None, color])))

    def _things(self, n_named: int) -> list[WorldObj]:
        """The agent first: things keep away from where it stands."""
        self.place_agent()
        return self.add_distractors(num_distractors=self.num_dists + n_named, all_unique=False)

    def _two(self) -> tuple[ObjDesc, ObjDesc]:
        """Two things; the same description twice only where two fit it."""
        things = self._things(2)
        first, second = _desc(self._rand_elem(things)), _desc(self._rand_elem(things))
        while _same(first, second) and len(first.find_matching_objs(self)[0]) < 2:
            second = _desc(self._rand_elem(things))
        return first, second

    def _lock_a_room(self, color: str) -> None:
        """As ``add_locked_room`` does, but in a colour: the key lies in the other room."""
        while True:
            column, row, side = self._rand_int(0, self.num_cols), self._rand_int(0, self.num_rows), self._rand_int(0, 4)
            self.locked_room = self.get_room(column, row)
            if self.locked_room.neighbors[side] is not None:
                break
        self.add_door(column, row, side, color=color, locked=True)
        while True:
            self._key_room = (self._rand_int(0, self.num_cols), self._rand_int(0, self.num_rows))
            if self.get_room(*self._key_room) is not self.locked_room:
                break
        self.add_object(*self._key_room, "key", color)


def _desc(thing: WorldObj) -> ObjDesc:
    return ObjDesc(thing.type, thing.color)


def _same(first: ObjDesc, second: ObjDesc) -> bool:
    return (first.type, first.color) == (second.type, second.color)
