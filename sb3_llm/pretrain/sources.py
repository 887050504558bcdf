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
#: Mazes with more cells per side are for testing alone.
MAX_MAZE = 6

DETOURS = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Source:
    """One environment that stories are told from."""

    env_id: str
    share: float  # of the corpus's lines, relative to the other sources
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    detours: tuple[float, ...] = DETOURS  # chance that a step is random instead of the expert's, drawn per story
    use_bot: bool = False  # the BabyAI bot tells it instead of the planner

    def __post_init__(self) -> None:
        check_allowed(self.env_id, self.env_kwargs)


def check_allowed(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """
    :param env_id: a Gymnasium id
    :param env_kwargs: its keyword arguments
    :raises SetupError: if it is held out: a test task, a test layout, a maze generator or a size kept for testing
    """
    env_id = env_id.rpartition(":")[2]  # gymnasium.make takes "module:id" too
    if env_id.startswith(HELD_OUT) or (env_id.startswith("sb3_llm/") and not _may_read(env_id, env_kwargs)):
        raise SetupError(
            f"{env_id} {env_kwargs or ''} as a source of the corpus",
            "an environment that is not held out for testing",
            "leave it out; mazes need split='train', generator='dfs' and a size of at most "
            f"{MAX_MAZE} cells written out",
        )


def _may_read(env_id: str, env_kwargs: dict[str, Any]) -> bool:
    """Of this project's worlds: rooms, and mazes of the training split, generator and sizes."""
    if env_id == "sb3_llm/Rooms-v0":
        return True
    return (
        env_id in ("sb3_llm/Maze-v0", "sb3_llm/MiniGridMaze-v0")
        and (env_kwargs.get("split"), env_kwargs.get("generator")) == ("train", "dfs")
        and _is_small(env_kwargs.get("size"))
    )


def _is_small(size: Any) -> bool:
    """Whether a maze's size is written out, and none that is kept for testing."""
    return isinstance(size, int) and size <= MAX_MAZE


def _mazes(env_id: str, share: float, sizes: tuple[int, ...], detours: tuple[float, ...] = DETOURS) -> list[Source]:
    kwargs = ({"size": size, "generator": "dfs", "split": "train"} for size in sizes)
    return [Source(env_id, share / len(sizes), each, detours) for each in kwargs]


def _levels(share: float, *names: str, bot: float = 0.0) -> list[Source]:
    """BabyAI levels, a share of each told by the bot."""
    planned = [Source(f"BabyAI-{name}-v0", share * (1 - bot) / len(names)) for name in names]
    told = [Source(f"BabyAI-{name}-v0", share * bot / len(names), use_bot=True) for name in names]
    return [source for source in (*planned, *told) if source.share > 0]


def _rooms(share: float, **kinds: float) -> list[Source]:
    total = sum(kinds.values())
    return [Source("sb3_llm/Rooms-v0", share * part / total, {"kind": kind}) for kind, part in kinds.items()]


SOURCES: tuple[Source, ...] = (
    *_mazes("sb3_llm/Maze-v0", 8, (3, 4, 5, 6), (0.0, 0.1, 0.3)),
    *_mazes("sb3_llm/MiniGridMaze-v0", 5, (2, 3, 4, 5)),
    *_rooms(6, goal=1, walls=1, lava=1, chain=1),
    *_rooms(16, keydoor=3, lockedroom=2, corridor=3, blocked=1, boxed=0.5),
    *_rooms(24, fetch=4, goto=0.5, gotodone=5, open=1.5, opentwo=3, putnear=4.5, carryto=5),
    *_levels(3, "GoToRedBallGrey", "GoToRedBall", "GoToObj", "GoToObjS4", "GoToRedBlueBall", bot=0.5),
    *_levels(6, "GoToLocal", "GoToLocalS5N2", "GoToLocalS7N4", "GoToLocalS8N7", bot=0.5),
    *_levels(3, "GoToDoor", "GoToObjDoor", "ActionObjDoor", bot=0.5),
    *_levels(6, "PickupDist", "OneRoomS8", "OneRoomS12", "PickupLoc", bot=0.5),
    *_levels(6, "PutNextLocal", "PutNextLocalS5N3", "PutNextLocalS6N4", "PutNextS4N1", bot=0.5),
    *_levels(4, "OpenRedDoor", "OpenDoor", "OpenDoorLoc", "OpenTwoDoors", bot=0.5),
    *_levels(5, "UnlockLocal", "UnlockLocalDist", bot=0.5),
    *_levels(5, "GoTo", "Pickup", "Open", "GoToObjMazeS4", "GoToObjMazeS4R2", "FindObjS5", "UnblockPickup"),
)

#: The kinds of saying that a training begins with: lists in canonical English alone, since what is learnt first should
#: be to look up, and not other words; and orders in words that were never read.
LISTS, ORDERS = "lists", "orders"
#: Lists in other words and in Chinese, which follow them.
REWORDED = "reworded"
#: Shares of the corpus beside the stories: these, how the worlds work, questions, dialogue, and talks of
#: sb3_llm/Dialogue-v0, told by its expert.
SAYINGS = {
    LISTS: 0.05,
    ORDERS: 0.03,
    REWORDED: 0.1,
    "statements": 0.02,
    "questions": 0.02,
    "dialogue": 0.015,
    "talks": 0.04,
}
