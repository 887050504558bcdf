"""Where TextWorld's games come from: a seeded stream, split by their worlds; each is compiled once and kept."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sb3_llm.errors import SetupError

#: Changes whenever what is written for the same game does.
FORMAT = 1
#: Half and half: making a game takes a second, and each one that falls to the other split is made for nothing.
TEST_ONE_IN = 2
SPLITS = ("train", "test", "all")


class Setting(NamedTuple):
    """What one setting of a kind of game may be."""

    default: Any
    allowed: Container[Any]
    words: str


#: Above 100 rooms a game does not fit into the one format that TextWorld 1.7 compiles to.
COIN_LEVELS = (*range(1, 151), *range(201, 234))
KINDS: dict[str, dict[str, Setting]] = {
    "coin_collector": {
        "level": Setting(
            5, COIN_LEVELS, "1 to 100 (so many rooms in a row), 101 to 150 or 201 to 233 (one or two dead ends to each)"
        )
    },
    "treasure_hunter": {"level": Setting(5, range(1, 31), "1 to 10 (5 rooms), 11 to 20 (doors) or 21 to 30 (locks)")},
    "simple": {
        "rewards": Setting("dense", ("dense", "balanced", "sparse"), "'dense', 'balanced' or 'sparse'"),
        "goal": Setting("brief", ("brief", "detailed", "none"), "'brief', 'detailed' (every command) or 'none'"),
    },
    "custom": {
        "rooms": Setting(3, range(1, 101), "a whole number from 1 to 100"),
        "objects": Setting(5, range(1, 101), "a whole number from 1 to 100"),
        "quest_length": Setting(3, range(1, 101), "a whole number from 1 to 100"),
    },
}


@dataclass(frozen=True)
class Recipe:
    """A kind of game with its settings; with a number it gives one game."""

    kind: str
    settings: tuple[tuple[str, Any], ...]

    def file_name(self, version: str, seed: int) -> str:
        """:return: the name, without suffix, of the files of one game."""
        parts = json.dumps([FORMAT, version, self.kind, self.settings, seed])
        return f"{self.kind}-{hashlib.sha256(parts.encode()).hexdigest()[:24]}"


def read_recipe(kind: str, settings: Mapping[str, Any]) -> Recipe:
    """
    :param kind: a key of :data:`KINDS`
    :param settings: those that are not to be the default
    :return: all of them, checked
    :raises SetupError: for an unknown kind or setting, or a value that it can't have
    """
    if kind not in KINDS:
        raise SetupError(
            f"the TextWorld game {kind!r}", f"one of {list(KINDS)}", f"pass one, such as {next(iter(KINDS))!r}"
        )
    known = KINDS[kind]
    for name, value in settings.items():
        if name not in known:
            raise SetupError(
                f"{name}={value!r} for TextWorld's {kind}", f"one of its settings {list(known)}", "leave it out"
            )
        if type(value) is not type(known[name].default) or value not in known[name].allowed:
            mend = f"pass {name}={known[name].default!r}"
            raise SetupError(f"{name}={value!r} for TextWorld's {kind}", known[name].words, mend)
    return Recipe(kind, tuple((name, settings.get(name, setting.default)) for name, setting in known.items()))


def import_textworld() -> Any:
    """
    :return: the package ``textworld``, which takes seconds to import
    :raises SetupError: if it isn't there
    """
    try:
        import textworld
        import textworld.challenges
        import textworld.generator
    except ImportError as error:
        raise SetupError(
            f"a TextWorld game, and no package to play it with ({error})",
            "TextWorld, on Linux or macOS: the extra sb3_llm[textworld]. TextWorld is under the MIT licence, but needs "
            "Jericho, which is under the GNU GPL, version 2 or later; so sb3_llm never installs it by itself",
            "pip install 'sb3_llm[textworld]'",
        ) from error
    return textworld


def cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    """
    :param cache: where game files are kept; by default in the user's cache folder
    :return: that folder, which exists and can be written to
    :raises SetupError: if it can't be made or written to
    """
    if cache is None:
        home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home) / "sb3_llm" / "textworld"
    folder = Path(cache).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(
            f"cache={str(cache)!r}: {error}", "a folder to keep games in", "pass cache= a folder you can write to"
        ) from None
    return folder


def draw_games(recipe: Recipe, split: str, games: int, seed: int, folder: Path) -> list[Path]:
    """
    The first games of a split in a stream of games, no world twice. What isn't in the folder yet is made.

    A game's world (its rooms, ways, things by their names, and where all is at the start) decides by its hash which
    split it is in. So no world is in both, whatever the streams.

    :param recipe: what kind of games
    :param split: "train", "test" or "all"
    :param games: how many
    :param seed: which stream
    :param folder: where game files are kept
    :return: the game files
    :raises SetupError: if the stream holds too few different ones
    """
    found: dict[str, Path] = {}
    tries = 4 * games + 20
    with tqdm(total=games, desc=f"{split} games of {recipe.kind}", unit="game", delay=2, leave=False) as bar:
        for number in range(tries):
            path = game_file(recipe, game_seed(seed, number), folder)
            world = world_of(path) if path else ""
            if path and split in ("all", split_of(world)) and world not in found:
                found[world] = path
                bar.update()
            if len(found) == games:
                return list(found.values())
            if number == 20 and not found:
                break
    raise SetupError(
        f"games={games} of {recipe.kind} with {dict(recipe.settings)}, split={split!r}: {number + 1} draws gave "
        f"{len(found)} different ones",
        "no more games than the settings leave",
        f"pass games={max(len(found), 1)}, or settings that leave more choice, such as a higher level",
    )


def game_seed(seed: int, number: int) -> int:
    """:return: TextWorld's seed for a game of a stream."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def split_of(world: str) -> str:
    """:return: "train" or "test", by a world's hash."""
    return "test" if int(world, 16) % TEST_ONE_IN == 0 else "train"


