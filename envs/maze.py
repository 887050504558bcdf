"""A maze to walk through: the project's own environment, built after Gymnasium's FrozenLake."""

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_llm.envs.layout import (
    DIRECTIONS,
    Cell,
    distances_to,
    draw_layout,
    generate_maze,
    layout_hash,
    neighbour,
    numbered_layout,
    open_directions,
    optimal_actions,
)
from sb3_llm.envs.render import Code, Window, code_grid, draw_pixels, draw_text
from sb3_llm.errors import SetupError
from sb3_llm.rewards import Reward, checked_reward

__all__ = ["DIRECTIONS", "Code", "MazeEnv", "generate_maze", "goal_reward", "optimal_actions", "view_grid"]

Observation = dict[str, NDArray[Any]]

VIEWS = ("partial", "full")
#: How far the partial view reaches, in squares of the wall grid: the neighbour cell and the wall behind it.
REACH = 3


def goal_reward(state: Observation, action: int, next_state: Observation, info: dict[str, Any]) -> float:
    """
    Pay +1.0 for the step that reaches the goal and -0.1 for any other: the default reward.

    :param state: observation before the step
    :param action: index into :data:`DIRECTIONS`
    :param next_state: observation after the step
    :param info: the step's info, with ``is_success``
    :return: +1.0 or -0.1
    """
    return 1.0 if info["is_success"] else -0.1


