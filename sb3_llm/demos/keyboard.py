"""A person at the keyboard: reads the observation text, types a phrase, and leaves demonstrations."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sb3_llm.demos.lines import Demo, write_demos
from sb3_llm.demos.recording import demo_of, next_episode, require_text, success_of
from sb3_llm.wrappers import TextObservation

QUIT = "quit"
Read = Callable[[str], str]
Write = Callable[[str], object]


class _Quit(Exception):
    """The person has had enough."""


def play(
    env: TextObservation,
    path: str | Path | None = None,
    episodes: int | None = None,
    seed: int = 0,
    keep_failures: bool = False,
    read: Read = input,
    write: Write = print,
) -> list[Demo]:
    """
    Play by hand. A number, a phrase or the start of one acts; "quit", or the end of the input, ends.

    :param env: an environment of :func:`sb3_llm.make_env`; with ``render_mode="ansi"`` its drawing is shown too
    :param path: file of demonstrations to which each episode is added when it is over; none by default
    :param episodes: how many to play; until "quit" by default
    :param seed: of the first episode; the others get seed + 1, seed + 2, ...
    :param keep_failures: keep episodes that the environment calls unsolved too
    :param read: asks for a line, as ``input`` does
    :param write: shows a text
    :return: the demonstrations of finished episodes
    :raises SetupError: if ``env`` is no :class:`TextObservation`, or the file can't be written
    """
    require_text(env)
    first = 0 if path is None else next_episode(Path(path))
    kept: list[Demo] = []
    played = n_kept = 0
    write(f'Type a number, a phrase or the start of one. "{QUIT}" ends; the episode that is going on is dropped then.')
    try:
        while episodes is None or played < episodes:
            demos, success = _play_one(env, seed + played, first + n_kept, read, write)
            played += 1
            keep = keep_failures or success is not False
            ending = "Not solved" if success is False else "The end"
            write(f"{ending}: {len(demos)} steps, {'kept' if keep else 'dropped'}.")
            if keep:
                n_kept += 1
                kept += demos
                if path is not None:
                    write_demos(path, demos)
    except (_Quit, EOFError, KeyboardInterrupt):
        pass
    write(f"{n_kept} episode{'s' if n_kept != 1 else ''} kept, {len(kept)} lines.")
    return kept


def _play_one(env: TextObservation, seed: int, number: int, read: Read, write: Write) -> tuple[list[Demo], bool | None]:
    env.reset(seed=seed)
    demos: list[Demo] = []
    while True:
        _show(env, write)
        action = _ask(env.phrases, read, write)
        demos.append(demo_of(env, action, number, len(demos)))
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return demos, success_of(info)


def _show(env: TextObservation, write: Write) -> None:
    if env.render_mode == "ansi":
        write(str(env.render()))
    write(env.text)
    write("   ".join(f"{number} {phrase}" for number, phrase in enumerate(env.phrases, start=1)))


def _ask(phrases: Sequence[str], read: Read, write: Write) -> int:
    """The index of the action that is typed; asked again until there is one."""
    while True:
        typed = read("> ").strip()
        found = matching(typed, phrases)
        if len(found) == 1:
            return found[0]
        if typed.lower() == QUIT:
            raise _Quit
        named = ", ".join(phrases[index] for index in found)
        reason = f"it can be {named}" if found else "there is no such phrase"
        write(f'"{typed}": {reason}. Type 1 to {len(phrases)}, a phrase, the start of just one, or "{QUIT}".')


def matching(typed: str, phrases: Sequence[str]) -> list[int]:
    """:return: indices of phrases that can be meant: one typed whole, else by its number, else all that begin so"""
    folded = [phrase.casefold() for phrase in phrases]
    wanted = typed.casefold()
    if wanted in folded and folded.count(wanted) == 1:
        return [folded.index(wanted)]
    if typed in phrases:
        return [phrases.index(typed)]
    if wanted == QUIT or not wanted:
        return []
    if wanted.isdecimal():
        return [int(wanted) - 1] if 1 <= int(wanted) <= len(phrases) else []
    return [index for index, phrase in enumerate(folded) if phrase.startswith(wanted)]
