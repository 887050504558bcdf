"""What a language has to say of how these worlds work: patterns with gaps."""

from collections.abc import Mapping
from dataclasses import dataclass

Exchange = tuple[str, str]  # a question and its answer


@dataclass(frozen=True)
class Lore:
    """Patterns of one language."""

    statements: tuple[str, ...]
    questions: tuple[Exchange, ...]
    dialogues: tuple[tuple[str, ...], ...]  # turn by turn
    sides: Mapping[str, str]
    seen: Mapping[str, tuple[tuple[str, ...], str]]  # by topic: ways to ask of what is seen, and the answer
    done: Mapping[str, str]  # deeds, as the question after them has them
    nothing: str
    yes: Mapping[str, tuple[str, str]]  # by topic: no and yes
    edge: str  # in the place of what ends a way, if nothing does
    speakers: tuple[str, str]
