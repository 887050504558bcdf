"""Code blocks of Markdown pages, run in the order of their page; what would take long is cut short."""

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from stable_baselines3 import PPO

FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

#: How blocks of Python are cut short: to one short rollout of two environments. TRPO's preset trains on every eighth
#: step, so it takes sixteen.
SHORT = (
    (re.compile(r"\.learn\([\d_]+"), ".learn(1"),
    (re.compile(r"n_envs=\d+"), "n_envs=2"),
    (re.compile(r'\bpresets\("ppo"[^)]*\)'), r'(\g<0> | {"n_steps": 4, "n_epochs": 1})'),
    (re.compile(r'\bpresets\((?!"ppo")[^)]*\)'), r'(\g<0> | {"n_steps": 8})'),
    (re.compile(r", progress_bar=True"), ""),
)
#: How commands of ``sb3-llm`` are cut short: what is written behind them, where the last value counts.
SHORT_OPTIONS = {
    "train": ("--timesteps", "8", "--n-envs", "2", "--set", "n_steps=4", "--set", "n_epochs=1"),
    "evaluate": ("--episodes", "1"),
    "watch": ("--episodes", "1"),
    "record": ("--episodes", "2"),
    "pretrain": ("--epochs", "1"),
}


class ShortPPO(PPO):
    """Where a block takes SB3's own defaults, of 2,048 steps and ten epochs."""

    def __init__(self, *args: Any, n_steps: int = 8, batch_size: int = 8, n_epochs: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs, **kwargs)


@dataclass(frozen=True)
class Block:
    """
    A block of code in a page.

    :param printed: what the page says that it prints: a block of "text" right below it
    """

    page: Path
    line: int
    language: str
    code: str
    printed: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """:return: the blocks of a Markdown page in their order"""
    text = page.read_text(encoding="utf-8")
    found = list(FENCED.finditer(text))
    below = [*found[1:], None][: len(found)]
    return [_block(page, text, each, after) for each, after in zip(found, below, strict=True)]


def _block(page: Path, text: str, found: re.Match[str], after: re.Match[str] | None) -> Block:
    line = text.count("\n", 0, found.start()) + 1
    told = after is not None and after["language"] == "text" and not text[found.end() : after.start()].strip()
    return Block(page, line, found["language"], found["code"], after["code"] if after is not None and told else None)


def run_python(block: Block, names: dict[str, Any]) -> str:
    """
    :param block: of Python
    :param names: what the blocks before it have made; this one adds to it
    :return: what it prints
    """
    code = block.code
    for pattern, instead in SHORT:
        code = pattern.sub(instead, code)
    said = io.StringIO()
    with redirect_stdout(said):
        # Empty lines above it, so that a traceback names the page's own line.
        exec(compile("\n" * block.line + code, str(block.page), "exec"), names)
    return said.getvalue()


def commands_of(code: str, program: str) -> Iterator[list[str]]:
    """:return: the arguments of each call of a program in a block of shell, comments left out"""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[: len(program.split())] == program.split():
            yield words[len(program.split()) :]


def understood(program: Any, arguments: list[str], whole: bool = True) -> None:
    """
    Raises where the program would: for a command or an option that it has not, or a value of another kind.

    :param program: as typer makes it
    :param arguments: of a call of it
    :param whole: what has to be given is given
    """
    if not arguments or arguments == ["--help"]:
        return
    name, *rest = arguments
    try:
        program.commands[name].make_context(name, rest)
    except typer.BadParameter as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise
