"""The stories that the embedded model read, played again: the same episodes and choices, as numbers."""

import ast
import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import sb3_llm
import sb3_llm.envs
from sb3_llm.benchmarks.controls.numbers import ACTIONS, MAZE, CommonNumbers
from sb3_llm.errors import SetupError
from sb3_llm.folder import write_whole
from sb3_llm.pretrain.corpus import FORMAT, MAX_FAILURES, first_seed, share_out
from sb3_llm.pretrain.sources import SOURCES, Source
from sb3_llm.pretrain.stories import STORY_SECONDS, Line, Story, Telling, draw_telling, time_limit

#: Where the code is, in a checkout and where it is installed.
FOLDERS = {
    "envs": Path(str(sb3_llm.envs.__file__)).parent,
    "sb3_llm": Path(sb3_llm.__file__).parent,
    "benchmarks": Path(__file__).parent.parent,
}
CODE = (
    "envs/rooms*.py",
    "envs/*maze.py",
    "envs/layout.py",
    "sb3_llm/describe/*memory.py",
    "sb3_llm/describe/summary.py",
    "sb3_llm/numeric*.py",
    "sb3_llm/pretrain/experts.py",
    "sb3_llm/pretrain/planner.py",
    "sb3_llm/pretrain/stories.py",
    "benchmarks/controls/numbers.py",
    "benchmarks/controls/replay.py",
)


@dataclass(frozen=True)
class Demonstrations:
    """Choices of an expert."""

    inputs: NDArray[np.float16]  # (N, numbers of an observation)
    actions: NDArray[np.uint8]  # (N,)
    stories: NDArray[np.int32]  # (N,) which episode each is from, so that whole episodes can be held out

    def __len__(self) -> int:
        return len(self.actions)


class Replay(Story):
    """A story that is told again, word by word, with the numbers of each state of it beside the expert's choice."""

    def __init__(
        self, eyes: CommonNumbers, seed: int, telling: Telling, rng: np.random.Generator, use_bot: bool
    ) -> None:
        super().__init__(eyes.numeric.env, seed, telling, rng, use_bot)
        self.eyes = eyes
        self.eyes.numeric.turns.clear()
        self.eyes.numeric.state = self.obs  # as heard: without "and say done" where the story's text lacks it
        self.eyes.numeric.began(None)
        self.choices: list[tuple[int, NDArray[np.float16], int]] = []  # (lines told before, numbers, action)
        self.n_lines = 0

    def _say(self, best: str, purpose: str) -> list[Line]:
        numbers = self.eyes.observation(self.eyes.numeric.observe()).astype(np.float16)
        self.choices.append((self.n_lines, numbers, ACTIONS[self.eyes.kind].index(best)))
        lines = super()._say(best, purpose)
        self.n_lines += len(lines)
        return lines

    def _step(self, key: str) -> bool:
        ended = super()._step(key)
        action = ACTIONS[self.eyes.kind].index(key)
        self.eyes.numeric.turns.append(action)
        self.eyes.numeric.state = self.obs
        self.eyes.numeric.stepped(action)
        return ended


def replay_story(eyes: CommonNumbers, seed: int, source: Source) -> tuple[list[Line], Replay]:
    """
    :param eyes: around the source's environment
    :param seed: of the story
    :param source: where it is from
    :return: the lines that :func:`sb3_llm.pretrain.stories.tell_story` tells, and the story with its choices
    :raises Exception: whatever the expert raises
    """
    rng = np.random.default_rng(seed)
    telling = draw_telling(rng)
    detour = float(rng.choice(source.detours))
    # Three times as long: the numbers take time too, and a story that the corpus holds must not be lost.
    with time_limit(3 * STORY_SECONDS), contextlib.redirect_stdout(io.StringIO()):
        story = Replay(eyes, seed, telling, rng, source.use_bot)
        return story.told(detour), story


def replay(source: Source, n_lines: int, seed: int) -> Iterator[tuple[list[Line], Replay]]:
    """
    Play the stories of :func:`sb3_llm.pretrain.corpus.tell_stories`; the last one is longer than the corpus's.

    :param source: where the stories play
    :param n_lines: how many lines of the corpus are from this source
    :param seed: of the corpus
    :return: each story's lines, and the story with its choices
    """
    eyes = CommonNumbers(gym.make(source.env_id, disable_env_checker=True, **source.env_kwargs))
    first = first_seed(source, seed)
    number, told, failures = 0, 0, 0
    while told < n_lines and failures < MAX_FAILURES:
        number += 1
        try:
            lines, story = replay_story(eyes, (first + number - 1) % 2**31, source)
        except SetupError:
            raise
        except Exception:  # the corpus drops this story too
            failures += 1
            continue
        failures, told = 0, told + len(lines)
        yield lines, story


def gather(kind: str, n_lines: int, seed: int = 0, sources: Sequence[Source] = SOURCES) -> Demonstrations:
    """
    Gather the choices that a corpus of so many lines holds, from all sources of a kind.

    :param kind: of worlds: "grid" or "maze"
    :param n_lines: of the whole corpus, sayings and the worlds of the other kind included
    :param seed: of the corpus
    :param sources: of the corpus
    :return: one demonstration for each phrase that an expert chose in it; plans and questions are left out
    """
    inputs, actions, stories = [], [], []
    parts = [(part.source, part.lines) for part in share_out(n_lines, seed, sources) if isinstance(part.source, Source)]
    mine = [part for part in parts if (part[0].env_id == "sb3_llm/Maze-v0") == (kind == MAZE)]
    number = 0
    for source, lines in tqdm(mine, desc=f"replaying {kind} stories", unit="source"):
        left = lines
        for told, story in replay(source, lines, seed):
            kept = [(numbers, action) for before, numbers, action in story.choices if before < left]
            inputs += [numbers for numbers, _ in kept]
            actions += [action for _, action in kept]
            stories += [number] * len(kept)
            number, left = number + 1, left - len(told)
    return Demonstrations(np.stack(inputs), np.array(actions, np.uint8), np.array(stories, np.int32))


def choices_digest() -> str:
    """:return: what choices depend on: the corpus's sources, and the code of its worlds, experts and numbers."""
    whole = hashlib.sha256(json.dumps([FORMAT, *(asdict(source) for source in SOURCES)], sort_keys=True).encode())
    for pattern in CODE:
        for path in files(pattern):
            whole.update(_meaning(path).encode())
    return whole.hexdigest()[:16]


def files(pattern: str) -> list[Path]:
    """:return: the files of one of :data:`CODE`."""
    folder, _, names = pattern.partition("/")
    return sorted(FOLDERS[folder].glob(names))


def _meaning(path: Path) -> str:
    """The code without comments, and without the names of modules, which move."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return "\n".join(ast.dump(part) for part in body if not isinstance(part, ast.Import | ast.ImportFrom))


def kept_demonstrations(folder: Path, kind: str, n_lines: int, seed: int = 0) -> Demonstrations:
    """:return: as :func:`gather`, from disk if they were gathered for the same corpus before."""
    path = folder / f"{kind}-{n_lines}-{seed}.npz"
    if path.exists():
        with np.load(path) as found:
            if str(found["made_from"]) == choices_digest():
                return Demonstrations(found["inputs"], found["actions"], found["stories"])
    demonstrations = gather(kind, n_lines, seed)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: Mapping[str, Any] = vars(demonstrations) | {"made_from": choices_digest()}
    write_whole(path, lambda file: np.savez(file, **arrays))
    return demonstrations
