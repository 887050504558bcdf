"""LivePage: the page while a model trains, which goes on as without it; questions; bad arguments."""

import json
import pickle
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.errors import SetupError
from sb3_llm.watch import LivePage, Replay, Server
from sb3_llm.watch.questions import WAITING, Questions
from sb3_llm.watch.serving import Busy
from tests.test_policy import Follow
from tests.watching import TRAININGS, drop, follow, paths_env, scale, train

TEXT = "Do: drop. A wall. Last action: none."
SMALL: dict[str, Any] = {"episodes": 2}


class At(BaseCallback):
    """Do something at every step, or at every rollout's end; a training ends once ``stop`` is set."""

    def __init__(
        self, on_step: Callable[[], None] = lambda: None, on_rollout_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.step, self.rollout_end, self.stop = on_step, on_rollout_end, Event()

    def _on_step(self) -> bool:
        self.step()
        return not self.stop.is_set()

    def _on_rollout_end(self) -> None:
        self.rollout_end()


def get(live: LivePage, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """What the server says: the status, and what the JSON holds."""
    assert live.url
    address, _, token = live.url.partition("?token=")
    request = urllib.request.Request(address.rstrip("/") + path, body, {"X-Token": token} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        told = error.read().decode()
        return error.code, json.loads(told) if told.startswith("{") else told


def ask(live: LivePage, text: str) -> tuple[int, Any]:
    return get(live, "/ask", json.dumps({"text": text}).encode())


@contextmanager
def asking(live: LivePage, texts: Iterator[str], found: list[int]) -> Iterator[None]:
    """Another thread that asks and asks."""
    over = Event()

    def go() -> None:
        while not over.is_set():
            if live.training:
                found.append(ask(live, next(texts))[0])
            over.wait(0.01)

    thread = Thread(target=go)
    thread.start()
    yield
    over.set()
    thread.join()


# --- training goes on as without it


@pytest.mark.parametrize(("algorithm", "given"), [*TRAININGS, (PPO, {"prior_kl": True})])
def test_training_is_the_same_to_the_bit(algorithm: Any, given: dict[str, Any], gpt2_folder: Path) -> None:
    """Though it plays at every update, and somebody asks all the time."""
    change = drop if "dropout" in given else lambda policy: None
    size: dict[str, Any] = {"n_steps": 8, "steps": 32} if algorithm is TRPO else {"steps": 96}
    size |= {"ent_coef": 0.1} if "prior_kl" in given else {}
    policy_kwargs = {name: value for name, value in given.items() if name != "dropout"}
    after, found, live = [], list[int](), LivePage(follow, every=1, **SMALL)
    for callbacks in ((), (live,)):
        random.seed(0)
        texts = (f"Do: drop.{' A wall.' * (number % 9)}" for number in range(10**6))
        with asking(live, texts, found):
            model = train(
                gpt2_folder,
                *callbacks,
                algorithm=algorithm,
                env=follow,
                policy_kwargs=policy_kwargs,
                change=change,
                **size,
            )
        weights = [*model.policy.lm.state_dict().values(), *model.policy.value_net.state_dict().values()]
        drawn: Any = np.random.get_state()
        states = torch.random.get_rng_state(), torch.tensor(drawn[1].astype(np.int64))
        after.append((weights, states, random.random(), model.policy.training))
    live.close()
    assert found.count(200) > 3
    for plainly, watched in zip(after[0][:2], after[1][:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plainly, watched, strict=True))
    assert after[0][2:] == after[1][2:]


def test_only_the_thread_that_trains_asks_the_policy(gpt2_folder: Path) -> None:
    """A question that comes while an update goes on is not answered from weights half old and half new."""
    answers: list[tuple[int, Any]] = []
    live = LivePage(follow, patience=0.2, **SMALL)

    def amid() -> None:  # this thread stands here, as it does in an update
        if not answers:
            answers.append(ask(live, TEXT))

    train(gpt2_folder, live, At(on_step=amid), env=follow)
    live.close()
    assert answers[0][0] == 503
    assert "amid an update" in answers[0][1]["error"]
    assert "Ask again" in answers[0][1]["error"]
    assert not live._questions.waiting()


def test_too_many_questions() -> None:
    """One too many is told so at once; those that nobody waits for any more do not count."""
    questions, busy = Questions(patience=0.5), list[str]()

    def ask_one() -> None:
        try:
            questions.ask(TEXT)
        except Busy as error:
            busy.append(str(error))

    threads = [Thread(target=ask_one) for _ in range(WAITING)]
    for thread in threads:
        thread.start()
    while len(questions._asked) < WAITING:
        time.sleep(0.001)
    with pytest.raises(Busy, match=f"{WAITING} questions wait"):
        questions.ask(TEXT)
    for thread in threads:
        thread.join()
    assert len(busy) == WAITING
    assert all("amid an update" in each for each in busy)
    thread = Thread(target=ask_one)
    thread.start()
    while len(questions._asked) != 1:
        time.sleep(0.001)
    asked: list[str] = []
    questions.answer(lambda text: asked.append(text) or {})  # type: ignore[func-returns-value]
    thread.join()
    assert asked == [TEXT]
    assert len(busy) == WAITING


# --- what it shows


@contextmanager
def training(gpt2_folder: Path, live: LivePage, *others: BaseCallback, **options: Any) -> Iterator[At]:
    """A training in another thread, until it is left."""
    over = At()
    thread = Thread(target=train, args=(gpt2_folder, live, over, *others), kwargs={"steps": 10**6, **options})
    thread.start()
    while not live.training and thread.is_alive():
        time.sleep(0.01)
    try:
        yield over
    finally:
        over.stop.set()
        thread.join()


def test_a_text_is_scored_by_the_present_weights(gpt2_folder: Path) -> None:
    live, before = LivePage(follow, **SMALL), list[float]()
    now: list[list[float]] = []
    told: list[tuple[int, Any]] = []
    asked: list[Thread] = []

    def rollout_end() -> None:
        """The last moment before an update: the live page, which comes after this, answers."""
        likely = live.model.policy.action_log_probs([f"{TEXT}\nAction:"])[0].exp().tolist()
        now.append(likely)
        asked.append(Thread(target=lambda: told.append(ask(live, TEXT))))
        asked[-1].start()
        while not live._questions.waiting():
            time.sleep(0.001)

    first = At(on_rollout_end=rollout_end)
    model = train(gpt2_folder, first, live, env=follow, steps=128, change=scale(1.2))
    for thread in asked:
        thread.join()
    live.close()
    before = now[0]
    assert now[-1] != pytest.approx(before, abs=1e-3), "it learnt something"
    for (status, answer), likely in zip(told, now, strict=True):
        assert status == 200
        assert answer["tuned"] == pytest.approx(likely, abs=2e-4)
        assert answer["text"] == TEXT
    base = model.policy.base_log_probs([f"{TEXT}\nAction:"])[0].exp().tolist()
    assert told[0][1]["base"] == pytest.approx(base, abs=2e-4)


def test_how_far_it_is_and_what_is_new(gpt2_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live, seen = LivePage(follow, every=2, **SMALL), list[tuple[int, int, str]]()
    at = At(on_rollout_end=lambda: seen.append((live.published.number, live.updates, live.published.replay.title)))
    model = train(gpt2_folder, at, live, env=follow, steps=160)
    assert [number for number, _, _ in seen] == [1, 1, 2, 2, 3]
    titles = [f"Episodes after {when} steps" for when in ("0 updates, 0", "2 updates, 64", "4 updates, 128")]
    assert [title for _, _, title in seen][::2] == titles
    news = {"steps": 160, "total": 160, "updates": 5, "training": False, "number": 4}
    assert get(live, "/news") == (200, news)
    fresh = get(live, "/episodes")[1]
    assert fresh["data"]["title"] == "Episodes after 5 updates, 160 steps"
    assert [len(each["steps"]) for each in fresh["data"]["episodes"]] == [8, 8]
    # The last episodes are those of the trained policy.
    last = live.published.replay.episodes[0].steps[0].why
    likely = model.policy.action_log_probs([last.prompt])[0].exp().tolist()
    assert [phrase.probability for phrase in last.phrases] == pytest.approx(likely, abs=1e-5)
    # Once training has ended the page stays, and the policy is nobody else's.
    assert ask(live, TEXT)[0] == 503
    assert "training has ended" in ask(live, TEXT)[1]["error"]
    assert live.url
    with urllib.request.urlopen(live.url, timeout=60) as answer:
        assert "5 updates, 160 steps" in answer.read().decode()
    assert capsys.readouterr().out.count(live.url) == 1
    address = live.url
    model.learn(32, callback=[live])
    assert live.url == address, "the same page, of the next training"
    assert live.updates == 1
    live.close()
    assert live.url is None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=60)


def test_equal_policies_play_equally(gpt2_folder: Path) -> None:
    live, played = LivePage(follow, every=1, **SMALL), list[Replay]()
    at = At(on_rollout_end=lambda: played.append(live.published.replay))
    train(gpt2_folder, at, live, env=follow, learning_rate=0.0, steps=96)
    live.close()
    assert len({id(each) for each in played}) == 3
    actions = [[[step.action for step in each.steps] for each in replay.episodes] for replay in played]
    assert actions[0] == actions[1] == actions[2]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/news", {"X-Token": "guess"}, 403),
        ("/episodes", {"X-Token": ""}, 403),
        ("/news", {"Host": "evil.example"}, 403),
        ("/ask", {"X-Token": "guess"}, 403),
        ("/other", {}, 404),
    ],
)
def test_what_is_refused(gpt2_folder: Path, path: str, headers: dict[str, str], status: int) -> None:
    live, found = LivePage(follow, episodes=1), list[int]()
    body = b'{"text": "a"}' if path == "/ask" else None
    train(gpt2_folder, live, At(on_step=lambda: found.append(get(live, path, body, **headers)[0])), env=follow, steps=1)
    live.close()
    assert set(found) == {status}


def test_what_can_not_be_scored_does_not_end_a_training(gpt2_folder: Path) -> None:
    live, found = LivePage(follow, episodes=1), list[tuple[int, Any]]()
    with training(gpt2_folder, live, env=follow):
        found += [ask(live, "A wall. " * 400), ask(live, ""), ask(live, TEXT)]
    live.close()
    assert [status for status, _ in found] == [400, 200, 200]
    assert "the model's context" in found[0][1]["error"]


def test_phrases_that_come_with_each_observation(gpt2_folder: Path) -> None:
    live = LivePage(paths_env, every=1, episodes=1)  # type: ignore[arg-type]
    with training(gpt2_folder, live, env=paths_env):
        status, answer = ask(live, TEXT)
    live.close()
    assert status == 200
    assert answer["phrases"][0] == "turn left"
    assert sum(answer["tuned"]) == pytest.approx(1.0, abs=1e-3)


def test_weights_that_are_broken(gpt2_folder: Path) -> None:
    """There are no episodes then, and training says itself what is wrong."""

    def break_weights(policy: Any) -> None:
        with torch.no_grad():
            policy.lm.get_input_embeddings().weight.fill_(torch.nan)

    live = LivePage(follow, **SMALL)
    with pytest.warns(UserWarning, match="No episodes after 0 updates"), pytest.raises(FloatingPointError):
        train(gpt2_folder, live, env=follow, change=break_weights)
    assert get(live, "/episodes")[1]["data"]["episodes"] == []
    live.close()


def test_it_can_be_pickled(gpt2_folder: Path) -> None:
    live = LivePage(follow, **SMALL)
    train(gpt2_folder, live, env=follow)
    again = pickle.loads(pickle.dumps(live))
    assert again.url is None
    train(gpt2_folder, again, env=follow)
    assert again.url not in (None, live.url)
    for each in (live, again):
        each.close()


# --- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, "every=0.*a whole number, 1 or more"),
        ({"episodes": 0}, "episodes=0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"port": 70000}, "port=70000.*0 to 65535"),
        ({"port": -1}, "port=-1"),
        ({"patience": 0}, "patience=0.*seconds, above 0"),
        ({"make": 3}, "make=3.*an environment's id"),
    ],
)
def test_arguments_that_can_not_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        LivePage(**{"make": follow, **given})


def test_what_is_refused_before_training(gpt2_folder: Path) -> None:
    taken = Server(lambda: Replay("other"), None)
    with pytest.raises(SetupError, match=rf"port {taken.server_port} .*Expected: a port that nothing listens on"):
        train(gpt2_folder, LivePage(follow, port=taken.server_port), env=follow)
    taken.server_close()
    other = LivePage("MiniGrid-DoorKey-5x5-v0")
    with pytest.raises(SetupError, match=r"LivePage in .*turn left.* Expected: as in the training"):
        train(gpt2_folder, other, env=follow)
    assert other.url is None
    with pytest.raises(SetupError, match="an environment of type Follow"):
        train(gpt2_folder, LivePage(Follow), env=follow)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="LivePage with a ActorCriticPolicy"):
        PPO("MlpPolicy", "CartPole-v1").learn(32, callback=LivePage(follow))
