"""Experts that play: their successful episodes become demonstrations."""

import reprlib
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sb3_llm.demos.lines import Demo, read_demos, write_demos
from sb3_llm.describe.actions import KEYS
from sb3_llm.envs.layout import DIRECTIONS
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.errors import SetupError
from sb3_llm.pretrain.experts import make_expert
from sb3_llm.pretrain.stories import StoryTimeout, time_limit
from sb3_llm.spaces import is_whole
from sb3_llm.wrappers import TextObservation

#: From an environment in its present state to the index of an action. With a method ``begin(env)`` it is told of the
#: start of every episode.
Expert = Callable[[TextObservation], int]
THINKING_SECONDS = 2.0  # of processor time for one decision; experts take a hundredth of it, or hang
MAX_STEPS = 1000  # of an episode whose environment sets no limit


@dataclass
class Recorded:
    """What came of a recording."""

    path: Path
    kept: int = 0  # episodes
    lines: int = 0
    failed: int = 0  # episodes without success; kept only if asked for
    hung: int = 0  # dropped: the expert thought for too long
    broken: int = 0  # dropped: the expert raised something
    reasons: list[str] = field(default_factory=list)  # why episodes were dropped, each once


class BuiltInExpert:
    """
    The project's own experts, which know no more than the agent, or the BabyAI bot, which knows the whole level.

    :param use_bot: the BabyAI bot
    """

    def __init__(self, use_bot: bool = False) -> None:
        self._use_bot = use_bot

    def begin(self, env: TextObservation) -> None:
        """
        :param env: just reset
        :raises SetupError: if the world, or its mission, is none that the expert knows
        """
        self._expert = make_expert(env.unwrapped, env.state, self._use_bot)
        self._keys = DIRECTIONS if isinstance(env.unwrapped, MazeEnv) else KEYS
        self._taken: int | None = None

    def __call__(self, env: TextObservation) -> int:
        """:return: the index of the action to take now; what it returned last is what was done."""
        if self._taken is not None:
            self._expert.note(self._taken, env.state)
        self._taken = self._keys.index(self._expert.advice()[0])
        return env.offer.actions.index(self._taken)


def expert_for(env: TextObservation, use_bot: bool = False) -> Expert:
    """
    :param env: a MiniGrid or BabyAI world, or a maze, as :func:`sb3_llm.make_env` makes it; it is reset
    :param use_bot: the BabyAI bot, which sees through walls, in place of the planner; for BabyAI levels
    :return: its expert
    :raises SetupError: for other environments, which need an expert of the user's own
    """
    require_text(env)
    expert = BuiltInExpert(use_bot)
    env.reset(seed=0)
    try:
        expert.begin(env)
    except AttributeError:  # the bot asks a level for its instructions
        mend = "leave use_bot out"
        raise SetupError(f"the BabyAI bot in {env.unwrapped}", "a BabyAI level", mend) from None
    return expert


def record(
    env: TextObservation,
    expert: Expert,
    episodes: int,
    seed: int,
    path: str | Path,
    *,
    keep_failures: bool = False,
    seconds: float = THINKING_SECONDS,
    max_steps: int = MAX_STEPS,
    progress: bool = True,
) -> Recorded:
    """
    Let an expert play, and add its episodes to a file of demonstrations, each when it is over.

    An episode in which the expert raises something or thinks for too long is dropped and counted, and the next begins.

    :param env: an environment of :func:`sb3_llm.make_env`
    :param expert: from ``env``, in its present state, to the index of an action; see :func:`expert_for`
    :param episodes: how many to play
    :param seed: of the first episode; the others get seed + 1, seed + 2, ...
    :param path: of the file. What it holds stays, and episodes are numbered on
    :param keep_failures: keep episodes without success too
    :param seconds: of processor time for one decision; can't be enforced outside a main thread, or on Windows
    :param max_steps: an episode that is longer has failed
    :param progress: show a bar
    :return: what was kept and what was dropped
    :raises SetupError: for bad arguments, an environment that never says whether it was solved (unless
        ``keep_failures``), an action that does not exist, or if no episode at all could be kept
    """
    path = Path(path)
    require_text(env)
    _check_arguments(expert, episodes, seed, seconds, max_steps)
    found, first = Recorded(path), next_episode(path)
    for number in tqdm(range(episodes), desc="recording", unit="episode", disable=not progress):
        try:
            demos, success = _Episode(env, expert, seconds, max_steps).play(seed + number, first + found.kept)
        except StoryTimeout as error:
            _drop(found, "hung", error)
            continue
        except _ExpertBroke as error:
            _drop(found, "broken", error)
            continue
        if success is None and not keep_failures:
            raise _tells_no_success(env)
        found.failed += success is False
        if success or keep_failures:
            write_demos(path, demos)
            found.kept += 1
            found.lines += len(demos)
    if not found.kept:
        raise _nothing_kept(found, episodes)
    return found


