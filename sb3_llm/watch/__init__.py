"""Watching a policy play: episodes recorded with their explanations, and a page to step through them."""

from sb3_llm.watch.page import as_page
from sb3_llm.watch.recording import Episode, Replay, Step, record

__all__ = ["Episode", "Replay", "Step", "as_page", "record"]
