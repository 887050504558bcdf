"""A text taken apart: clauses, which can be left out, and words, which can be shaded."""

import re

Span = tuple[int, int]  # characters from, up to

#: Where a clause ends: after a mark that a blank follows, after a Chinese mark, at the end of a line.
_END = re.compile(r"(?<=[.,;!?])\s+|(?<=[\u3002\uff0c\uff1b\uff01\uff1f])\s*|\n+")


def clauses(text: str) -> list[Span]:
    """
    :param text: any
    :return: where its clauses stand, each with what follows it up to the next, so that together they are the text
    """
    starts = [0, *(match.end() for match in _END.finditer(text))]
    ends = [*starts[1:], len(text)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if text[start:end].strip()]


def words(text: str) -> list[Span]:
    """:return: where the words of a text stand; a Chinese character is a word of its own."""
    return [match.span() for match in re.finditer(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+", text)]


def without(text: str, span: Span) -> str:
    """:return: the text with a part left out."""
    return text[: span[0]] + text[span[1] :]
