"""TextWorld's text games as a Gymnasium environment: commands in, what the game says out."""

import os
import re
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces

from sb3_llm.envs.textworld_files import SPLITS, cache_folder, draw_games, import_textworld, read_recipe, world_of
from sb3_llm.errors import SetupError

__all__ = ["TextWorldEnv", "textworld_candidates", "textworld_env"]

Observation = dict[str, str]

PREFIX = "textworld:"
TEXTS = ("objective", "feedback", "room", "came_from", "inventory")
#: They cost a step and tell nothing that the observation doesn't.
IDLE = ("look", "inventory", "examine ")
#: Where a way leads back to: from the next room, its ways lie the other way round.
OPPOSITE = {"go north": "south", "go south": "north", "go east": "west", "go west": "east"}
#: What an interpreter of such games can show.
LETTERS = frozenset(map(chr, range(32, 127))) | {"\n"}


class TextWorldEnv(gym.Env[Observation, str]):
    """
    Play games that TextWorld made (Côté et al. 2018, arXiv:1806.11532).

    Observation, five texts: ``objective``; ``feedback``, what the game said to the last command besides showing a
    room; ``room``, what there is to see; ``came_from``, the direction back to the room before, empty in the first
    room: what an agent without memory needs most of the past; ``inventory``. Actions are commands. Info:
    ``admissible_commands``, those that the state allows; ``score``, ``max_score``; ``game``, 16 hex digits of the
    game's world; after a step also ``is_success``. The reward of a step is what it adds to the score. ``reset`` draws
    a game; ``reset(options={"game": k})`` gives number k of the list and leaves the env's own stream alone.

    The list of games is the same for the same arguments; no world of one split is in the other. Game files are made
    once, in about a second each, and kept.

    :param name: "coin_collector", "treasure_hunter", "simple" or "custom"
    :param split: "train", "test" or "all"
    :param games: how many games the list has
    :param seed: another number gives another list
    :param max_steps: an episode is truncated after so many commands
    :param cache: a folder for the game files; by default one in the user's cache
    :param render_mode: "ansi" or None
    :param settings: of coin_collector and treasure_hunter ``level``; of simple ``rewards`` and ``goal``; of custom
        ``rooms``, ``objects`` and ``quest_length``
    :raises SetupError: if TextWorld isn't there, an argument is unknown, or there aren't as many games
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        name: str = "coin_collector",
        split: str = "train",
        games: int = 50,
        seed: int = 0,
        max_steps: int = 50,
        cache: str | os.PathLike[str] | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.recipe = read_recipe(name, settings)
        if split not in SPLITS:
            raise SetupError(f"split={split!r}", f"one of {list(SPLITS)}", "pass split='train'")
        for argument, value, least in (("games", games, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
            if type(value) is not int or value < least:
                raise SetupError(f"{argument}={value!r}", f"a whole number, {least} or more", f"leave {argument} out")
        if render_mode not in (None, "ansi"):
            raise SetupError(f"render_mode={render_mode!r}", "None or 'ansi'", "pass render_mode='ansi'")
        import_textworld()  # before a folder is made for nothing
        self.split, self.max_steps, self.render_mode = split, max_steps, render_mode
        self.games = draw_games(self.recipe, split, games, seed, cache_folder(cache))
        text = spaces.Text(max_length=100_000, min_length=0, charset=LETTERS)
        self.observation_space = spaces.Dict(dict.fromkeys(TEXTS, text))  # type: ignore[assignment]
        self.action_space = spaces.Text(max_length=1000, charset=LETTERS)
        self.number: int | None = None  # of the game that is played, in the list
        self.commands: list[str] = []  # those of the episode
        self.came_from = ""
        self.over = True
        self._player: Any = None
        self._state: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """
        Start a game: one drawn from the list, or a numbered one.

        :param seed: restarts the env's stream
        :param options: None, {} or {"game": k} with k from 0 to games - 1
        :return: observation and info
        :raises SetupError: if options hold anything else
        """
        super().reset(seed=seed)
        unknown = sorted(map(str, set(options or {}) - {"game"}))
        if unknown:
            raise SetupError(f"options with {unknown}", "no key but 'game'", "pass options={'game': 0} or None")
        number = options["game"] if options else int(self.np_random.integers(len(self.games)))
        if type(number) is not int or not 0 <= number < len(self.games):
            raise SetupError(f"game={number!r}", f"a whole number from 0 to {len(self.games) - 1}", "pass one of these")
        self.number, self.commands, self.came_from, self.over = number, [], "", False
        self._replay()
        return self._observation(), self._info()

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        :param action: one of ``info["admissible_commands"]``
        :return: observation, reward, terminated, truncated, info
        :raises SetupError: for any other action, or if no episode goes on
        """
        if self.over:
            raise SetupError(
                f"action={action!r} where no game goes on",
                "a step of an episode",
                "call reset() first: at the start, and after the end of an episode",
            )
        admissible = self._state.admissible_commands
        if action not in admissible:
            raise SetupError(f"action={action!r}", f"one of the admissible commands {admissible}", "pass one of these")
        before = self._state.score
        self._state, _, terminated = self._player.step(action)
        self.commands.append(action)
        self.came_from = OPPOSITE.get(action, self.came_from)
        truncated = not terminated and len(self.commands) >= self.max_steps
        self.over = terminated or truncated
        info = self._info() | {"is_success": bool(self._state.won)}
        return self._observation(), float(self._state.score - before), bool(terminated), truncated, info

    def expert_commands(self) -> list[str]:
        """
        :return: commands that win from here, as TextWorld keeps them up to date; not always the fewest. Empty if the
            game is over or lost
        """
        if self.over or self.number is None:
            return []
        player, state = self._start(policy_commands=True)
        player.close()
        return list(state.policy_commands or [])

    def render(self) -> Any:
        """:return: what a player sees: the last command, what came of it, the room and the inventory; else None."""
        if self.render_mode is None or self._state is None:
            return None
        texts = self._observation()
        shown = [f"> {self.commands[-1]}" if self.commands else texts["objective"]]
        return "\n".join(text for text in (*shown, texts["feedback"], texts["room"], texts["inventory"]) if text)

    def close(self) -> None:
        """Give the interpreter's memory back; the environment can be reset again."""
        if self._player is not None:
            self._player.close()
        self._player, self._state, self.over = None, None, True

    def __getstate__(self) -> dict[str, Any]:
        # The interpreter is a C library; a copy plays the same commands in one of its own.
        return self.__dict__ | {"_player": None, "_state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.number is not None and not self.over:
            self._replay()

    def _replay(self) -> None:
        if self._player is not None:
            self._player.close()
        self._player, self._state = self._start()

    def _start(self, **wanted: bool) -> tuple[Any, Any]:
        """An interpreter of the present game after the episode's commands, and the state it is in."""
        textworld = import_textworld()
        path = self.games[self.number or 0]
        if not path.exists():
            raise SetupError(f"no file {path}", "the game files this environment made", "make it anew, with its cache=")
        asked = textworld.EnvInfos(description=True, inventory=True, admissible_commands=True, score=True, **wanted)
        player = textworld.start(str(path), asked)
        player.seed(0)
        state = player.reset()
        for command in self.commands:
            state, _, _ = player.step(command)
        return player, state

    def _observation(self) -> Observation:
        room = clean(self._state.description)
        # The first feedback is a banner, the objective and the room.
        feedback = clean(self._state.feedback).replace(room, "").strip() if self.commands else ""
        inventory = clean(self._state.inventory)
        objective = clean(self._state.objective)
        return dict(zip(TEXTS, (objective, feedback, room, self.came_from, inventory), strict=True))

    def _info(self) -> dict[str, Any]:
        state = self._state
        return {
            "admissible_commands": list(state.admissible_commands),
            "score": state.score,
            "max_score": state.max_score,
            "game": world_of(self.games[self.number or 0])[:16],
        }


def clean(text: str | None) -> str:
    """
    :param text: what the interpreter wrote
    :return: the same in one line, without the prompt, the status line behind it, and what follows the end
    """
    told = re.split(r"\n\s*>|\*\*\*", text or "")[0]
    return " ".join(re.sub(r"-= (.*?) =-", r"\1.", told).split())


def textworld_candidates(obs: Observation, info: dict[str, Any]) -> list[str]:
    """
    :param obs: an observation of :class:`TextWorldEnv`
    :param info: the info that came with it
    :return: the admissible commands that can change something: all but "look", "inventory" and "examine ..."
    """
    return [command for command in info["admissible_commands"] if not command.startswith(IDLE)]


def textworld_env(name: str, **kwargs: Any) -> TextWorldEnv:
    """
    :param name: such as "textworld:coin_collector", with or without its first part
    :param kwargs: as :class:`TextWorldEnv` takes them
    :return: the environment
    :raises SetupError: as :class:`TextWorldEnv`
    """
    return TextWorldEnv(name.removeprefix(PREFIX), **kwargs)
