"""The same mazes as a MiniGrid world: turn, go forward, and see only the 7 x 7 cells ahead."""

from typing import Any

from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal, Wall
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.envs.layout import draw_layout, numbered_layout

MISSION = "reach the goal"


class MiniGridMazeEnv(MiniGridEnv):
    """
    A maze of n x n cells under MiniGrid's rules, so that its describer and its baselines work unchanged.

    :param size: n, cells per side; the MiniGrid world has 2n+1
    :param generator: "dfs", "wilson" or "kruskal"
    :param split: "train", "test" or "all", disjoint by layout hash
    :param max_steps: time limit, by default 16 n^2
    :raises SetupError: if an argument is unknown, or the split holds no layout of this size
    :param kwargs: as ``MiniGridEnv``: ``render_mode``, ``agent_view_size``, ...
    """

    def __init__(
        self,
        size: int = 4,
        generator: str = "dfs",
        split: str = "train",
        max_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        numbered_layout(size, generator, split, 0)  # says now what is wrong with the arguments, not at reset
        self.cells, self.generator, self.split = size, generator, split
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: MISSION),
            grid_size=2 * size + 1,
            max_steps=max_steps or 16 * size**2,
            **kwargs,
        )

    def _gen_grid(self, width: int, height: int) -> None:
        self.walls = draw_layout(self.cells, self.generator, self.split, self.np_random)
        self.grid = Grid(width, height)
        for row, column in zip(*self.walls.nonzero(), strict=True):
            self.grid.set(int(column), int(row), Wall())
        self.put_obj(Goal(), width - 2, height - 2)
        self.agent_pos, self.agent_dir = (1, 1), int(self.np_random.integers(4))
        self.mission = MISSION
