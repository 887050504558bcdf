"""What the embedded model may read, and what it must never see."""

from dataclasses import dataclass, field
from typing import Any

from sb3_llm.errors import SetupError

#: Ids that start so are for testing alone: every MiniGrid task, its BabyAI twins, and the BabyAI families of
#: composed instructions. The trailing "-" keeps "BabyAI-UnlockLocal" apart from "BabyAI-Unlock".
HELD_OUT = (
    "MiniGrid-",
    "BabyAI-Unlock-",
    "BabyAI-UnlockPickup",
    "BabyAI-BlockedUnlockPickup",
    "BabyAI-KeyCorridor",
    "BabyAI-GoToSeq",
    "BabyAI-Synth",
    "BabyAI-BossLevel",
    "BabyAI-MiniBossLevel",
)


DETOURS = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Source:
    """One environment that stories are told from."""

    env_id: str
    share: float  # of the corpus's lines, relative to the other sources
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    detours: tuple[float, ...] = DETOURS  # chance that a step is random instead of the expert's, drawn per story

    def __post_init__(self) -> None:
        check_allowed(self.env_id, self.env_kwargs)


def check_allowed(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """
    :param env_id: a Gymnasium id
    :param env_kwargs: its keyword arguments
    :raises SetupError: if it is held out: a test task, a test layout, or a maze generator kept for testing
    """
    env_id = env_id.rpartition(":")[2]  # gymnasium.make takes "module:id" too
    is_maze = env_id.startswith("sb3_llm/")
    held_out = env_id.startswith(HELD_OUT) or (
        is_maze and (env_kwargs.get("split"), env_kwargs.get("generator")) != ("train", "dfs")
    )
    if held_out:
        raise SetupError(
            f"{env_id} {env_kwargs or ''} as a source of the corpus",
            "an environment that is not held out for testing",
            "leave it out; mazes need split='train' and generator='dfs' written out",
        )


def _mazes(env_id: str, share: float, sizes: tuple[int, ...], detours: tuple[float, ...]) -> list[Source]:
    kwargs = ({"size": size, "generator": "dfs", "split": "train"} for size in sizes)
    return [Source(env_id, share / len(sizes), each, detours) for each in kwargs]


def _levels(share: float, *names: str) -> list[Source]:
    return [Source(f"BabyAI-{name}", share / len(names)) for name in names]


SOURCES: tuple[Source, ...] = (
    *_mazes("sb3_llm/Maze-v0", 18, (3, 4, 5, 6), (0.0, 0.3, 0.6)),  # chances to search a wrong branch
    *_mazes("sb3_llm/MiniGridMaze-v0", 10, (2, 3, 4), DETOURS),
    *_levels(8, "GoToRedBallGrey-v0", "GoToRedBall-v0", "GoToObj-v0", "GoToObjS4-v0"),
    *_levels(10, "GoToLocal-v0", "GoToLocalS5N2-v0", "GoToLocalS7N4-v0", "GoToLocalS8N7-v0"),
    *_levels(8, "GoToDoor-v0", "GoToObjDoor-v0", "ActionObjDoor-v0", "GoToRedBlueBall-v0"),
    *_levels(8, "PickupLoc-v0", "PickupDist-v0", "OneRoomS8-v0", "OneRoomS12-v0"),
    *_levels(6, "PutNextLocalS5N3-v0", "PutNextLocalS6N4-v0", "PutNextS4N1-v0"),
    *_levels(8, "OpenRedDoor-v0", "OpenDoor-v0", "OpenDoorLoc-v0", "OpenTwoDoors-v0"),
    *_levels(16, "UnlockLocal-v0", "UnlockLocalDist-v0"),
    *_levels(4, "GoToImpUnlock-v0"),
    Source("BabyAI-UnlockToUnlock-v0", 6, detours=(0.0,)),  # off the bot's own path it hangs in two of three stories
    *_levels(8, "GoToObjMazeS4-v0", "GoToObjMazeS4R2-v0", "FindObjS5-v0", "PickupAbove-v0", "UnblockPickup-v0"),
)
