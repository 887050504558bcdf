"""Stories: an expert's episodes in words, with random detours so that odd states are told too."""

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import gymnasium as gym
import numpy as np
from minigrid.minigrid_env import MiniGridEnv
from minigrid.utils.baby_ai_bot import BabyAIBot

from sb3_llm.envs.layout import OPPOSITE, neighbour, open_directions, optimal_actions
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.envs.minigrid_maze import MiniGridMazeEnv
from sb3_llm.wrappers import TextObservation

Line = tuple[str, str]  # (observation text, phrase of the expert's action)
Expert = Callable[[int | None], int]  # the action really taken last -> the action to take now

STORY_LIMIT = 120  # steps; longer stories are wandering
STORY_SECONDS = 1.0  # of computing; the bot takes a tenth of that, or hangs


class StoryTimeout(Exception):
    """The expert thought for too long."""


def tell_story(env: TextObservation, seed: int, detours: Sequence[float]) -> list[Line]:
    """
    Let the expert play one episode and write down what it saw and what it would do (DAgger, arXiv 1011.0686).

    The phrase is always the expert's choice; the step taken is now and then a random one.

    :param env: an environment of :func:`sb3_llm.make_env` that has an expert
    :param seed: of the episode and of its detours
    :param detours: chances of a random step, one of which is drawn for this story
    :return: the episode's lines
    :raises Exception: whatever the bot raises; it fails on some levels, and its caller counts that
    """
    rng = np.random.default_rng(seed)
    detour = float(rng.choice(detours))
    with time_limit(STORY_SECONDS):
        env.reset(seed=seed)
        if isinstance(env.unwrapped, MazeEnv):
            return tell_walk(env, env.unwrapped, detour, rng)
        expert = make_expert(env.unwrapped)
        lines: list[Line] = []
        taken: int | None = None
        for _ in range(STORY_LIMIT):
            best = expert(taken)
            lines.append((env.text, env.phrases[best]))
            taken = _detour(env, rng) if rng.random() < detour else best
            _, _, terminated, truncated, _ = env.step(taken)
            if terminated or truncated:
                break
    return lines


def tell_walk(env: TextObservation, maze: MazeEnv, detour: float, rng: np.random.Generator) -> list[Line]:
    """
    Walk a maze by the shortest path, now and then searching a wrong branch first, to its last dead end.

    A walker in the maze can't see that a branch is wrong, so nothing is written down on the way in: an expert that
    knows more than its pupil teaches it to turn back at random (the imitation gap, arXiv 2007.12173). On the way out
    the shortest path is what anyone would take.

    :param env: the maze as text, just reset
    :param maze: the same, unwrapped
    :param detour: chance to search a branch that the path passes
    :param rng: of the detours
    :return: the walk's lines
    """
    lines: list[Line] = []
    ended = False
    while not ended:
        best = optimal_actions(maze.walls, maze.position, maze.goal)[0]
        wrong = [a for a in open_directions(maze.walls, maze.position) if a != best and _is_new(maze, a)]
        if wrong and rng.random() < detour:
            actions = search_branch(maze, int(rng.choice(wrong)), rng)
        else:
            lines.append((env.text, env.phrases[best]))
            actions = [best]
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            if ended:
                break
    return lines


def _is_new(maze: MazeEnv, action: int) -> bool:
    return neighbour(maze.position, action) not in maze.walked


def search_branch(maze: MazeEnv, action: int, rng: np.random.Generator) -> list[int]:
    """:return: actions that visit every cell of the branch behind an action, depth first, up to the last new cell."""
    actions, end = [action], 1
    came_from = [OPPOSITE[action]]
    cell, seen = neighbour(maze.position, action), {maze.position}
    while came_from:
        seen.add(cell)
        fresh = [a for a in open_directions(maze.walls, cell) if neighbour(cell, a) not in seen]
        if fresh:
            step = int(rng.choice(fresh))
            came_from.append(OPPOSITE[step])
        else:
            step = came_from.pop()
        cell = neighbour(cell, step)
        actions.append(step)
        end = len(actions) if fresh else end
    return actions[:end]


def _detour(env: TextObservation, rng: np.random.Generator) -> int:
    """Mostly a move; in MiniGrid now and then a pick up, drop or open, so that mistakes are told as well."""
    if isinstance(env.unwrapped, MiniGridEnv) and rng.random() > 0.2:
        return int(rng.integers(3))
    return int(rng.integers(min(env.n_actions, 6)))  # never MiniGrid's "done"


def make_expert(env: gym.Env) -> Expert:
    """
    :param env: a MiniGrid maze or a BabyAI level, just reset
    :return: its expert: the shortest path, or the BabyAI bot, which re-plans from the action really taken
    """
    if isinstance(env, MiniGridMazeEnv):
        return lambda taken: next_turn_or_step(env)
    bot = BabyAIBot(env)
    return lambda taken: int(bot.replan(taken))


def next_turn_or_step(env: MiniGridMazeEnv) -> int:
    """:return: the first action of a shortest path to the goal, turns counted: 0 left, 1 right, 2 forward."""
    start = (int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir))
    queue: deque[tuple[tuple[int, int, int], int | None]] = deque([(start, None)])
    seen = {start}
    while queue:
        (x, y, facing), first = queue.popleft()
        if (x, y) == (env.width - 2, env.height - 2):
            return 2 if first is None else first
        for action, state in enumerate(_successors(env, x, y, facing)):
            if state not in seen:
                seen.add(state)
                queue.append((state, action if first is None else first))
    raise ValueError("no path to the goal")


def _successors(env: MiniGridMazeEnv, x: int, y: int, facing: int) -> Iterator[tuple[int, int, int]]:
    yield x, y, (facing - 1) % 4
    yield x, y, (facing + 1) % 4
    ahead = (x + (facing == 0) - (facing == 2), y + (facing == 1) - (facing == 3))
    yield (x, y, facing) if env.walls[ahead[1], ahead[0]] else (*ahead, facing)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """
    An alarm around the bot. Works in a process's main thread, as signals do.

    :param seconds: of processor time, so that a busy machine drops the same stories as an idle one
    :raises StoryTimeout: when it has passed
    """

    def ring(signum: int, frame: FrameType | None) -> None:
        raise StoryTimeout(f"no end after {seconds} s")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
