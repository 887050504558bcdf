"""From what a model, or a person, wrote to an action: exact, normalised, by synonym, with an object, or nearly."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from sb3_llm.errors import SetupError
from sb3_llm.spaces import check_phrases
from sb3_llm.words.synonyms import synonyms_of

MAX_CHARACTERS = 200  # of an instruction that are looked at; what goes on after that is no instruction
INVISIBLE = ("Cc", "Cf", "Co", "Cs")  # Unicode categories: control, format, private use, surrogates
CUTOFF = 85.0  # of rapidfuzz's ratio, 0 to 100, below which nothing is understood
MARGIN = 5.0  # by which the best action must beat the second: nearer ones are a tie, and not understood
#: How sure each way to understand is; a fuzzy match is as sure as it is near.
SURE = {"exact": 1.0, "normalised": 1.0, "synonym": 0.95, "object": 0.9}
#: Where one step ends and the next begins. NFKC, which comes first, makes Chinese commas and semicolons plain ones.
STEPS = re.compile(
    r"\s*(?:[,;.]?\s+(?:and\s+)?(?:then|afterwards)\b|;|,\s*and\b|\u3002|,?\s*(?:然后|接着|再))\s*", re.IGNORECASE
)
POLITE = re.compile(r"^(?:please|now|next|first|i|i will|i'll|you should|let's|action:?|请)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """What was understood."""

    action: int | None  # index of the phrase; None: not understood
    how: str  # "exact", "normalised", "synonym", "object", "fuzzy", or "not understood"
    confidence: float  # of the parse, 0 to 1
    plan: tuple[int, ...]  # the action, and those that were to follow it


NOTHING = Parsed(None, "not understood", 0.0, ())


class Parser:
    """
    Parse instructions into the actions of some phrases.

    :param phrases: the words of each action
    :param synonyms: further words for a phrase, beside those of the language tables
    :raises SetupError: if there is no phrase, or a synonym is of none of them
    """

    def __init__(self, phrases: Sequence[str], synonyms: Mapping[str, Iterable[str]] | None = None) -> None:
        self.phrases = check_phrases(phrases)
        unknown = sorted(set(synonyms or {}) - set(self.phrases))
        if unknown:
            raise SetupError(f"synonyms of {unknown[0]!r}", f"one of {', '.join(self.phrases)}", "check the spelling")
        self._exact = {phrase: action for action, phrase in enumerate(self.phrases)}
        self._normal = _unique((normalise(phrase), action) for phrase, action in self._exact.items())
        others = ((other, action) for phrase, action in self._exact.items() for other in _others(phrase, synonyms))
        self._synonyms = _unique((normalise(other), action) for other, action in others)
        self._known = self._synonyms | self._normal

    def parse(self, text: str) -> Parsed:
        """
        :param text: an instruction of one or several steps; only its first line is read
        :return: its first step's action, with the plan of the steps that follow it as far as they are understood
        """
        line = unicodedata.normalize("NFKC", text.strip().split("\n")[0][:MAX_CHARACTERS]).strip()
        first, *rest = [part for part in STEPS.split(line) if part.strip()] or [""]
        found = self._step(first)
        if found.action is None:
            return found
        plan = [found.action]
        for part in rest:
            action = self._step(part).action
            if action is None:
                break
            plan.append(action)
        return Parsed(found.action, found.how, found.confidence, tuple(plan))

    def _step(self, text: str) -> Parsed:
        normal = normalise(text)
        ways = (("exact", self._exact.get(text)), ("normalised", self._normal.get(normal)))
        for how, action in (*ways, ("synonym", self._synonyms.get(normal)), ("object", self._with_object(normal))):
            if action is not None:
                return Parsed(action, how, SURE[how], (action,))
        return self._nearly(normal)

    def _with_object(self, normal: str) -> int | None:
        """The longest words for an action that the text begins with, whatever it is done to: "open the red door"."""
        begun = [known for known in self._known if normal.startswith(known) and _ends_word(normal, len(known))]
        return self._known[max(begun, key=len)] if begun else None

    def _nearly(self, normal: str) -> Parsed:
        if not normal:
            return NOTHING
        near = process.extract(normal, list(self._known), scorer=fuzz.ratio, score_cutoff=CUTOFF, limit=None)
        best: dict[int, float] = {}
        for words, score, _ in near:
            best[self._known[words]] = max(score, best.get(self._known[words], 0.0))
        ranked = sorted(best.items(), key=lambda each: -each[1])
        if not ranked or (len(ranked) > 1 and ranked[0][1] - ranked[1][1] < MARGIN):
            return NOTHING
        action, score = ranked[0]
        return Parsed(action, "fuzzy", score / 100, (action,))


def normalise(text: str) -> str:
    """:return: the text in one form: without case, width, control characters, punctuation and politeness."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(each for each in plain if each == "\t" or unicodedata.category(each) not in INVISIBLE)
    plain = " ".join(re.sub(r"[^\w\s:']|_", " ", plain).split())
    return POLITE.sub("", plain).strip(" :'")


def _others(phrase: str, synonyms: Mapping[str, Iterable[str]] | None) -> Iterable[str]:
    return {*synonyms_of(phrase), *(synonyms or {}).get(phrase, ())}


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Words that mean one action; what could mean two means neither."""
    found: dict[str, int] = {}
    doubtful: set[str] = set()
    for words, action in pairs:
        if found.setdefault(words, action) != action:
            doubtful.add(words)
    return {words: action for words, action in found.items() if words and words not in doubtful}


def _ends_word(text: str, end: int) -> bool:
    """Whether a word ends there; Chinese has no blanks between words."""
    return end < len(text) and (text[end] == " " or not text[end - 1].isascii())
