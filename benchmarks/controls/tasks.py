"""What the zero-shot table is played on: worlds held out from the corpus, with what is aimed at."""

from dataclasses import dataclass, field
from typing import Any

from sb3_llm.envs.balrog import TASKS as BALROG
from sb3_llm.errors import SetupError
from sb3_llm.pretrain.sources import check_allowed


@dataclass(frozen=True)
class Task:
    """One line of the table."""

    name: str
    env_id: str
    target: float
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    level: str | None = None  # the BabyAI level that the bot plays: this world, or its twin

    def __post_init__(self) -> None:
        try:
            check_allowed(self.env_id, self.env_kwargs)
        except SetupError:
            return
        raise SetupError(f"{self.name} as a zero-shot task", "a world that the corpus may not hold", "leave it out")


TARGETS = {
    "Empty-8x8": 0.95,
    "Unlock": 0.95,
    "DoorKey-5x5": 0.95,
    "DoorKey-6x6": 0.92,
    "DoorKey-8x8": 0.90,
    "GoToDoor-5x5": 0.90,
    "GoToObject-6x6-N2": 0.90,
    "Fetch-5x5-N2": 0.90,
    "UnlockPickup": 0.80,
    "KeyCorridorS3R1": 0.85,
    "SimpleCrossingS9N3": 0.85,
    "FourRooms": 0.60,
    "MultiRoom-N4-S5-v1": 0.70,
    "LavaCrossingS9N1": 0.60,
    "RedBlueDoors-6x6": 0.60,
    "PutNear-6x6-N2": 0.50,
    "LockedRoom": 0.30,
}
#: BabyAI levels that ask for the same in the same rooms, in BabyAI's words.
TWINS = {"UnlockPickup": "BabyAI-UnlockPickup-v0", "KeyCorridorS3R1": "BabyAI-KeyCorridorS3R1-v0"}
BALROG_ID = "sb3_llm/Balrog-v0"


def _minigrid(name: str, target: float) -> Task:
    return Task(name, f"MiniGrid-{name}" + ("" if name.endswith("-v1") else "-v0"), target, level=TWINS.get(name))


def _maze(generator: str, size: int) -> Task:
    kwargs = {"size": size, "generator": generator, "split": "test", "max_episode_steps": 4 * size * size}
    return Task(f"Maze-{generator}-{size}x{size}", "sb3_llm/Maze-v0", 0.90, kwargs)


TASKS: tuple[Task, ...] = (
    *(_minigrid(name, target) for name, target in TARGETS.items()),
    *(_maze(generator, size) for generator in ("wilson", "kruskal") for size in (5, 8)),
    *(Task(f"BALROG-{task}", BALROG_ID, 0.95, {"task": task}, BALROG_ID) for task in BALROG),
)
#: Those that are also played in words that the model never read.
WORDED = ("DoorKey-6x6", "GoToObject-6x6-N2", "Fetch-5x5-N2", "BALROG-goto", "BALROG-open")


def tasks_named(names: str | None) -> list[Task]:
    """
    :param names: some of the tasks, with commas between; None for all
    :return: them, in the table's order
    :raises SetupError: for an unknown name
    """
    known = {task.name: task for task in TASKS}
    wanted = known if names is None else [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SetupError(f"the tasks {unknown}", f"some of {', '.join(known)}", "correct --tasks, or leave it out")
    return [task for task in TASKS if task.name in wanted]