class _ExpertBroke(Exception):
    """An expert raised something."""


class _Episode:
    """One episode while an expert plays it."""

    def __init__(self, env: TextObservation, expert: Expert, seconds: float, max_steps: int) -> None:
        self._env, self._expert, self._seconds, self._max_steps = env, expert, seconds, max_steps

    def play(self, seed: int, number: int) -> tuple[list[Demo], bool | None]:
        """:return: its demonstrations, and whether it was solved; None if the environment does not say"""
        self._env.reset(seed=seed)
        begin = getattr(self._expert, "begin", None)
        if begin is not None:
            self._ask(begin)
        demos: list[Demo] = []
        for _ in range(self._max_steps):
            action = _index(self._ask(self._expert))
            demos.append(demo_of(self._env, action, number, len(demos)))
            _, _, terminated, truncated, info = self._env.step(action)
            if terminated or truncated:
                return demos, success_of(info)
        return demos, False

    def _ask(self, question: Callable[[TextObservation], Any]) -> Any:
        try:
            with bounded(self._seconds):
                return question(self._env)
        except StoryTimeout:
            raise
        except Exception as error:  # the BabyAI bot raises all kinds of things on levels that it can't solve
            raise _ExpertBroke(f"{type(error).__name__}: {error}") from error


def _index(action: Any) -> int:
    if not is_whole(action):
        mend = "return the index of the phrase in env.phrases"
        raise SetupError(f"an expert that returned {reprlib.repr(action)}", "the index of an action", mend)
    return int(action)


def demo_of(env: TextObservation, action: int, episode: int, step: int) -> Demo:
    """
    :param env: before the step
    :param action: about to be taken
    :param episode: number of the episode
    :param step: number of the decision within it
    :return: the decision, as a line holds it
    :raises SetupError: if there is no such action
    """
    _, phrase = env.choose(action)
    return Demo(env.text, phrase, tuple(env.phrases), episode, step)


def success_of(info: dict[str, Any]) -> bool | None:
    """:return: whether an episode was solved, by the info of its last step; None if that does not say"""
    return bool(info["is_success"]) if "is_success" in info else None


def next_episode(path: Path) -> int:
    """:return: the number of the next episode for a file: one more than the largest in it"""
    write_demos(path, ())  # drops what a kill left of a line
    if not path.exists() or not path.stat().st_size:
        return 0
    return 1 + max((demo.episode for demo in read_demos(path) if demo.episode is not None), default=-1)


def bounded(seconds: float) -> AbstractContextManager[Any]:
    """Signals reach main threads only, and Windows has no such timer."""
    main = threading.current_thread() is threading.main_thread()
    return time_limit(seconds) if main and hasattr(signal, "setitimer") else nullcontext()


def _drop(found: Recorded, counter: str, error: Exception) -> None:
    setattr(found, counter, getattr(found, counter) + 1)
    if str(error) not in found.reasons:
        found.reasons.append(str(error))


def require_text(env: Any) -> None:
    if not isinstance(env, TextObservation):
        given = f"an environment of type {type(env).__name__}"
        raise SetupError(given, "a TextObservation: text and phrases", "make it with make_env, or wrap it last of all")


def _check_arguments(expert: Any, episodes: Any, seed: Any, seconds: Any, max_steps: Any) -> None:
    if not callable(expert):
        mend = "pass expert_for(env), or a function of your own"
        raise SetupError(f"expert={expert!r}", "a callable from the environment to the index of an action", mend)
    for name, given, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
        if not is_whole(given) or given < least:
            raise SetupError(f"{name}={given!r}", f"a whole number, {least} or more", f"pass {name}={max(least, 100)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise SetupError(f"seconds={seconds!r}", "a number above 0", "leave seconds out")


def _tells_no_success(env: TextObservation) -> SetupError:
    return SetupError(
        f"{env.unwrapped}, which ends an episode without info['is_success']",
        "an environment that says whether it was solved, so that failures can be left out",
        "pass sparse=True to TextObservation if only success is rewarded, or keep_failures=True here",
    )


def _nothing_kept(found: Recorded, episodes: int) -> SetupError:
    told = f": {found.reasons[0]}" if found.reasons else ""
    return SetupError(
        f"{episodes} episodes of which none could be kept ({found.failed} without success, {found.hung} with an "
        f"expert that hung, {found.broken} with one that broke{told})",
        "an expert that solves some episodes",
        "choose another expert, raise max_steps, or pass keep_failures=True",
    )