def world_of(path: Path) -> str:
    """:return: the hash of a game file's world."""
    return str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["metadata"]["world"])


def game_file(recipe: Recipe, seed: int, folder: Path) -> Path | None:
    """
    :param recipe: what kind of game
    :param seed: TextWorld's, which says which
    :param folder: where game files are kept
    :return: its file, made if it isn't there yet; None if TextWorld finds no quest for that seed
    :raises SetupError: if TextWorld can't make it
    """
    textworld = import_textworld()
    path = folder / f"{recipe.file_name(textworld.__version__, seed)}.z8"
    if path.exists() and path.with_suffix(".json").exists():
        return path
    try:
        game, options = generate(textworld, recipe, seed)
    except textworld.generator.QuestGenerationError:
        return None
    except Exception as error:  # names run out, no exit is free, no compiler, ...: TextWorld has many for this
        raise _not_made(recipe, error) from error
    game.metadata["world"] = world_hash(game)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as workshop:
        options.path = str(Path(workshop) / path.name)
        try:
            textworld.generator.compile_game(game, options)
        except (RuntimeError, OSError) as error:
            raise _not_made(recipe, error) from error
        # Whole files change places, the game itself last: who sees it finds both, also while others write.
        for suffix in (".json", ".z8"):
            os.replace(Path(options.path).with_suffix(suffix), path.with_suffix(suffix))
    return path


def generate(textworld: Any, recipe: Recipe, seed: int) -> tuple[Any, Any]:
    """:return: a TextWorld game, not compiled yet, and the options it was made with."""
    settings, options = dict(recipe.settings), textworld.GameOptions()
    options.seeds = seed
    # Else the objective spells out every command from the start to the goal; "simple" has a setting for it.
    options.grammar.only_last_action = recipe.kind != "simple"
    if recipe.kind == "custom":
        options.nb_rooms, options.nb_objects = settings["rooms"], settings["objects"]
        options.quest_length = settings["quest_length"]
        return textworld.generator.make_game(options), options
    _, make, _ = textworld.challenges.CHALLENGES[f"tw-{recipe.kind}"]
    # "simple" has a test mode with other names for food: other games by what they say, so not a split.
    return make(settings | {"test": False}, options), options


def world_hash(game: Any) -> str:
    """:return: 64 hex digits for what is where at the start of a game, by names; wording and quest do not count."""
    from textworld.generator.inform7 import Inform7Game

    teller = Inform7Game(game)
    facts = sorted(str(teller.get_human_readable_fact(fact)) for fact in game.world.facts)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _not_made(recipe: Recipe, error: Exception) -> SetupError:
    return SetupError(
        f"a game of {recipe.kind} with {dict(recipe.settings)} that TextWorld can't make: {type(error).__name__}: "
        f"{str(error)[-400:]}",
        "a game that fits a Z-machine, and the Inform compiler that comes with TextWorld",
        "take fewer rooms or objects, or check that TextWorld's own command tw-make works here",
    )
