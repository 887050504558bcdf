"""What a language offers to draw from: for every meaning the words of the corpus, and those kept out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sb3_llm.words.template import Template


class Pool(NamedTuple):
    """Ways to say one thing."""

    train: tuple[str, ...]  # the canonical one first
    held: tuple[str, ...] = ()  # never in the corpus


Pools = Mapping[str, Pool]


@dataclass(frozen=True)
class Language:
    """All words of one language."""

    name: str
    phrases: Pools  # by the action's key
    nouns: Pools  # by MiniGrid's kinds, and by a door's states
    colors: Pools
    missions: Pools  # patterns, by the meaning
    templates: Mapping[str, Template]  # the canonical one first
    held_templates: Mapping[str, Template]
    marks: tuple[str, ...]  # parts of the held-out templates that stand in no other text
    compass: Mapping[str, str]
    thing_order: tuple[str, ...]  # of state, color and kind
    thing_glue: str
    located: str  # a thing at a location
    action: str  # an action that has a number only
    keeps_unknown: bool  # unknown words are said as they are
    syllables: tuple[tuple[str, ...], ...] = field(repr=False)  # invented words take one of each
    color_suffix: str = ""  # of invented colors

    def pools(self, axis: str) -> Pools:
        """
        :param axis: "phrases", "nouns", "colors", "missions" or "templates"
        :return: what can be drawn, by meaning
        """
        if axis == "templates":
            return {"template": Pool(tuple(self.templates), tuple(self.held_templates))}
        pools: Pools = getattr(self, axis)
        return pools

    def template(self, name: str) -> Template:
        """:return: a template of the corpus, or a held-out one, by its name."""
        return self.templates[name] if name in self.templates else self.held_templates[name]
