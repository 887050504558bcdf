"""What the text loses of the view: views for each text, and what the best policy without memory does on either."""

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
import typer
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv
from tqdm import tqdm

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.describe.actions import meanings
from sb3_llm.describe.memory import Pose, ahead_of
from sb3_llm.describe.minigrid import RoomDescriber, describe_minigrid
from sb3_llm.folder import write_text

RESULTS = Path(__file__).parent / "results" / "memoryless.json"
WORLDS: dict[str, dict[str, Any]] = {
    "MiniGrid-SimpleCrossingS9N3-v0": {},
    "MiniGrid-LavaCrossingS9N1-v0": {},
    "MiniGrid-FourRooms-v0": {},
    "sb3_llm/MiniGridMaze-v0": {"size": 4, "generator": "dfs", "split": "train"},
}
MOVES = (Actions.left, Actions.right, Actions.forward)
Reading = Callable[[Mapping[str, Any]], Hashable]


class Layout(NamedTuple):
    """One world with nothing in it but ways: what each move leads to, and how many moves the goal is away."""

    start: Pose
    after: dict[Pose, list[Pose | None]]  # for each of MOVES; None: into lava
    far: dict[Pose, int]
    max_steps: int

    def best(self, pose: Pose) -> list[int]:
        """:return: the moves that a shortest way may begin with."""
        return [
            move
            for move, there in enumerate(self.after[pose])
            if there is not None and self.far.get(there, -1) == self.far[pose] - 1
        ]


def readings(env: MiniGridEnv) -> dict[str, Reading]:
    """:return: what a policy may be given of an observation, by name."""
    blind = RoomDescriber(dict(meanings(env)), history=0, compass=False)
    return {
        "view": lambda obs: obs["image"].tobytes(),
        "text without the compass": lambda obs: blind.observation(obs, ()),
        "view and compass": lambda obs: (obs["image"].tobytes(), int(obs["direction"])),
        "text": describe_minigrid,
    }


def explored(env: MiniGridEnv) -> Layout:
    """
    :param env: after a reset; moves and the goal are all there is in it
    :return: all that can be walked to
    """
    start = (*map(int, env.agent_pos), int(env.agent_dir))
    after: dict[Pose, list[Pose | None]] = {}
    waiting, goals = deque([start]), []
    while waiting:
        pose = waiting.popleft()
        if pose in after:
            continue
        if _kind(env, pose) == "goal":
            goals.append(pose)
            after[pose] = []
            continue
        after[pose] = [_moved(env, pose, move) for move in MOVES]
        waiting.extend(there for there in after[pose] if there is not None)
    return Layout(start, after, _distances(after, goals), env.max_steps)


def _kind(env: MiniGridEnv, pose: Pose) -> str:
    cell = env.grid.get(*pose[:2])
    return "floor" if cell is None else cell.type


def _moved(env: MiniGridEnv, pose: Pose, move: int) -> Pose | None:
    x, y, heading = pose
    if move != Actions.forward:
        return x, y, (heading + (1 if move == Actions.right else -1)) % 4
    there = (*ahead_of((x, y), heading), heading)
    kind = _kind(env, there)
    return None if kind == "lava" else pose if kind == "wall" else there


def _distances(after: Mapping[Pose, list[Pose | None]], goals: list[Pose]) -> dict[Pose, int]:
    before = defaultdict(list)
    for pose, places in after.items():
        for there in places:
            before[there].append(pose)
    far, waiting = dict.fromkeys(goals, 0), deque(goals)
    while waiting:
        there = waiting.popleft()
        for pose in before[there]:
            if pose not in far:
                far[pose] = far[there] + 1
                waiting.append(pose)
    return far


def seen(env: MiniGridEnv, layout: Layout) -> Iterator[tuple[Pose, dict[str, Any]]]:
    """:return: each pose from which there is something to do, with what is seen there."""
    for pose in layout.after:
        if layout.far.get(pose):
            env.agent_pos, env.agent_dir = np.array(pose[:2]), pose[2]
            yield pose, env.gen_obs()


class Table:
    """For each thing read, how often each move begins a shortest way, over all poses of all layouts."""

    def __init__(self) -> None:
        self.votes: dict[Hashable, Counter[int]] = defaultdict(Counter)
        self.poses: Counter[Hashable] = Counter()

    def add(self, key: Hashable, best: list[int]) -> None:
        """Count one pose."""
        self.poses[key] += 1
        self.votes[key].update(best)

    def right(self) -> float:
        """:return: the share of poses at which the most frequent move is right: no policy of this reading has more."""
        return sum(votes.most_common(1)[0][1] for votes in self.votes.values()) / self.poses.total()

    def move(self, key: Hashable, rng: np.random.Generator | None) -> int:
        """:return: the most frequent move, or one drawn by frequency."""
        votes = self.votes[key]
        if rng is None:
            return votes.most_common(1)[0][0]
        moves, counts = np.array(list(votes)), np.array(list(votes.values()))
        return int(rng.choice(moves, p=counts / counts.sum()))


def arrives(layout: Layout, keys: Mapping[Pose, Hashable], table: Table, rng: np.random.Generator | None) -> bool:
    """:return: whether the table's policy reaches the goal in time, by its likeliest moves or, with rng, sampled."""
    pose: Pose | None = layout.start
    for _ in range(layout.max_steps):
        pose = layout.after[pose][table.move(keys[pose], rng)]
        if pose is None or layout.far.get(pose) == 0:
            return pose is not None
    return False


def measured(env_id: str, layouts: int) -> dict[str, dict[str, float]]:
    """:return: for each reading: views per reading, the bound on right moves, and success, likeliest and sampled."""
    env: Any = gym.make(env_id, disable_env_checker=True, **WORLDS[env_id]).unwrapped
    kinds, worlds = readings(env), []
    tables, views = {name: Table() for name in kinds}, set()
    for seed in tqdm(range(layouts), desc=env_id, unit="layout", leave=False):
        env.reset(seed=seed)
        layout, keys = explored(env), defaultdict(dict)
        for pose, obs in seen(env, layout):
            views.add((obs["image"].tobytes(), int(obs["direction"])))
            for name, read in kinds.items():
                keys[name][pose] = read(obs)
                tables[name].add(keys[name][pose], layout.best(pose))
        worlds.append((layout, keys))
    return {name: _figures(name, tables[name], worlds, len(views)) for name in kinds}


def _figures(name: str, table: Table, worlds: list[Any], views: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    likeliest = [arrives(layout, keys[name], table, None) for layout, keys in worlds]
    sampled = [arrives(layout, keys[name], table, rng) for layout, keys in worlds for _ in range(5)]
    found = {"right": table.right(), "likeliest": np.mean(likeliest), "sampled": np.mean(sampled)}
    return {"views_each": views / len(table.poses)} | {key: float(share) for key, share in found.items()}


def memoryless(
    layouts: Annotated[int, typer.Option(min=1, help="Of each world; the policy is fitted on the ones it plays.")] = 60,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS,
) -> None:
    """What the best policy without memory does with the view and with the text, in Markdown: about a minute."""
    found = {env_id: measured(env_id, layouts) for env_id in WORLDS}
    write_text(out, json.dumps({"layouts": layouts, "worlds": found}, indent=1) + "\n")
    print("| world | read | views with compass each | right moves at most | likeliest | sampled |")
    print("|---|---|---|---|---|---|")
    for env_id, rows in found.items():
        for name, row in rows.items():
            cells = " | ".join(f"{row[key]:.2f}" for key in ("views_each", "right", "likeliest", "sampled"))
            print(f"| {env_id} | {name} | {cells} |")
