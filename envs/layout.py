"""
Maze layouts as pure functions: generators, splits, shortest paths.

A layout of n x n cells is a uint8 array of shape (2n+1, 2n+1), 1 = wall and 0 = floor, with cell (r, c) at
(2r+1, 2c+1). Nothing here keeps state or touches a global random generator.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sb3_llm.errors import SetupError

Cell = tuple[int, int]
#: A cell and the action that leads from it through an opened wall.
Passage = tuple[Cell, int]

#: The phrases of the four actions, in action order.
DIRECTIONS = ("north", "south", "east", "west")
#: (row, column) change of each action.
OFFSETS: tuple[Cell, ...] = ((-1, 0), (1, 0), (0, 1), (0, -1))
#: The action that undoes each action.
OPPOSITE = (1, 0, 3, 2)
SPLITS = ("train", "test", "all")

#: One layout in this many is a test layout.
TEST_ONE_IN = 5
# A split that exists takes about five draws; one still empty after this many holds nothing at that size.
MAX_DRAWS = 1000


def neighbour(cell: Cell, action: int) -> Cell:
    """
    Find the cell that lies in the direction of an action, whatever walls stand between.

    :param cell: (row, column)
    :param action: index into :data:`DIRECTIONS`
    :return: (row, column), possibly outside the maze
    """
    return cell[0] + OFFSETS[action][0], cell[1] + OFFSETS[action][1]


def _inside(size: int, cell: Cell) -> list[int]:
    targets = (neighbour(cell, action) for action in range(4))
    return [action for action, (row, column) in enumerate(targets) if 0 <= row < size and 0 <= column < size]


def _random_cell(size: int, rng: np.random.Generator) -> Cell:
    return divmod(int(rng.integers(size * size)), size)


def _pick(actions: list[int], rng: np.random.Generator) -> int:
    return actions[int(rng.integers(len(actions)))]


def _dfs(size: int, rng: np.random.Generator) -> Iterator[Passage]:
    # The start is random because a fixed corner reaches 14 of the 192 mazes of 3x3 cells, too few to split.
    stack = [_random_cell(size, rng)]
    visited = set(stack)
    while stack:
        fresh = [a for a in _inside(size, stack[-1]) if neighbour(stack[-1], a) not in visited]
        if not fresh:
            stack.pop()
            continue
        action = _pick(fresh, rng)
        yield stack[-1], action
        stack.append(neighbour(stack[-1], action))
        visited.add(stack[-1])


def _wilson(size: int, rng: np.random.Generator) -> Iterator[Passage]:
    # Wilson (1996): loop-erased random walks make every spanning tree equally likely. Keeping only the last exit of
    # each visited cell erases the loops.
    in_tree = {_random_cell(size, rng)}
    for start in np.ndindex(size, size):
        exits: dict[Cell, int] = {}
        cell: Cell = (start[0], start[1])
        while cell not in in_tree:
            exits[cell] = _pick(_inside(size, cell), rng)
            cell = neighbour(cell, exits[cell])
        cell = (start[0], start[1])
        while cell not in in_tree:
            yield cell, exits[cell]
            in_tree.add(cell)
            cell = neighbour(cell, exits[cell])


def _kruskal(size: int, rng: np.random.Generator) -> Iterator[Passage]:
    parent: dict[Cell, Cell] = {(row, column): (row, column) for row, column in np.ndindex(size, size)}

    def root(cell: Cell) -> Cell:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    # South and east alone name every inner wall once.
    inner = [(cell, action) for cell in parent for action in _inside(size, cell) if action in (1, 2)]
    for index in rng.permutation(len(inner)):
        cell, action = inner[index]
        here, there = root(cell), root(neighbour(cell, action))
        if here != there:
            parent[here] = there
            yield cell, action


GENERATORS: dict[str, Callable[[int, np.random.Generator], Iterator[Passage]]] = {
    "dfs": _dfs,
    "wilson": _wilson,
    "kruskal": _kruskal,
}


def generate_maze(size: int, generator: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """
    Draw one maze whose passages form a spanning tree of its cells, so one path joins any two of them.

    :param size: n, cells per side, at least 2
    :param generator: "dfs" (long winding corridors), "wilson" (every tree equally likely) or "kruskal"
    :param rng: the only source of randomness
    :return: walls, uint8 of shape (2n+1, 2n+1), 1 = wall
    :raises SetupError: if size or generator is unknown
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 2:
        raise SetupError(f"size={size!r}", "a whole number of cells per side, 2 or more", "pass size=5")
    if generator not in list(GENERATORS):
        raise SetupError(f"generator={generator!r}", f"one of {list(GENERATORS)}", "pass generator='dfs'")
    walls = np.ones((2 * size + 1, 2 * size + 1), dtype=np.uint8)
    walls[1::2, 1::2] = 0
    for (row, column), action in GENERATORS[generator](int(size), rng):
        walls[2 * row + 1 + OFFSETS[action][0], 2 * column + 1 + OFFSETS[action][1]] = 0
    return walls


