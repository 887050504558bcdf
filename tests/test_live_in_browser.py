"""LivePage in a real browser, while a model trains in another thread."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, make_env, make_vec_env
from sb3_llm.watch import LivePage
from tests.browsing import launched, opened
from tests.test_live_page import SMALL, At, follow
from tests.watching import train


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def test_in_a_browser_while_it_trains(browser: Any, tmp_path: Path) -> None:
    """The embedded model learns DoorKey in another thread, while the page loads, steps, asks, and gets new episodes."""
    env_id, over = "MiniGrid-DoorKey-5x5-v0", At()
    live = LivePage(lambda: make_env(env_id, render_mode="rgb_array", tile_size=16), every=1, episodes=2, patience=60)
    sizes: dict[str, Any] = {"n_steps": 16, "batch_size": 32, "n_epochs": 1}
    model = PPO(LLMPolicy, make_vec_env(env_id, 2, seed=0), learning_rate=3e-4, seed=0, **sizes)
    thread = Thread(target=model.learn, args=(10**6,), kwargs={"callback": [live, over]})
    thread.start()
    try:
        while not live.training and thread.is_alive():
            time.sleep(0.05)
        _look_at(browser, live, tmp_path)
    finally:
        over.stop.set()
        thread.join()
        live.close()


def _look_at(browser: Any, live: LivePage, tmp_path: Path) -> None:
    page, said = opened(browser, str(live.url), viewport={"width": 1000, "height": 900})
    page.set_default_timeout(120_000)
    assert "updates" in page.title()
    assert page.locator("#episodes article").count() == 2
    page.keyboard.press("ArrowRight")
    assert page.locator("#where").inner_text().startswith("2 /")
    page.get_by_text("of 1,000,000 steps").wait_for()
    page.get_by_label("Observation text").fill(
        "Facing east, carrying a red key. Seen: locked red door in reach at 1 ahead."
    )
    page.get_by_role("button", name="Score it").click()
    page.get_by_text("is likeliest").wait_for()
    assert "open" in page.locator("#answer").inner_text()
    title = page.title()
    page.get_by_role("button", name="Show the newer episodes").click()
    page.locator(f"#title:not(:text-is({json.dumps(title)}))").wait_for()
    assert page.locator("#where").inner_text().startswith("2 /"), "it stays where it was"
    box = page.get_by_label("Observation text")
    assert box.input_value().startswith("Facing east, carrying a red key"), "nobody's text is written over"
    page.get_by_role("button", name="Change this text").nth(1).click()
    assert box.input_value() in page.locator("#episodes article").nth(1).inner_text()
    assert page.evaluate("document.activeElement.id") == "what"
    title = page.title()
    page.get_by_label("Show newer episodes as they come").check()
    page.locator(f"#title:not(:text-is({json.dumps(title)}))").wait_for()
    page.screenshot(path=tmp_path / "live.png", full_page=True)
    assert said == []


def test_when_the_program_is_gone(browser: Any, gpt2_folder: Path) -> None:
    live = LivePage(follow, **SMALL)
    train(gpt2_folder, live, env=follow)
    page, said = opened(browser, str(live.url))
    page.get_by_text("Training has ended: 32 of 32 steps").wait_for()
    assert said == []
    live.close()
    page.get_by_text("does not answer").wait_for()
    page.keyboard.press("ArrowRight")
    assert page.locator("#where").inner_text().startswith("2 /")
