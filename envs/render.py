"""A maze drawn: as the codes of an observation, as lines of text, as pixels, and in a window."""

from enum import IntEnum
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from sb3_llm.envs.layout import DIRECTIONS, Cell


class Code(IntEnum):
    """What a square of the wall grid holds, as observations give it."""

    OUTSIDE = 0
    FLOOR = 1
    WALL = 2
    GOAL = 3
    AGENT = 4
    TRAIL = 5  # a cell the agent has walked on


# One letter and one colour (red, green, blue) for each code.
LETTERS = np.array([" ", " ", "#", "G", "A", "."])
COLOURS = np.array(
    [(0, 0, 0), (244, 241, 234), (52, 58, 70), (76, 165, 92), (214, 84, 56), (236, 217, 178)], dtype=np.uint8
)
# FrozenLake's window: never wider than this, squares of this many pixels where there is room.
MAX_PIXELS, SQUARE_PIXELS, MIN_SQUARE_PIXELS = 512, 32, 4


def code_grid(walls: NDArray[np.uint8], goal: Cell) -> NDArray[np.uint8]:
    """
    Turn walls into codes, without the agent.

    :param walls: uint8 of shape (2n+1, 2n+1), 1 = wall
    :param goal: (row, column)
    :return: :class:`Code` values, uint8 of shape (2n+1, 2n+1)
    """
    codes = np.where(walls == 1, Code.WALL, Code.FLOOR).astype(np.uint8)
    codes[2 * goal[0] + 1, 2 * goal[1] + 1] = Code.GOAL
    return codes


def draw_text(codes: NDArray[np.uint8], action: int | None) -> str:
    """
    Draw a maze in letters: walls ``#``, agent ``A``, goal ``G``.

    :param codes: uint8 of shape (2n+1, 2n+1), with the agent
    :param action: the last action, named in the first line; None after a reset
    :return: 2n+2 lines, each ended by a newline
    """
    title = "" if action is None else f"  ({DIRECTIONS[action]})"
    return "\n".join([title, *("".join(row) for row in LETTERS[codes])]) + "\n"


def draw_pixels(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """
    Draw a maze in colours, the agent as a disc.

    :param codes: uint8 of shape (2n+1, 2n+1), with the agent
    :return: red, green and blue, uint8 of shape (H, W, 3), H = W = pixels per square times 2n+1
    """
    side = max(MIN_SQUARE_PIXELS, min(SQUARE_PIXELS, MAX_PIXELS // len(codes)))
    image = COLOURS[codes].repeat(side, axis=0).repeat(side, axis=1)  # (H, W, 3)
    row, column = np.argwhere(codes == Code.AGENT)[0] * side
    distance = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))  # (side, side), from the square's middle
    square = image[row : row + side, column : column + side]
    # The agent hides the goal's code only by standing on it, and then the ground around the disc is the goal.
    square[distance > 0.4 * side] = COLOURS[Code.FLOOR if Code.GOAL in codes else Code.GOAL]
    return image


class Window:
    """
    A pygame window, opened when the first frame comes.

    :param caption: the window's title
    :param frames_per_second: how fast frames follow each other at most
    """

    def __init__(self, caption: str, frames_per_second: int) -> None:
        self.caption = caption
        self.frames_per_second = frames_per_second
        self.surface: Any = None
        self.clock: Any = None

    def show(self, image: NDArray[np.uint8]) -> None:
        """
        Show one frame and wait until it has been seen.

        :param image: uint8 of shape (H, W, 3)
        :raises DependencyNotInstalled: if pygame is missing
        """
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled('pygame is not installed, run `pip install "gymnasium[toy-text]"`') from error
        if self.surface is None:
            pygame.display.init()
            pygame.display.set_caption(self.caption)
            self.surface = pygame.display.set_mode((image.shape[1], image.shape[0]))
            self.clock = pygame.time.Clock()
        pygame.surfarray.blit_array(self.surface, image.transpose(1, 0, 2))  # pygame counts (x, y)
        pygame.event.pump()
        pygame.display.flip()
        self.clock.tick(self.frames_per_second)

    def close(self) -> None:
        """Close the window if one is open. Safe to call twice."""
        if self.surface is not None:
            import pygame

            pygame.display.quit()
            self.surface = self.clock = None

    def __reduce__(self) -> tuple[type["Window"], tuple[str, int]]:
        # An open window can't cross a process border or be copied; its copy opens a window of its own.
        return (Window, (self.caption, self.frames_per_second))
