"""Stories: an expert's episodes in words, with random detours so that odd states are told too."""

import contextlib
import io
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.describe.actions import meanings
from sb3_llm.describe.describer import SUMMARY, History, turns_told
from sb3_llm.describe.maze import MazeDescriber
from sb3_llm.describe.memory import Memory
from sb3_llm.describe.minigrid import RoomDescriber
from sb3_llm.describe.worded import CANONICAL, DRAWN, Worded
from sb3_llm.envs.maze import MazeEnv
from sb3_llm.pretrain.drills import PLAIN_SHARE, SAY_DONE, drills
from sb3_llm.pretrain.experts import Expert, make_expert
from sb3_llm.prompt import DEFAULT_TEMPLATE, SEPARATOR
from sb3_llm.words.mission import parse
from sb3_llm.words.statements import view_question

STORY_LIMIT = 120  # steps; longer stories are wandering
STORY_SECONDS = 2.0  # of computing; an expert takes a tenth of that, or hangs
PLAN_CUE, PLAN_SHARE = "{observation}\nPlan:", 0.04  # of a story's steps also say what they are for
QUESTION_SHARE = 0.03  # of them are also asked about
SUMMARY_SHARE, SHORT_HISTORIES = 0.9, (0, 1, 4)  # the other stories tell so many last actions
#: Shares of the stories by language and wording.
TELLINGS = {("en", CANONICAL): 0.6, ("en", DRAWN): 0.2, ("zh", CANONICAL): 0.1, ("zh", DRAWN): 0.1}
DRILL_SHARE = 0.8  # of them are decided again for other missions


class Exchange(NamedTuple):
    """What stands there, and what comes next. The loss is mostly on what comes next."""

    prompt: str
    completion: str


class Line(NamedTuple):
    """A line of the corpus: an exchange, and others that go on from it."""

    prompt: str
    completion: str
    more: tuple[Exchange, ...] = ()

    def exchanges(self) -> tuple[Exchange, ...]:
        """:return: all of them, in order."""
        return Exchange(self.prompt, self.completion), *self.more

    def text(self) -> str:
        """:return: the whole line."""
        return "".join(map("".join, self.exchanges()))


@dataclass(frozen=True)
class Telling:
    """How a story is told."""

    history: History
    language: str
    wording: str


class StoryTimeout(Exception):
    """The expert thought for too long."""


def draw_telling(rng: np.random.Generator) -> Telling:
    """:return: mostly canonical English with a summary, sometimes other words, Chinese, or only the last actions."""
    history: History = SUMMARY if rng.random() < SUMMARY_SHARE else int(rng.choice(SHORT_HISTORIES))
    language, wording = list(TELLINGS)[int(rng.choice(len(TELLINGS), p=list(TELLINGS.values())))]
    return Telling(history, language, wording)


def tell_story(
    env: gym.Env[Any, Any], seed: int, detours: Sequence[float], use_bot: bool = False, telling: Telling | None = None
) -> list[Line]:
    """
    Let the expert play one episode and write down what it saw and what it would do (DAgger, arXiv 1011.0686).

    The phrase is always the expert's choice; the step taken is now and then a random one.

    :param env: a MiniGrid or BabyAI world or a maze, as Gymnasium makes it
    :param seed: of the episode, its words and its detours
    :param detours: chances of a random step, one of which is drawn for this story
    :param use_bot: the BabyAI bot instead of the planner
    :param telling: how to tell it; drawn by default
    :return: the episode's lines
    :raises Exception: whatever the expert raises; the bot fails on some levels, and its caller counts that
    """
    rng = np.random.default_rng(seed)
    telling = telling or draw_telling(rng)
    detour = float(rng.choice(detours))
    with time_limit(STORY_SECONDS), contextlib.redirect_stdout(io.StringIO()):
        return Story(env, seed, telling, rng, use_bot).told(detour)