def view_grid(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """
    Give a view its rows and columns back, north up.

    :param view: ``observation["view"]``, :class:`Code` values of shape (k * k,), or already (k, k)
    :return: the same codes, shape (k, k)
    """
    side = math.isqrt(view.size)
    return view.reshape(side, side)


class MazeEnv(gym.Env[Observation, int]):
    """
    Walk from the north-west corner of a maze of n x n cells to the south-east corner. A wall stops the agent.

    Observation: ``view``, :class:`Code` values row by row, shape (k * k,): 7 x 7 squares of the wall grid around the
    agent, or all (2n+1) x (2n+1) of them; ``position`` and ``goal``, cells as (row, column), shape (2,). With ``trail``
    the view shows the cells that the agent has left, as footprints would, so that an agent without memory can tell
    what it has not tried. Info: ``optimal_length``, the steps of the shortest path from the start; ``layout``, 16 hex
    digits; after a step also ``is_success``. ``reset(options={"layout": k})`` gives layout number k and leaves the
    env's own stream alone.

    :param size: n, cells per side
    :param generator: "dfs", "wilson" or "kruskal"
    :param split: "train", "test" or "all": which layouts a reset may give
    :param view: "partial" or "full"
    :param trail: whether the view shows where the agent has been
    :param reward: ``(state, action, next_state, info) -> float`` on observations; default :func:`goal_reward`
    :param render_mode: "human", "ansi", "rgb_array" or None
    :raises SetupError: if an argument is unknown, or the split holds no layout of this size
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]
    phrases = DIRECTIONS

    def __init__(
        self,
        size: int = 5,
        generator: str = "dfs",
        split: str = "train",
        view: str = "partial",
        trail: bool = True,
        reward: Reward | None = None,
        render_mode: str | None = None,
    ) -> None:
        if view not in VIEWS:
            raise SetupError(f"view={view!r}", f"one of {list(VIEWS)}", "pass view='partial'")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = self.metadata["render_modes"]
            raise SetupError(f"render_mode={render_mode!r}", f"None or one of {modes}", "pass render_mode='ansi'")
        if reward is not None and not callable(reward):
            expected = "a function (state, action, next_state, info) -> float"
            raise SetupError(f"reward={reward!r}", expected, "pass the function itself, or leave reward out")
        # Drawing one layout now checks size, generator and split before any training starts.
        first = numbered_layout(size, generator, split, 0)
        self.size, self.generator, self.split, self.view = int(size), generator, split, view
        self.trail = trail
        self.reward: Reward = goal_reward if reward is None else reward
        self.render_mode = render_mode
        self.start: Cell = (0, 0)
        self.goal: Cell = (self.size - 1, self.size - 1)
        self.action_space = spaces.Discrete(4)  # type: ignore[assignment]  # gymnasium types it Space[int], yields int64
        self.observation_space = self._observation_space()  # type: ignore[assignment]
        self._window = Window("Maze", self.metadata["render_fps"])
        self._place(first)

    def _observation_space(self) -> spaces.Dict:
        side = 2 * REACH + 1 if self.view == "partial" else 2 * self.size + 1
        # One row, for Stable-Baselines3's env_checker warns at any space that is neither a vector nor an image.
        view = spaces.Box(int(Code.OUTSIDE), int(max(Code)), (side * side,), np.uint8)
        position = spaces.Box(0, self.size - 1, (2,), np.int64)
        goal = spaces.Box(0, self.size - 1, (2,), np.int64)
        return spaces.Dict({"view": view, "position": position, "goal": goal})

    def _place(self, walls: NDArray[np.uint8]) -> None:
        self.walls = walls
        self.position = self.start
        self.walked = {self.start}
        self.last_action: int | None = None
        self._padded = np.pad(code_grid(walls, self.goal), REACH, constant_values=int(Code.OUTSIDE))
        optimal_length = int(distances_to(walls, self.goal)[self.start])
        self._info = {"optimal_length": optimal_length, "layout": layout_hash(walls)[:16]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """
        Put the agent at the start of a layout: the next of the env's stream, or a numbered one.

        :param seed: restarts the stream
        :param options: None, {} or {"layout": k} with k a whole number, 0 or more
        :return: observation and info
        :raises SetupError: if options hold anything else
        """
        super().reset(seed=seed)
        unknown = sorted(map(str, set(options or {}) - {"layout"}))
        if unknown:
            raise SetupError(f"options with {unknown}", "no key but 'layout'", "pass options={'layout': 0} or None")
        if options:
            self._place(numbered_layout(self.size, self.generator, self.split, options["layout"]))
        else:
            self._place(draw_layout(self.size, self.generator, self.split, self.np_random))
        if self.render_mode == "human":
            self.render()
        return self.observe(), dict(self._info)

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        Walk one cell, or stay where a wall stands.

        :param action: index into :data:`DIRECTIONS`
        :return: observation, reward, terminated (at the goal), False, info
        :raises SetupError: if the action is none, or the reward no finite number
        """
        if not self.action_space.contains(action):
            raise SetupError(f"action={action!r}", "0, 1, 2 or 3", f"pass the index of one of {list(DIRECTIONS)}")
        state = self.observe()
        self.last_action = int(action)
        if self.last_action in open_directions(self.walls, self.position):
            self._leave_footprint()
            self.position = neighbour(self.position, self.last_action)
            self.walked.add(self.position)
        terminated = self.position == self.goal
        observation, info = self.observe(), self._info | {"is_success": terminated}
        reward = checked_reward(self.reward(state, self.last_action, observation, info))
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, False, info

    @property
    def _codes(self) -> NDArray[np.uint8]:
        """The padded codes without their margin: the same memory, also in a copy or after pickle."""
        return self._padded[REACH:-REACH, REACH:-REACH]

    def _leave_footprint(self) -> None:
        if self.trail:
            self._codes[2 * self.position[0] + 1, 2 * self.position[1] + 1] = Code.TRAIL

    def observe(self) -> Observation:
        """:return: the present observation; nothing changes by it."""
        view = self._grid_with_agent() if self.view == "full" else self._window_around_agent()
        return {"view": view.ravel(), "position": np.array(self.position), "goal": np.array(self.goal)}

    def _window_around_agent(self) -> NDArray[np.uint8]:
        row, column = 2 * self.position[0] + 1, 2 * self.position[1] + 1  # REACH squares up and left, as padded
        window = self._padded[row : row + 2 * REACH + 1, column : column + 2 * REACH + 1].copy()
        window[REACH, REACH] = Code.AGENT
        return window

    def _grid_with_agent(self) -> NDArray[np.uint8]:
        grid = self._codes.copy()
        grid[2 * self.position[0] + 1, 2 * self.position[1] + 1] = Code.AGENT
        return grid

    def render(self) -> Any:
        """
        Draw the whole maze the way the render mode says.

        :return: text for "ansi", uint8 of shape (H, W, 3) for "rgb_array", None for "human" and without a mode
        """
        if self.render_mode is None:
            env_id = self.spec.id if self.spec else "sb3_llm/Maze-v0"
            gym.logger.warn(
                "You are calling render method without specifying any render mode. You can specify the render_mode "
                f'at initialization, e.g. gym.make("{env_id}", render_mode="rgb_array")'
            )
            return None
        if self.render_mode == "ansi":
            return draw_text(self._grid_with_agent(), self.last_action)
        image = draw_pixels(self._grid_with_agent())
        return image if self.render_mode == "rgb_array" else self._window.show(image)

    def close(self) -> None:
        """Close the window of render mode "human"."""
        self._window.close()
