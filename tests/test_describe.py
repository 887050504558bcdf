"""Describers of rooms and mazes: hand-made views word for word, and nothing lost on real walks."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

import sb3_llm.envs  # noqa: F401  # registers the mazes
from sb3_llm.describe.maze import describe_maze, describe_maze_map
from sb3_llm.describe.minigrid import describe_minigrid
from sb3_llm.envs.layout import DIRECTIONS, open_directions
from sb3_llm.envs.maze import Code, MazeEnv
from tests.walks import wander

EAST, SOUTH, WEST, NORTH = range(4)  # MiniGrid's
Place = tuple[int, int]  # (x, y), y to the south


class HandMadeEnv(MiniGridEnv):
    """A walled square with given things in it."""

    def __init__(self, things: dict[Place, WorldObj], position: Place, facing: int, size: int, see: bool) -> None:
        self.things, self.position, self.facing = things, position, facing
        mission_space = MissionSpace(mission_func=lambda: "find it")
        super().__init__(mission_space=mission_space, grid_size=size, max_steps=9, see_through_walls=see)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        for place, thing in self.things.items():
            self.grid.set(*place, thing)
        self.agent_pos, self.agent_dir, self.mission = self.position, self.facing, "find it"


def look(
    things: dict[Place, WorldObj],
    position: Place,
    facing: int = EAST,
    size: int = 15,
    see: bool = True,
    carrying: WorldObj | None = None,
) -> str:
    env = HandMadeEnv(things, position, facing, size, see)
    env.reset()
    env.carrying = carrying
    return describe_minigrid(env.gen_obs())


# --- MiniGrid: word for word


def test_a_small_room_word_for_word() -> None:
    # Three cells by three, the agent in the middle of the west side, a key in the north-east corner.
    assert look({(3, 1): Key("red")}, (1, 2), size=5, see=False) == (
        "Facing east, carrying nothing. "
        "Ahead 2 free then wall, left 1 free then wall, right 1 free then wall. "
        "Seen: red key 2 ahead 1 left. Floor: 0 to 2 ahead 1 left to 1 right. Goal: find it."
    )


def test_a_room_with_a_corridor_word_for_word() -> None:
    #   #########     the agent at A faces east; walls hide what is behind them
    #   #A.#....#
    #   #..D....#
    #   #.B#....#
    #   #########
    walls: dict[Place, WorldObj] = {(3, 1): Wall(), (3, 3): Wall()}
    walls |= {(x, y): Wall() for x in range(9) for y in range(4, 9)}
    things = walls | {(3, 2): Door("yellow", is_open=True), (2, 3): Ball("blue")}
    assert look(things, (1, 2), size=9, see=False, carrying=Key("yellow")) == (
        "Facing east, carrying a yellow key. "
        "Ahead 6 free, left 1 free then wall, right 1 free then wall. "
        "Seen: blue ball 1 ahead 1 right, open yellow door 2 ahead. "
        "Floor: 0 to 1 ahead 1 left to 1 right; 2 ahead middle; 3 to 6 ahead 1 left to 1 right. Goal: find it."
    )


def test_nothing_but_floor() -> None:
    assert look({}, (7, 7), NORTH) == (
        "Facing north, carrying nothing. Ahead 6 free, left 3 free, right 3 free. "
        "Seen: nothing. Floor: 0 to 6 ahead 3 left to 3 right. Goal: find it."
    )


# --- MiniGrid: free ways, things, directions


def ways(text: str) -> str:
    return text.split(". ")[1]


@pytest.mark.parametrize(
    ("thing", "way"),
    [
        (None, "Ahead 6 free"),
        (Wall(), "Ahead 2 free then wall"),
        (Key("red"), "Ahead 2 free then red key"),
        (Ball("purple"), "Ahead 2 free then purple ball"),
        (Box("grey"), "Ahead 2 free then grey box"),
        (Lava(), "Ahead 2 free then lava"),
        (Door("blue"), "Ahead 2 free then closed blue door"),
        (Door("green", is_locked=True), "Ahead 2 free then locked green door"),
        (Door("green", is_open=True), "Ahead 6 free"),
        (Goal(), "Ahead 6 free"),
        (Floor("purple"), "Ahead 6 free"),
    ],
)
def test_what_ends_the_way_ahead(thing: WorldObj | None, way: str) -> None:
    assert ways(look({(5, 7): thing} if thing else {}, (2, 7))) == f"{way}, left 3 free, right 3 free"


@pytest.mark.parametrize("see", [True, False])
def test_way_ends_where_nothing_is_seen(see: bool) -> None:
    # A closed door hides what lies behind; a wall beside the agent hides its own side.
    things: dict[Place, WorldObj] = {(3, y): Wall() for y in range(1, 14)} | {(3, 7): Door("red")}
    things[4, 7] = Ball("red")
    text = look(things, (2, 7), see=see)
    assert ways(text) == "Ahead 0 free then closed red door, left 3 free, right 3 free"
    assert ("red ball 2 ahead" in text) is see


@pytest.mark.parametrize(
    ("side", "left", "right"),
    [(-1, "left 0 free then wall", "right 3 free"), (1, "left 3 free", "right 0 free then wall")],
)
@pytest.mark.parametrize("facing", [EAST, SOUTH, WEST, NORTH])
def test_left_and_right_turn_with_the_agent(facing: int, side: int, left: str, right: str) -> None:
    # On a screen, with x to the right and y down, the right hand of an agent facing (x, y) is at (-y, x).
    x, y = [(1, 0), (0, 1), (-1, 0), (0, -1)][facing]
    text = look({(7 - side * y, 7 + side * x): Wall()}, (7, 7), facing)
    assert ways(text) == f"Ahead 6 free, {left}, {right}"
    assert f"Facing {('east', 'south', 'west', 'north')[facing]}," in text


@pytest.mark.parametrize(
    ("facing", "near", "far"),
    [(EAST, "green", "red"), (SOUTH, "blue", "green"), (WEST, "yellow", "blue"), (NORTH, "red", "yellow")],
)
def test_things_move_as_the_agent_turns(facing: int, near: str, far: str) -> None:
    # Four keys, each two ahead and one to the left when the agent faces its own direction.
    keys = {(9, 6): "red", (8, 9): "green", (5, 8): "blue", (6, 5): "yellow"}
    text = look({place: Key(color) for place, color in keys.items()}, (7, 7), facing)
    assert f"Seen: {near} key 1 ahead 2 right, {far} key 2 ahead 1 left. " in text


@pytest.mark.parametrize(
    ("place", "words"),
    [((8, 7), "1 ahead"), ((13, 7), "6 ahead"), ((7, 6), "1 left"), ((7, 10), "3 right"), ((13, 4), "6 ahead 3 left")],
)
def test_places(place: Place, words: str) -> None:
    assert f"Seen: grey box {words}. " in look({place: Box("grey")}, (7, 7))


@pytest.mark.parametrize("place", [(6, 7), (7, 11), (14, 7)])
def test_things_out_of_view_are_not_told(place: Place) -> None:
    assert "Seen: nothing. " in look({place: Box("grey")}, (7, 7))


def test_the_nearest_thing_comes_first() -> None:
    things: dict[Place, WorldObj] = {(10, 7): Ball("red"), (8, 6): Key("blue"), (7, 8): Goal(), (12, 9): Lava()}
    seen = "goal 1 right, blue key 1 ahead 1 left, grey box 3 right, red ball 3 ahead, lava 5 ahead 2 right"
    assert f"Seen: {seen}. " in look(things | {(7, 10): Box("grey")}, (7, 7))


@pytest.mark.parametrize("thing", [Key("yellow"), Ball("grey"), Box("purple")])
def test_carried_thing_is_told_and_not_seen(thing: WorldObj) -> None:
    text = look({(9, 7): Key("red")}, (7, 7), carrying=thing)
    assert f", carrying a {thing.color} {thing.type}. " in text
    assert "Seen: red key 2 ahead. " in text
    assert ways(text).startswith("Ahead 1 free then red key")


@pytest.mark.parametrize("carrying", [None, Key("red")])
def test_an_agent_in_an_open_doorway_carries_no_door(carrying: WorldObj | None) -> None:
    walls: dict[Place, WorldObj] = {(7, y): Wall() for y in range(1, 14)}
    text = look(walls | {(7, 7): Door("red", is_open=True)}, (7, 7), see=False, carrying=carrying)
    assert "door" not in text
    assert f", carrying {'a red key' if carrying else 'nothing'}. " in text
    assert ways(text) == "Ahead 6 free, left 0 free then wall, right 0 free then wall"
    assert "Floor: 0 ahead middle; 1 to 6 ahead 3 left to 3 right." in text


# --- MiniGrid: nothing is lost


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-SimpleCrossingS9N3-v0",
        "MiniGrid-FourRooms-v0",
        "MiniGrid-DoorKey-8x8-v0",
        "BabyAI-GoToLocal-v0",
        "BabyAI-GoTo-v0",
        "sb3_llm/MiniGridMaze-v0",
    ],
)
def test_different_views_have_different_texts(env_id: str) -> None:
    views: set[tuple[bytes, int, str]] = set()
    texts: set[str] = set()
    for obs in wander(gymnasium.make(env_id, disable_env_checker=True), 3000):
        view = (obs["image"].tobytes(), int(obs["direction"]), obs["mission"])
        if view not in views:
            texts.add(describe_minigrid(obs))
            views.add(view)
    assert len(texts) > 300
    assert len(views) / len(texts) <= 1.02


# --- the maze

LETTERS = {"#": Code.WALL, ".": Code.FLOOR, "A": Code.AGENT, "G": Code.GOAL, ",": Code.TRAIL, "?": Code.OUTSIDE}


def maze_view(drawing: str, position: Place, goal: Place) -> dict[str, Any]:
    codes = [LETTERS[letter] for letter in drawing.split() for letter in letter]
    return {"view": np.array(codes, np.uint8), "position": np.array(position), "goal": np.array(goal)}


WHOLE = """
#######
#A..#.#
###.#.#
#...#.#
#.###.#
#....G#
#######
"""


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ((0, 0), "At row 1 column 1. North wall. South wall. East open to south. "
                 "West wall. Goal: reach the goal, 2 south 2 east."),
        ((1, 1), "At row 2 column 2. North open to west. South wall. East wall. "
                 "West open to south. Goal: reach the goal, 1 south 1 east."),
        ((2, 1), "At row 3 column 2. North wall. South wall. East open to the goal. "
                 "West open to north. Goal: reach the goal, 1 east."),
        ((1, 2), "At row 2 column 3. North open to a dead end. South open to the goal. "
                 "East wall. West wall. Goal: reach the goal, 1 south."),
        ((0, 1), "At row 1 column 2. North wall. South open to west. East wall. "
                 "West open to a dead end. Goal: reach the goal, 2 south 1 east."),
        ((2, 2), "At row 3 column 3. North open to north. South wall. East wall. "
                 "West open to west. Goal: reach the goal, here."),
    ],
)  # fmt: skip
def test_maze_word_for_word(position: Place, text: str) -> None:
    rows = [list(row) for row in WHOLE.replace("A", ".").split()]
    rows[2 * position[0] + 1][2 * position[1] + 1] = "A"
    whole = maze_view(" ".join("".join(row) for row in rows), position, (2, 2))
    assert describe_maze(whole) == text
    window = np.pad(whole["view"].reshape(7, 7), 3)[2 * position[0] + 1 :, 2 * position[1] + 1 :][:7, :7]
    assert describe_maze(whole | {"view": window.ravel()}) == text


def test_maze_seen_through_a_window_word_for_word() -> None:
    window = """
        #######
        #...#.#
        ###.#.#
        #.#A..#
        #.#.###
        #...#..
        ###.#.#
    """
    assert describe_maze(maze_view(window, (1, 2), (5, 0))) == (
        "At row 2 column 3. North open to west. South open to south west. "
        "East open to north. West wall. Goal: reach the goal, 4 south 2 west."
    )


def test_maze_tells_which_ways_were_walked() -> None:
    # West and south have been walked, and so has the cell beyond the south.
    window = """
        #######
        #...#.#
        ###.#.#
        #,.A..#
        ###.###
        #..,#..
        ###.#.#
    """
    text = describe_maze(maze_view(window, (1, 2), (5, 0)))
    assert text.endswith(
        "North open to west. South walked, open to south west. East open to north. West walked, open to a dead end. "
        "Goal: reach the goal, 4 south 2 west."
    )


def test_maze_map_lists_every_cells_exits() -> None:
    obs = maze_view(WHOLE, (0, 0), (2, 2))
    assert describe_maze_map(obs) == (
        f"{describe_maze(obs)} Exits. Row 1: east, south west, south. Row 2: south east, north west, north south. "
        "Row 3: north east, east west, north west."
    )


@pytest.mark.parametrize("generator", ["dfs", "wilson"])
def test_maze_text_agrees_with_the_walls(generator: str) -> None:
    env = MazeEnv(size=4, generator=generator, view="full", split="all")
    for obs in wander(env, 400):
        sentences = describe_maze(obs).rstrip(".").split(". ")[1:-1]
        assert [sentence.split()[0].lower() for sentence in sentences] == list(DIRECTIONS)
        told_open = [action for action in range(4) if " open to " in sentences[action]]
        assert told_open == open_directions(env.walls, env.position)
        rows = describe_maze_map(obs).split(" Exits. ")[1].rstrip(".").split(". ")
        told = [[cell.split() for cell in row.split(": ")[1].split(", ")] for row in rows]
        real = [[[DIRECTIONS[a] for a in open_directions(env.walls, (r, c))] for c in range(4)] for r in range(4)]
        assert [[[word for word in cell if word != "walked"] for cell in row] for row in told] == real
        walked = {(r, c) for r in range(4) for c in range(4) if "walked" in told[r][c]}
        assert walked == env.walked - {env.position, env.goal}


@pytest.mark.parametrize("describe", [describe_minigrid, describe_maze, describe_maze_map])
def test_describers_leave_the_observation_alone(describe: Callable[[Any], str]) -> None:
    env_id = "MiniGrid-Empty-5x5-v0" if describe is describe_minigrid else "sb3_llm/Maze3x3-v0"
    env = gymnasium.make(env_id, **({"view": "full"} if describe is describe_maze_map else {}))
    obs, _ = env.reset(seed=0)
    before = {name: np.array(part) for name, part in obs.items()}
    assert describe(obs) == describe(obs)
    assert all((np.array(obs[name]) == part).all() for name, part in before.items())
