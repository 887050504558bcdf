"""The replay page: in a real browser it loads, steps and says nothing to the console; and what it is made of."""

import io
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from sb3_llm import LLMPolicy, make_env
from sb3_llm.errors import SetupError
from sb3_llm.watch import Replay, as_page, record
from sb3_llm.watch.film import save_film
from sb3_llm.watch.page import as_data, in_script
from sb3_llm.watch.serving import Server
from sb3_llm.watch.terminal import show

ENV = "MiniGrid-DoorKey-5x5-v0"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [f"--disable-{what}" for what in ("gpu", "background-networking", "component-update", "sync")]


def _world() -> Any:
    return make_env(ENV, render_mode="rgb_array", tile_size=16)


@pytest.fixture(scope="module")
def policy() -> LLMPolicy:
    world = _world()
    made = LLMPolicy(world.observation_space, world.action_space, lambda _: 0.0)
    with torch.no_grad():  # a little tuned, so that base and policy differ
        for parameter in made.lm.parameters():
            parameter.mul_(1.03)
    return made


@pytest.fixture(scope="module")
def replay(policy: LLMPolicy) -> Replay:
    torch.manual_seed(0)
    return record(policy, _world, range(5), f"Embedded model on {ENV}")


# --- recording


def test_the_recording_is_the_episode(policy: LLMPolicy, replay: Replay) -> None:
    """Played again with the same actions, the world gives the same texts and rewards."""
    for episode in replay.episodes:
        world = _world()
        obs, _ = world.reset(seed=episode.seed)
        for step in episode.steps:
            assert world.observation_space.decode(obs) == step.why.text
            obs, reward, ended, cut, info = world.step(step.action)
            assert reward == step.reward
        assert ended or cut
        assert episode.success == info["is_success"]


def test_greedy_takes_the_likeliest(policy: LLMPolicy) -> None:
    found = record(policy, _world, [3], "greedy", greedy=True)
    assert all(step.action == step.why.action for step in found.episodes[0].steps)


def test_frames_are_kept_once(replay: Replay) -> None:
    assert len(set(replay.frames)) == len(replay.frames) < sum(len(episode.steps) + 1 for episode in replay.episodes)
    assert Image.open(io.BytesIO(replay.frames[0])).size == (80, 80)


def test_a_world_without_frames(policy: LLMPolicy) -> None:
    found = record(policy, lambda: make_env(ENV), [0], "blind")
    assert found.frames == []
    assert {step.frame for step in found.episodes[0].steps} == {None}
    with pytest.raises(SetupError, match="a film of a world that shows nothing"):
        save_film(found, Path("x.gif"))
    with pytest.raises(SetupError, match="no episodes to watch"):
        record(policy, _world, [], "nothing")


# --- the page


def test_the_page_is_small_and_needs_nothing(replay: Replay) -> None:
    page = as_page(replay)
    assert len(page.encode()) <= 3_000_000
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert json.loads(in_script(as_data(replay)))["episodes"][0]["seed"] == 0


NASTY = ["</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>", "\u2028'\"\\"]


@pytest.mark.parametrize("text", NASTY)
def test_text_can_not_leave_the_script(text: str) -> None:
    inside = in_script({"text": text})
    assert "<" not in inside
    assert ">" not in inside
    assert "\u2028" not in inside
    assert json.loads(inside)["text"] == text


def test_a_text_that_holds_the_pages_own_marks() -> None:
    marked = Replay("/*LIVE*/null /*DATA*/null", [])
    page = as_page(marked, {"url": "/ask", "token": "secret"})
    assert page.count("secret") == 1
    assert json.loads(re.findall(r"const data = (.*), live = ", page)[0])["title"] == marked.title


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *QUIET])
        yield launched
        launched.close()


def _opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    page = browser.new_context(**options).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    return page, said


