"""Episodes played and written down step by step, with what the policy thought of each."""

import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from sb3_llm.decisions import ask, question_of
from sb3_llm.errors import SetupError
from sb3_llm.explain import Explanation
from sb3_llm.make import make_env
from sb3_llm.wrappers import TextObservation

MAX_SIDE = 320  # pixels of a frame's longer side; larger ones are made smaller
TOGETHER = 128  # decisions explained at once


@dataclass(frozen=True)
class Step:
    """One decision, and what came of it."""

    why: Explanation
    action: int  # that was taken
    reward: float
    frame: int | None  # before it, an index into the replay's frames


@dataclass
class Episode:
    """One episode."""

    seed: int
    steps: list[Step] = field(default_factory=list)
    success: bool | None = None  # None where the environment does not say
    last_frame: int | None = None
    broken_off: bool = False  # before it had ended

    @property
    def total(self) -> float:
        """:return: the sum of its rewards."""
        return sum(step.reward for step in self.steps)


@dataclass
class Replay:
    """Some episodes, with their frames, each kept once."""

    title: str
    episodes: list[Episode] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)  # PNG
    _known: dict[str, int] = field(default_factory=dict, repr=False)

    def keep(self, pixels: Any) -> int | None:
        """
        :param pixels: (H, W, 3) uint8, or None where there is nothing to see
        :return: where the frame is kept
        """
        if not isinstance(pixels, np.ndarray):
            return None
        name = hashlib.sha256(pixels.tobytes()).hexdigest()
        if name not in self._known:
            self._known[name] = len(self.frames)
            self.frames.append(_as_png(pixels))
        return self._known[name]


@dataclass(frozen=True)
class _Taken:
    """A step before it is explained."""

    observation: Any
    mask: bytes | None  # of the actions that were possible, where the policy knows masks
    action: int
    reward: float
    frame: int | None

    @property
    def question(self) -> tuple[bytes, bytes | None]:
        """:return: what equal explanations have in common."""
        return self.observation.tobytes(), self.mask


def record(
    policy: Any,
    make: Callable[[], TextObservation],
    seeds: Sequence[int],
    title: str,
    greedy: bool = False,
    on_step: Callable[[int], None] = lambda done: None,
    max_steps: int | None = None,
) -> Replay:
    """
    Play one episode of each seed, side by side, and explain every decision.

    :param policy: an :class:`~sb3_llm.LLMPolicy`, or :class:`~sb3_llm.MaskableLLMPolicy`, whose masks are kept
    :param make: makes a world of text, with ``render_mode="rgb_array"`` if frames are wanted
    :param seeds: of the episodes
    :param title: of the replay
    :param greedy: always the likeliest action; otherwise sampled with torch's random numbers
    :param on_step: called with how many decisions were made
    :param max_steps: where an episode is broken off; by default where the environment ends it
    :return: the replay
    :raises SetupError: if there is no seed
    """
    if not seeds:
        raise SetupError("no episodes to watch", "one seed or more", "pass --episodes 5")
    replay = Replay(title, [Episode(seed) for seed in seeds])
    worlds = [make() for _ in seeds]
    taken = _play(policy, worlds, replay, greedy, on_step, max_steps or sys.maxsize)
    for world in worlds:
        world.close()
    whys = _explain(policy, [step for steps in taken for step in steps])
    for episode, steps in zip(replay.episodes, taken, strict=True):
        episode.steps += [Step(next(whys), step.action, step.reward, step.frame) for step in steps]
    return replay


def _play(
    policy: Any,
    worlds: Sequence[TextObservation],
    replay: Replay,
    greedy: bool,
    on_step: Callable[[int], None],
    max_steps: int,
) -> list[list[_Taken]]:
    """:return: the steps of each episode; frames and ends go into the replay."""
    pairs = zip(worlds, replay.episodes, strict=True)
    observations = [world.reset(seed=episode.seed)[0] for world, episode in pairs]
    taken: list[list[_Taken]] = [[] for _ in worlds]
    going = list(range(len(worlds)))
    while going:
        asked = [question_of(policy, worlds[one], observations[one]) for one in going]
        for one, (_, _, mask), row in zip(list(going), asked, ask(policy, asked).exp().float().cpu(), strict=True):
            episode, world, before = replay.episodes[one], worlds[one], observations[one]
            likely = row[: len(world.phrases)]
            action = int(likely.argmax() if greedy else torch.multinomial(likely, 1))
            frame = replay.keep(_seen(world))
            observations[one], reward, terminated, truncated, info = world.step(action)
            taken[one].append(_Taken(before, mask, action, float(reward), frame))
            episode.broken_off = not (terminated or truncated) and len(taken[one]) >= max_steps
            if terminated or truncated or episode.broken_off:
                episode.success = info.get("is_success")
                episode.last_frame = replay.keep(_seen(world))
                going.remove(one)
        on_step(len(asked))
    return taken


def _explain(policy: Any, steps: Sequence[_Taken]) -> Iterator[Explanation]:
    """
    Explain decisions after the game: it does not need the reasons, many of them are the same, and the texts with a
    clause left out are scored faster when there are many to choose those of like length from.

    :return: an explanation of each
    """
    distinct = list({step.question: step for step in steps}.values())
    known: dict[Any, Explanation] = {}
    for start in range(0, len(distinct), TOGETHER):
        some = distinct[start : start + TOGETHER]
        masks = [np.frombuffer(step.mask, dtype=bool) for step in some if step.mask is not None]
        observations = np.stack([step.observation for step in some])
        given = {"action_masks": np.stack(masks)} if masks else {}
        whys = policy.explain(observations, attribution=("deletion",), **given)
        known |= zip([step.question for step in some], whys, strict=True)
    return (known[step.question] for step in steps)


def maker_of(env_id: str, **options: Any) -> Callable[[], TextObservation]:
    """
    :param env_id: as in :func:`~sb3_llm.make_env`
    :param options: as there
    :return: makes the environment, with frames where it can draw any
    """
    world = make_env(env_id, **options)
    draws = "rgb_array" in (world.metadata.get("render_modes") or ())
    world.close()
    return partial(make_env, env_id, **({"render_mode": "rgb_array"} if draws else {}) | options)


def _seen(world: TextObservation) -> Any:
    return world.render() if world.render_mode == "rgb_array" else None


def _as_png(pixels: Any) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()
