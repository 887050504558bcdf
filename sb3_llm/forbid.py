"""Phrases that are never said: rules over the phrase and the observation text, kept in the policy itself."""

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sb3_llm.errors import SetupError
from sb3_llm.scoring.lru import LruMemo

EXAMPLE = 'forbid=["drop", {"phrase": "go .*", "when": "lava"}]'
KEPT_EXAMPLES = 20


@dataclass(frozen=True)
class Rule:
    """
    One rule.

    :param phrase: what the whole phrase has to match to be forbidden
    :param when: what has to be found in the observation text; None: always
    """

    phrase: re.Pattern[str]
    when: re.Pattern[str] | None

    def forbids(self, phrase: str) -> bool:
        """:return: whether it is about a phrase, as it is or in the usual form of its characters and blanks."""
        return any(self.phrase.fullmatch(form) for form in (phrase, " ".join(_plain(phrase).split())))

    def holds(self, texts: Sequence[str]) -> bool:
        """:return: whether it applies to a text, which is given in one or more forms."""
        return self.when is None or any(self.when.search(text) for text in texts)


def read_rules(given: Any) -> tuple[Rule, ...]:
    """
    :param given: the policy's keyword: a list of phrases, or of ``{"phrase": ..., "when": ...}``; all are regular
        expressions, read without regard to capitals
    :return: the rules
    :raises SetupError: if it is something else
    """
    if isinstance(given, list | tuple):
        rules = [{"phrase": each} if isinstance(each, str) else each for each in given]
        if all(isinstance(each, dict) and {"phrase"} <= each.keys() <= {"phrase", "when"} for each in rules):
            return tuple(Rule(_pattern(each["phrase"]), _pattern(each.get("when"))) for each in rules)
    raise SetupError(
        f"forbid={given!r}", "a list of phrases, each with the text it is forbidden in", f"write {EXAMPLE}"
    )


def _pattern(given: Any) -> Any:
    try:
        return None if given is None else re.compile(given, re.IGNORECASE | re.DOTALL)
    except (re.error, TypeError) as error:
        expected = "regular expressions, in which a plain phrase stands for itself"
        raise SetupError(f"{given!r} in forbid ({error})", expected, f"write {EXAMPLE}") from None


class Rules:
    """
    What a policy may say where.

    :param given: the policy's keyword, as :func:`read_rules` takes it
    :param phrases: all it has, where they are always the same; else nothing
    :raises SetupError: if the keyword is something else, a rule forbids none of the phrases, or they forbid all of them
    """

    def __init__(self, given: Any, phrases: Sequence[str] = ()) -> None:
        self.rules = read_rules(given)
        self._known: LruMemo[tuple[str, tuple[str, ...]], list[bool]] = LruMemo(8192)
        if phrases:
            self._require_sense(phrases)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def may(self, texts: Sequence[str], phrases: Sequence[Sequence[str]]) -> list[list[bool]]:
        """
        :param texts: B observation texts
        :param phrases: that each offers
        :return: whether each may be said
        :raises SetupError: if in one text none may
        """
        asked = list(zip(texts, map(tuple, phrases), strict=True))
        return self._known.recall(asked, lambda fresh: [self._judge(*each) for each in fresh])

    def _judge(self, text: str, phrases: tuple[str, ...]) -> list[bool]:
        # Signs that can't be seen, and other forms of letters, must not hide a word from a rule.
        forms = [text] if text.isascii() else [text, _plain(text)]
        at_work = [rule for rule in self.rules if rule.holds(forms)]
        found = [not any(rule.forbids(phrase) for rule in at_work) for phrase in phrases]
        if not any(found):
            raise SetupError(
                f"the text {text!r}, in which forbid= leaves none of the phrases {list(phrases)}",
                "one that is allowed in every state",
                "forbid less, or offer a phrase that does no harm",
            )
        return found

    def _require_sense(self, phrases: Sequence[str]) -> None:
        for rule in self.rules:
            if not any(map(rule.forbids, phrases)):
                given, expected = f"forbid={rule.phrase.pattern!r}", f"a phrase, or a pattern, of {list(phrases)}"
                raise SetupError(given, expected, "mend its spelling, or take it out")
        always = [rule for rule in self.rules if rule.when is None]
        if all(any(rule.forbids(phrase) for rule in always) for phrase in phrases):
            raise SetupError(f"forbid= of all phrases, {list(phrases)}", "one that is allowed, at least", "forbid less")


def _plain(text: str) -> str:
    usual = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in usual if sign.isspace() or unicodedata.category(sign) not in ("Cf", "Cc"))


def as_table(may: Sequence[Sequence[bool]], slots: int, device: torch.device) -> Tensor:
    """:return: (B, A) bool, what :meth:`Rules.may` said; false in slots without a phrase"""
    return torch.tensor([[*row, *[False] * (slots - len(row))] for row in may], device=device)


@dataclass
class Wanting:
    """How often a policy would have said what is forbidden."""

    decisions: int = 0
    restricted: int = 0  # of them with a forbidden phrase among those offered
    wanted: int = 0  # of them with a forbidden phrase as the likeliest, had it not been forbidden
    probability: float = 0.0  # that forbidden phrases would have had, summed over decisions
    phrases: Counter[str] = field(default_factory=Counter)  # that were wanted
    examples: deque[tuple[str, str, float]] = field(default_factory=lambda: deque(maxlen=KEPT_EXAMPLES))

    def note(
        self, texts: Sequence[str], phrases: Sequence[Sequence[str]], free: Tensor, may: Sequence[Sequence[bool]]
    ) -> None:
        """
        :param texts: B observation texts
        :param phrases: that each offers
        :param free: (B, A) probabilities as if nothing were forbidden
        :param may: whether each phrase is allowed
        """
        for text, own, row, rights in zip(texts, phrases, free.tolist(), may, strict=True):
            self.decisions += 1
            if all(rights):
                continue
            self.restricted += 1
            self.probability += sum(share for share, right in zip(row, rights, strict=False) if not right)
            best = max(range(len(own)), key=row.__getitem__)
            if not rights[best]:
                self.wanted += 1
                self.phrases[own[best]] += 1
                self.examples.append((text, own[best], row[best]))
