"""A template: in which order, by which patterns and with which numbers the facts of a world are told."""

from collections.abc import Mapping
from dataclasses import dataclass

Sentences = tuple[tuple[str, ...], ...]  # the sections that each sentence tells


@dataclass(frozen=True)
class Template:
    """
    Patterns with ``{}`` or named gaps. Every section tells all it is given, so that no template loses a fact.

    The goal stands last: a causal model has then read all there is when it reads what to do with it, and learns to look
    up the thing that is named in a fraction of the steps.
    """

    room: Sentences
    maze: Sentences
    # sections
    goal: str  # {} is the mission
    facing: str  # {} is the compass
    carrying: str  # {thing}, or {a} for it with an article
    empty_hands: str
    free: str  # {way}, {steps}
    free_end: str  # {way}, {steps}, {end}
    ways: Mapping[str, str]  # "ahead", "left", "right": the {way} of free
    seen: str
    seen_nothing: str
    floor: str
    before: str
    untried: str
    deeds: str
    deed: str  # {done}, {thing}
    done: Mapping[str, str]  # "reached", "picked up", "dropped", "opened"
    visits: tuple[str, str]  # once, and {} times
    last: tuple[str, str]  # one action, several
    none: str  # in the place of last actions
    listing: str
    # places
    spot: str  # {thing}, {place}, {way}: right after the thing, where a small model finds it soonest
    places: Mapping[str, str]  # "ahead", "behind", "left", "right" with {}; "here"
    place_glue: str
    way: str  # {way}, {moves}
    way_alone: str  # {way}, of an unknown length
    reach: str
    first_moves: Mapping[str, str]  # "ahead", "left", "right", "open", "clear": the {way} of a spot
    rectangle: str  # {rows}, {columns}
    row: tuple[str, str]  # one row, from {first} to {last}
    side: Mapping[str, str]  # "left", "right" with {}; "middle"
    span: str  # {left}, {right}
    # a maze
    maze_goal: str  # {mission}, {offset}
    offset: str  # {steps}, {compass}
    offset_glue: str
    at: str  # {row}, {column}
    wall: str  # {compass}
    to_goal: str  # {compass}, {goal}
    to_exits: tuple[str, str]  # {compass}, {exits}: of a cell not walked, and of one that was
    dead_end: str
    exits_glue: str
    passages_glue: str
    trail: str  # {compass}, {steps}
    # how it is written
    numbers: tuple[str, ...]  # the words of 0, 1, ...; none: digits
    two: str | None  # the word for two before what it counts, where it is another
    unit: tuple[str, str]  # after a number of steps: of one, of several
    trail_unit: tuple[str, str]
    articles: bool  # "a red ball"
    comma: str  # between the things of a list
    semicolon: str  # between the rectangles of the floor
    glue: str  # between the sections of a sentence
    stop: str  # after a sentence
    space: str  # between sentences
    capital: bool  # sentences start with one

    def number(self, value: int) -> str:
        """:return: a number in words as far as they go, or in digits."""
        return self.numbers[value] if 0 <= value < len(self.numbers) else str(value)

    def steps(self, value: int) -> str:
        """:return: a number of steps."""
        return self._counted(value, self.unit)

    def trail_steps(self, value: int) -> str:
        """:return: the length of a way in a maze."""
        return self._counted(value, self.trail_unit)

    def times(self, value: int) -> str:
        """:return: a number of times."""
        return self._counting(value)

    def sentence(self, text: str) -> str:
        """:return: the text with a capital letter and a full stop."""
        return (text[:1].upper() + text[1:] if self.capital else text) + self.stop

    def _counted(self, value: int, unit: tuple[str, str]) -> str:
        number = self._counting(value) if unit[1] else self.number(value)
        return f"{number}{unit[value != 1]}"

    def _counting(self, value: int) -> str:
        """A number before what it counts."""
        return self.two if value == 2 and self.two and self.numbers else self.number(value)
