"""A replay as a film: its frames one after another, episode after episode."""

import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sb3_llm.errors import SetupError
from sb3_llm.watch.recording import Replay

MILLISECONDS = 300  # from frame to frame


def save_film(replay: Replay, path: Path) -> None:
    """
    :param replay: with frames
    :param path: ends in .gif, or in .mp4, for which imageio with ffmpeg is needed
    :raises SetupError: for another ending, a replay without frames, or without what writes the film
    """
    frames = list(_frames(replay))
    if not frames:
        raise SetupError("a film of a world that shows nothing", "a world with frames", "leave --film out")
    if path.suffix == ".gif":
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0)
    elif path.suffix == ".mp4":
        _write_mp4(frames, path)
    else:
        raise SetupError(f"the film {path}", "a name that ends in .gif or .mp4", "pass --film replay.gif")


def _frames(replay: Replay) -> Iterator[Image.Image]:
    size = max((Image.open(io.BytesIO(frame)).size for frame in replay.frames), default=(0, 0))
    for episode in replay.episodes:
        for index in [*(step.frame for step in episode.steps), episode.last_frame]:
            if index is not None:
                yield Image.open(io.BytesIO(replay.frames[index])).convert("RGB").resize(size)


def _write_mp4(frames: list[Image.Image], path: Path) -> None:
    try:
        writer = importlib.import_module("imageio").get_writer(path, fps=1000 / MILLISECONDS, macro_block_size=2)
    except (ImportError, ValueError):
        raise SetupError(
            f"the film {path}", "imageio with ffmpeg", "pip install 'imageio[ffmpeg]', or name a .gif"
        ) from None
    with writer:
        for frame in frames:
            writer.append_data(np.asarray(frame))
