"""Where a look goes: TensorBoard, a folder of Markdown, or both."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Figure, Logger, TensorBoardOutputFormat

from sb3_llm.errors import SetupError
from sb3_llm.folder import write_text

NUMBER = "{:09d}"  # of a page, so that pages stand in order


@dataclass
class Look:
    """What was found at one time of training, by the names it is written under."""

    step: int  # of training, in environment steps
    updates: int  # since training began
    values: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # Markdown
    figures: dict[str, Any] = field(default_factory=dict)  # of matplotlib


def require_outlet(logger: Logger, folder: Path | None) -> None:
    """:raises SetupError: if there is nowhere to write"""
    if folder is None and not _boards(logger):
        given = "Diary without folder=, in a training without TensorBoard"
        raise SetupError(given, "somewhere to write", 'pass folder="diary", or tensorboard_log= to the algorithm')


def write(look: Look, logger: Logger, folder: Path | None) -> None:
    """
    Write at once: what is recorded for SB3's next dump is lost where a later record comes before it.

    :param look: what was found
    :param logger: of the training; its other formats get the numbers with their next dump
    :param folder: of the pages
    """
    for name, value in look.values.items():
        logger.record(name, value, exclude="tensorboard")
    if folder is not None:
        _write_page(look, folder)
    figures = {name: Figure(figure, close=True) for name, figure in look.figures.items()}
    everything: dict[str, Any] = {**look.values, **look.texts, **figures}
    for board in _boards(logger):
        board.write(everything, dict.fromkeys(everything, ()), look.step)


def _boards(logger: Logger) -> list[TensorBoardOutputFormat]:
    return [each for each in logger.output_formats if isinstance(each, TensorBoardOutputFormat)]


def _write_page(look: Look, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = NUMBER.format(look.step)
    parts = [f"# After {look.step} steps, update {look.updates}"]
    parts += ["\n".join(f"- {each}: {value:.3f}" for each, value in look.values.items())]
    for each, figure in look.figures.items():
        file = f"{name}-{each.rpartition('/')[2]}.png"
        figure.savefig(folder / file, dpi=110)
        parts.append(f"![{each}]({file})")
    parts += [f"## {each}\n\n{text}" for each, text in look.texts.items()]
    write_text(folder / f"{name}.md", "\n\n".join(parts) + "\n")
