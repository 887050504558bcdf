"""The replay page: in a real browser it loads, steps and says nothing to the console; and what it is made of."""

import io
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from sb3_contrib import MaskablePPO

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation, make_env
from sb3_llm.errors import SetupError
from sb3_llm.watch import Replay, as_page, record
from sb3_llm.watch.film import save_film
from sb3_llm.watch.page import as_data, in_script
from sb3_llm.watch.recording import maker_of
from sb3_llm.watch.serving import Server
from sb3_llm.watch.terminal import show
from tests.browsing import launched, opened
from tests.test_policy import Follow, follow_env, say

ENV = "MiniGrid-DoorKey-5x5-v0"


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


def test_masks_are_kept(gpt2_folder: Path) -> None:
    """A masked action is never taken, though it may be the likeliest."""
    world = follow_env()
    kwargs: dict[str, Any] = {"model": str(gpt2_folder)}
    model = MaskablePPO(MaskableLLMPolicy, world, n_steps=8, batch_size=8, policy_kwargs=kwargs)
    found = record(model.policy, lambda: TextObservation(Follow(), describe=say, history=1), range(8), "masked")
    taken = [(step.why.text.count("A wall") // 6, step.action) for each in found.episodes for step in each.steps]
    assert all(action != masked for masked, action in taken)
    assert len(taken) == 64
    for step in (step for each in found.episodes for step in each.steps):
        likely = [phrase.probability for phrase in step.why.phrases]
        assert likely[step.why.text.count("A wall") // 6] == 0.0, "the page tells the policy that acted"
        assert sum(likely) == pytest.approx(1.0, abs=1e-5)
        assert step.why.action == int(np.argmax(likely))


def test_an_episode_can_be_broken_off(policy: LLMPolicy) -> None:
    found = record(policy, _world, [0, 1], "short", max_steps=2)
    assert [(len(each.steps), each.broken_off, each.success) for each in found.episodes] == [(2, True, None)] * 2
    assert all(each.last_frame is not None for each in found.episodes)


def test_frames_where_a_world_has_them() -> None:
    assert maker_of(ENV)().render_mode == "rgb_array"
    assert maker_of("sb3_llm/Dialogue-v0")().render_mode is None
    assert maker_of(ENV, render_mode="human").keywords == {"render_mode": "human"}  # type: ignore[attr-defined]


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
    with launched() as found:
        yield found


def test_it_steps_in_a_browser(replay: Replay, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, said = opened(browser, path.as_uri())
    assert page.title() == replay.title
    assert page.locator("#episodes article").count() == 5
    first = replay.episodes[0].steps
    assert first[0].why.text in page.locator("article").first.inner_text()
    page.keyboard.press("ArrowRight")
    assert first[1].why.text in page.locator("article").first.inner_text()
    assert page.locator("#said").inner_text() == f"Step 2: {first[1].why.phrases[first[1].action].text}"
    page.keyboard.press("End")
    assert "Ended after" in page.locator("article").first.inner_text()
    assert page.locator("#where").inner_text().startswith("end /")
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


def test_what_a_screen_reader_says(replay: Replay, browser: Any, tmp_path: Path) -> None:
    """The shading, the bars and the curve in words, and a name for all that can be pressed."""
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, _ = opened(browser, path.as_uri())
    why = replay.episodes[0].steps[0].why
    best = max(why.clauses, key=lambda part: part.score)
    card = page.locator("article").first
    assert (
        f"Likeliest: {why.phrases[why.action].text}; for it most \u201c{best.text.strip()}\u201d" in card.inner_text()
    )
    first = why.phrases[0]
    told = f"policy {round(first.probability, 4):g}, base model {round(first.base_probability, 4):g}"
    assert card.get_by_role("img", name=told).count() >= 1
    assert page.get_by_role("slider", name="Step").get_attribute("aria-valuetext").startswith("step 1 of ")
    names = [button.get_attribute("aria-label") or button.inner_text() for button in page.get_by_role("button").all()]
    assert names == ["First", "Back", "Next", "Play", "Where it differs most from the base model"]


def test_keys_work_wherever_the_focus_is(replay: Replay, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, _ = opened(browser, path.as_uri())
    for _ in range(6):  # through all controls and out again: at the slider, the browser's own way
        page.keyboard.press("Tab")
        before = int(page.get_by_role("slider").input_value())
        page.keyboard.press("ArrowRight")
        assert int(page.get_by_role("slider").input_value()) == before + 1


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 700}}])
def test_dark_and_on_a_phone(replay: Replay, browser: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(replay), encoding="utf-8")
    page, said = opened(browser, path.as_uri(), **options)
    page.screenshot(path=tmp_path / "shot.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(".bar").first.bounding_box()["height"] < 100, "what stays on the screen leaves room"
    assert said == []


def test_nothing_to_show(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "replay.html"
    path.write_text(as_page(Replay("empty")), encoding="utf-8")
    page, said = opened(browser, path.as_uri())
    page.keyboard.press("ArrowRight")
    assert page.title() == "empty"
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
    for path in ("/", "/?token=x", "/other", f"/news?token={server.token}"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=60)


def test_a_port_in_use(server: Server, policy: LLMPolicy, replay: Replay) -> None:
    with pytest.raises(SetupError, match=rf"port {server.server_port} .*Expected: a port that nothing listens on"):
        Server(lambda: replay, policy, port=server.server_port)


def test_live_in_a_browser(server: Server, browser: Any) -> None:
    page, said = opened(browser, server.url)
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