def test_it_steps_in_a_browser(replay: Replay, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, said = _opened(browser, path.as_uri())
    assert page.title() == replay.title
    assert page.locator("#episodes article").count() == 5
    first = replay.episodes[0].steps
    assert first[0].why.text in page.locator("article").first.inner_text()
    page.keyboard.press("ArrowRight")
    assert first[1].why.text in page.locator("article").first.inner_text()
    assert page.locator("#said").inner_text() == f"Step 2: {first[1].why.phrases[first[1].action].text}"
    page.keyboard.press("End")
    assert "Ended after" in page.locator("article").first.inner_text()
    page.get_by_role("button", name="First").click()
    page.get_by_role("slider").fill("2")
    assert page.locator("#where").inner_text().startswith("3 /")
    page.keyboard.press("Home")
    page.get_by_role("button", name="Where it differs most").click()
    steps = [(index, _distance(step)) for episode in replay.episodes for index, step in enumerate(episode.steps)]
    assert page.locator("#where").inner_text().startswith(f"{max(steps, key=lambda each: each[1])[0] + 1} /")
    page.get_by_role("button", name="Play").click()
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    assert said == []


def _distance(step: Any) -> float:
    return sum(abs(round(each.probability, 4) - round(each.base_probability, 4)) for each in step.why.phrases)


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 700}}])
def test_dark_and_on_a_phone(replay: Replay, browser: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, said = _opened(browser, path.as_uri(), **options)
    page.screenshot(path=tmp_path / "shot.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert said == []


# --- served


@pytest.fixture
def server(policy: LLMPolicy, replay: Replay) -> Iterator[Server]:
    served = Server(lambda: replay, policy)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def _ask(server: Server, body: bytes, **headers: str) -> tuple[int, Any]:
    address = f"http://127.0.0.1:{server.server_port}/ask"
    request = urllib.request.Request(address, body, {"X-Token": server.token} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_other_texts_are_scored(server: Server, policy: LLMPolicy, replay: Replay) -> None:
    text = replay.episodes[0].steps[0].why.text.replace("key", "box")
    status, told = _ask(server, json.dumps({"text": text}).encode())
    assert status == 200
    likely = policy.action_log_probs([f"{text}\nAction:"])[0].exp().tolist()
    assert told["tuned"] == pytest.approx(likely, abs=1e-3)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"text": "a"}', {"X-Token": "guess"}, 403),
        (b'{"text": "a"}', {"Host": "evil.example"}, 403),
        (b"{", {}, 400),
        (b'{"text": 3}', {}, 400),
        (b"{}", {}, 400),
        (json.dumps({"text": "A wall. " * 1000}).encode(), {}, 400),
    ],
)
def test_what_is_refused(server: Server, body: bytes, headers: dict[str, str], status: int) -> None:
    assert _ask(server, body, **headers)[0] == status


def test_the_page_needs_its_token(server: Server) -> None:
    with urllib.request.urlopen(server.url, timeout=60) as answer:
        assert b"<title>" in answer.read()
    for path in ("/", "/?token=x", "/other"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=60)


def test_a_port_in_use(server: Server, policy: LLMPolicy, replay: Replay) -> None:
    with pytest.raises(SetupError, match=rf"port {server.server_port} .*Expected: a port that nothing listens on"):
        Server(lambda: replay, policy, port=server.server_port)


def test_live_in_a_browser(server: Server, browser: Any) -> None:
    page, said = _opened(browser, server.url)
    text = "Facing east, carrying nothing. Seen: red door in reach at 1 ahead. Goal: open the red door."
    page.get_by_label("Observation text").fill(text)
    page.get_by_role("button", name="Score it").click()
    page.locator("#answer").wait_for()
    assert "open" in page.locator("#answer").inner_text()
    page.get_by_label("Observation text").fill("A wall. " * 1000)
    page.get_by_role("button", name="Score it").click()
    page.get_by_text("the model's context").wait_for()
    assert [text for text in said if "400" not in text] == []


# --- terminal and film


def test_in_the_terminal(replay: Replay) -> None:
    console = Console(record=True, width=110, force_terminal=False, file=io.StringIO())
    show(replay, console)
    text = console.export_text()
    assert text.count("╭") == sum(len(episode.steps) for episode in replay.episodes)
    assert "seed 0, step 1 of" in text


def test_films(replay: Replay, tmp_path: Path) -> None:
    save_film(replay, tmp_path / "replay.gif")
    with Image.open(tmp_path / "replay.gif") as film:
        assert film.n_frames > 20  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match=r"a name that ends in \.gif or \.mp4"):
        save_film(replay, tmp_path / "replay.avi")