class Story:
    """
    One episode while it is told.

    :param env: the world
    :param seed: of the episode
    :param telling: how it is told
    :param rng: draws all else
    :param use_bot: the BabyAI bot tells it
    :param describer: instead of the one that suits the world
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        seed: int,
        telling: Telling,
        rng: np.random.Generator,
        use_bot: bool = False,
        describer: Worded | None = None,
    ) -> None:
        self.env, self.rng = env, rng
        obs, _ = env.reset(seed=seed)
        # Arriving is not enough where the mission says so, and neither where it doesn't, as in MiniGrid's GoToObject.
        self.plain = bool(rng.random() < PLAIN_SHARE)
        self.describer = describer or describer_for(env, telling)
        self.obs = self._heard(obs)
        self.describer.begin(self.obs, rng)
        self.expert: Expert = make_expert(env, obs, use_bot)
        self.turns: deque[str] = deque(maxlen=turns_told(telling.history))

    def _heard(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        mission = obs.get("mission", "")
        return {**obs, "mission": mission.removesuffix(SAY_DONE)} if self.plain and SAY_DONE in mission else obs

    def told(self, detour: float) -> list[Line]:
        lines: list[Line] = []
        for _ in range(STORY_LIMIT):
            best, purpose = self.expert.advice()
            if best not in self.describer.keys:  # the bot says "done" where nothing is left to do
                break
            lines += self._say(best, purpose)
            taken, before = self._detour() if self.rng.random() < detour else best, self.obs
            if self._step(taken) or (taken == best and _same(before, self.obs)):
                break  # at the end, or where the expert gets nowhere: it would say the same for ever
        return lines

    def _say(self, best: str, purpose: str) -> list[Line]:
        words = self.describer.words
        text = self.describer.tell(self.obs, tuple(self.turns))
        lines = [Line(*exchange(DEFAULT_TEMPLATE, text, words.phrase(best)), self._drills())]
        chance = self.rng.random()
        if chance < PLAN_SHARE and purpose and parse(purpose) is not None:
            lines.append(Line(*exchange(PLAN_CUE, text, words.mission(purpose))))
        elif chance > 1 - QUESTION_SHARE and isinstance(self.describer, RoomDescriber):
            question, answer = view_question(
                self.rng, words, self.obs["mission"], *self.describer.facts(self.obs, tuple(self.turns))
            )
            lines.append(Line(f"{text}\n{question}", f"{SEPARATOR}{answer}\n"))
        return lines

    def _drills(self) -> tuple[Exchange, ...]:
        """What would be done for other missions: they follow the text and the first decision."""
        memory = getattr(self.describer, "memory", None)
        if not isinstance(memory, Memory) or self.rng.random() > DRILL_SHARE:
            return ()
        words, keys = self.describer.words, self.describer.keys
        return tuple(
            exchange(DEFAULT_TEMPLATE, words.goal(mission), words.phrase(key))
            for mission, key in drills(self.rng, memory)
            if key in keys
        )

    def _step(self, key: str) -> bool:
        action = self.describer.actions[key]
        obs, _, terminated, truncated, _ = self.env.step(action)
        self.obs = self._heard(obs)
        self.turns.append(self.describer.words.phrase(key))
        self.describer.note(action, self.obs)
        self.expert.note(action, obs)
        return terminated or truncated

    def _detour(self) -> str:
        """Mostly a move; in MiniGrid now and then a pick up, drop or open, so that mistakes are told as well."""
        keys = [key for key in self.describer.keys if key != "done"]
        moves = keys[:3] if isinstance(self.env.unwrapped, MiniGridEnv) and self.rng.random() > 0.2 else keys
        return moves[int(self.rng.integers(len(moves)))]


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a step in a MiniGrid world has changed nothing that is seen."""
    if "image" not in now:
        return False
    return before["direction"] == now["direction"] and np.array_equal(before["image"], now["image"])


def exchange(template: str, text: str, words: str) -> Exchange:
    """:return: the prompt that a template makes of a text, and the words that complete it, to the end of the line."""
    return Exchange(template.replace("{observation}", text), f"{SEPARATOR}{words}\n")


def describer_for(env: gym.Env[Any, Any], telling: Telling) -> Worded:
    """:return: the describer that :func:`sb3_llm.make_env` uses for a world."""
    inner: Any = env.unwrapped
    if isinstance(inner, MazeEnv):
        return MazeDescriber(telling.history, telling.language, telling.wording)
    return RoomDescriber(dict(meanings(inner)), telling.history, telling.language, telling.wording)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """
    An alarm around an expert. Works in a process's main thread, as signals do.

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