def layout_hash(walls: NDArray[np.uint8]) -> str:
    """
    Name a layout by its content, the same in every process and on every machine.

    :param walls: uint8 of shape (2n+1, 2n+1)
    :return: sha256 of size and bytes, 64 hex digits
    """
    size = (walls.shape[0] - 1) // 2
    return hashlib.sha256(f"{size}:".encode() + walls.astype(np.uint8).tobytes()).hexdigest()


def layout_split(walls: NDArray[np.uint8]) -> str:
    """
    Say which split a layout belongs to. A layout has one hash, so the splits are disjoint whatever drew it.

    :param walls: uint8 of shape (2n+1, 2n+1)
    :return: "train" or "test" (one in :data:`TEST_ONE_IN`)
    """
    return "test" if int(layout_hash(walls), 16) % TEST_ONE_IN == 0 else "train"


def draw_layout(size: int, generator: str, split: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """
    Draw mazes until one falls in the split.

    :param size: n, cells per side
    :param generator: a key of :data:`GENERATORS`
    :param split: "train", "test" or "all"
    :param rng: the only source of randomness
    :return: walls, uint8 of shape (2n+1, 2n+1)
    :raises SetupError: if an argument is unknown, or no maze of this size falls in the split
    """
    if split not in SPLITS:
        raise SetupError(f"split={split!r}", f"one of {list(SPLITS)}", "pass split='train'")
    for _ in range(MAX_DRAWS):
        walls = generate_maze(size, generator, rng)
        if split in ("all", layout_split(walls)):
            return walls
    raise SetupError(
        f"no {split} layout in {MAX_DRAWS} draws of size={size}, generator={generator!r}",
        f"a size that has {split} layouts (2x2 cells have 4 layouts in all)",
        "pass size=3 or more, or split='all'",
    )


def numbered_layout(size: int, generator: str, split: str, number: int) -> NDArray[np.uint8]:
    """
    Give the layout that a number stands for. Small sizes have few layouts, so two numbers may name the same one.

    :param size: n, cells per side
    :param generator: a key of :data:`GENERATORS`
    :param split: "train", "test" or "all"
    :param number: 0 or more
    :return: walls, uint8 of shape (2n+1, 2n+1)
    :raises SetupError: if the number is none, or as :func:`draw_layout`
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
        raise SetupError(f"layout={number!r}", "a whole number, 0 or more", "pass options={'layout': 0}")
    # The generator's name, not its place in the table, goes in: a generator added later must not renumber layouts.
    entropy = list(f"{generator}/{size}/{number}".encode())
    return draw_layout(size, generator, split, np.random.default_rng(entropy))


def open_directions(walls: NDArray[np.uint8], cell: Cell) -> list[int]:
    """
    List the actions that no wall blocks.

    :param walls: uint8 of shape (2n+1, 2n+1)
    :param cell: (row, column)
    :return: actions, indices into :data:`DIRECTIONS`, in that order
    """
    row, column = 2 * cell[0] + 1, 2 * cell[1] + 1
    return [action for action, (down, right) in enumerate(OFFSETS) if not walls[row + down, column + right]]


def distances_to(walls: NDArray[np.uint8], goal: Cell) -> NDArray[np.int64]:
    """
    Count the steps from every cell to the goal, breadth-first.

    :param walls: uint8 of shape (2n+1, 2n+1)
    :param goal: (row, column)
    :return: steps, int64 of shape (n, n); -1 where no path leads to the goal
    """
    size = (walls.shape[0] - 1) // 2
    steps = {goal: 0}
    queue = deque([goal])
    while queue:
        cell = queue.popleft()
        for action in open_directions(walls, cell):
            target = neighbour(cell, action)
            if target not in steps:
                steps[target] = steps[cell] + 1
                queue.append(target)
    return np.array([[steps.get((r, c), -1) for c in range(size)] for r in range(size)], dtype=np.int64)


def optimal_actions(walls: NDArray[np.uint8], cell: Cell, goal: Cell) -> list[int]:
    """
    List every action that starts a shortest path to the goal.

    :param walls: uint8 of shape (2n+1, 2n+1)
    :param cell: (row, column)
    :param goal: (row, column)
    :return: actions, indices into :data:`DIRECTIONS`; empty at the goal and where no path leads to it
    """
    steps = distances_to(walls, goal)
    return [a for a in open_directions(walls, cell) if steps[neighbour(cell, a)] == steps[cell] - 1]
