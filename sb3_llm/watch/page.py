"""A replay as one page that needs nothing else: no network, no server."""

import base64
import json
from pathlib import Path
from typing import Any

from sb3_llm.printable import visible
from sb3_llm.watch.recording import Episode, Replay, Step

TEMPLATE = Path(__file__).parent / "page.html"
DATA, LIVE = "/*DATA*/null", "/*LIVE*/null"


def as_page(replay: Replay, live: dict[str, Any] | None = None) -> str:
    """
    :param replay: what is shown
    :param live: where a page that is served asks again, and with which token
    :return: HTML
    """
    page = TEMPLATE.read_text(encoding="utf-8")
    # What is in the data comes last: a text that holds one of the marks must stay a text.
    return page.replace(LIVE, in_script(live)).replace(DATA, in_script(as_data(replay)))


def in_script(value: Any) -> str:
    """:return: JSON that can stand in a script: no text in it can end the script or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def as_data(replay: Replay) -> dict[str, Any]:
    """:return: the replay as the page's script reads it."""
    return {
        "title": replay.title,
        "frames": [f"data:image/png;base64,{base64.b64encode(frame).decode()}" for frame in replay.frames],
        "episodes": [_episode(episode) for episode in replay.episodes],
    }


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "seed": episode.seed,
        "success": episode.success,
        "total": round(episode.total, 4),
        "lastFrame": episode.last_frame,
        "brokenOff": episode.broken_off,
        "steps": [_step(step) for step in episode.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return step_data(step.why) | {"action": step.action, "reward": round(step.reward, 4), "frame": step.frame}


def step_data(why: Any) -> dict[str, Any]:
    """:return: an explanation as the page's script reads it."""
    return {
        "before": why.prompt[: why.start],
        "after": why.prompt[why.start + len(why.text) :],
        "text": visible(why.text),
        "phrases": [visible(phrase.text) for phrase in why.phrases],
        "tuned": [round(phrase.probability, 4) for phrase in why.phrases],
        "base": [round(phrase.base_probability, 4) for phrase in why.phrases],
        "value": round(why.value, 4),
        "clauses": [[*part.span, round(part.score, 3)] for part in why.clauses],
    }
