"""Watching a policy play: episodes recorded with their explanations, and a page to step through them."""

from sb3_llm.watch.live import LivePage
from sb3_llm.watch.page import as_page
from sb3_llm.watch.recording import Episode, Replay, Step, record
from sb3_llm.watch.serving import Server

__all__ = ["Episode", "LivePage", "Replay", "Server", "Step", "as_page", "record"]
