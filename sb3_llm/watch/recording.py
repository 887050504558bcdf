"""Episodes played and written down step by step, with what the policy thought of each."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from sb3_llm.errors import SetupError
from sb3_llm.explain import Explanation
from sb3_llm.wrappers import TextObservation

MAX_SIDE = 320  # pixels of a frame's longer side; larger ones are made smaller


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
        image = Image.fromarray(pixels)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        file = io.BytesIO()
        image.quantize(64).save(file, "PNG", optimize=True)
        name = hashlib.sha256(file.getvalue()).hexdigest()
        if name not in self._known:
            self._known[name] = len(self.frames)
            self.frames.append(file.getvalue())
        return self._known[name]


def record(
    policy: Any,
    make: Callable[[], TextObservation],
    seeds: Sequence[int],
    title: str,
    greedy: bool = False,
    on_step: Callable[[int], None] = lambda done: None,
) -> Replay:
    """
    Play one episode of each seed, side by side, and explain every decision.

    :param policy: an :class:`~sb3_llm.LLMPolicy`
    :param make: makes a world of text, with ``render_mode="rgb_array"`` if frames are wanted
    :param seeds: of the episodes
    :param title: of the replay
    :param greedy: always the likeliest action; otherwise sampled with torch's random numbers
    :param on_step: called with how many decisions were made
    :return: the replay
    :raises SetupError: if there is no seed
    """
    if not seeds:
        raise SetupError("no episodes to watch", "one seed or more", "pass --episodes 5")
    replay = Replay(title, [Episode(seed) for seed in seeds])
    worlds = [make() for _ in seeds]
    observations = [world.reset(seed=seed)[0] for world, seed in zip(worlds, seeds, strict=True)]
    going = list(range(len(seeds)))
    while going:
        explained = policy.explain(np.stack([observations[one] for one in going]), attribution=("deletion",))
        for one, why in zip(list(going), explained, strict=True):
            episode, world = replay.episodes[one], worlds[one]
            frame, action = replay.keep(_seen(world)), _choose(why, greedy)
            observations[one], reward, terminated, truncated, info = world.step(action)
            episode.steps.append(Step(why, action, float(reward), frame))
            if terminated or truncated:
                episode.success = info.get("is_success")
                episode.last_frame = replay.keep(_seen(world))
                going.remove(one)
        on_step(len(explained))
    for world in worlds:
        world.close()
    return replay


def _choose(why: Explanation, greedy: bool) -> int:
    probabilities = torch.tensor([phrase.probability for phrase in why.phrases])
    return int(probabilities.argmax() if greedy else torch.multinomial(probabilities, 1))


def _seen(world: TextObservation) -> Any:
    return world.render() if world.render_mode == "rgb_array" else None
