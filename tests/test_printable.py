"""What a person looks at carries out nothing and stands in the order it is in."""

import io

import pytest
from rich.console import Console

from sb3_llm.explain import Explanation, Phrase
from sb3_llm.printable import visible
from sb3_llm.watch import Episode, Step
from sb3_llm.watch.page import step_data
from sb3_llm.watch.terminal import as_panel


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Facing east, 向前走! 🚪 e\u0301\n\tok", "Facing east, 向前走! 🚪 e\u0301\n\tok"),
        ("\x1b[2Jgone", "\u241b[2Jgone"),
        ("a\x00b\x07c\x7fd\r", "a\u2400b\u2407c\u2421d\u240d"),
        ("\u202eback\u2066wards\u200f", "\ufffdback\ufffdwards\ufffd"),
        ("no\u200bwidth\ufeff", "no\ufffdwidth\ufffd"),
        ("\u2028line\x85", "\ufffdline\ufffd"),
        ("\xa0blank\u3000", "\xa0blank\u3000"),
        ("\ud800", "\ufffd"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert len(visible(text)) == len(text)


def test_terminal_and_page_show_no_control_character() -> None:
    why = Explanation("\x1b[2J Lava.", "\x1b[2J Lava.\nAction:", 0, 0, (Phrase("go\x07", 1.0, 1.0, ()),), 0.0, (), ())
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    console.print(as_panel(Episode(0, [Step(why, 0, 0.0, None)]), 0))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in shown
    assert "\u241b[2J Lava." in shown
    assert "\x07" not in shown
    told = step_data(why)
    assert (told["text"], told["phrases"]) == ("\u241b[2J Lava.", ["go\u2407"])
