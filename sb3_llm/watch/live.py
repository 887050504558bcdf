"""The page of sampled episodes while a model trains, with a box whose text the present weights score."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.diary.checks import checked_world, maker
from sb3_llm.errors import SetupError
from sb3_llm.looking_on import apart, require_language_model, whole
from sb3_llm.watch.page import as_page
from sb3_llm.watch.questions import Questions
from sb3_llm.watch.recording import Replay, maker_of, record
from sb3_llm.watch.serving import Busy, Server, scored
from sb3_llm.wrappers import TextObservation

SEED = 25_000  # of the first episode: far from those of training, evaluation, sb3-llm watch and diaries
MAX_STEPS = 200  # an untrained policy can be lost for long, and every decision is explained
PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Published:
    """Some episodes, as other threads may read them; newer ones take their place as a whole."""

    number: int
    updates: int  # that the policy had seen
    replay: Replay
    phrases: tuple[str, ...] | None  # of a text that is asked about, where phrases come with each observation


class TrainingServer(Server):
    """
    Serves what a :class:`LivePage` has recorded last. Its threads never touch the policy.

    :param live: that trains
    :param port: 0 takes any that is free
    :raises SetupError: if the port is in use
    """

    def __init__(self, live: "LivePage", port: int) -> None:
        super().__init__(lambda: live.published.replay, None, port=port)
        self.live = live

    def page(self) -> str:
        """:return: the page as it is now."""
        asks = {"url": "/ask", "news": "/news", "episodes": "/episodes", "token": self.token}
        published = self.live.published
        return as_page(published.replay, asks | {"number": published.number})

    def news(self) -> dict[str, Any]:
        """:return: how far the training is, and the number of its newest episodes."""
        return self.live.news()

    def answer(self, text: str) -> dict[str, Any]:
        """:return: what the policy says of a text, once it stands still."""
        return self.live.ask(text)


class LivePage(BaseCallback):
    """
    Serve the replay page while a model trains: ``PPO(...).learn(50_000, callback=LivePage(env_id))``.

    For PPO, A2C and TRPO with :class:`~sb3_llm.LLMPolicy`, and MaskablePPO with :class:`~sb3_llm.MaskableLLMPolicy`.
    The address is printed when training begins. The page shows some episodes, which are played anew after each
    ``every``-th update and when training ends, and how far training is; its box scores any text by the present weights,
    between two steps of the environments. Only this machine can open it, with the token in the address.

    Training goes on as it would without it, to the bit: it plays in worlds of its own, and leaves no random number
    drawn and no score remembered. It takes time, though: an episode is explained decision by decision.

    After training the page stays until :meth:`close` or the program's end, and no longer scores texts: the policy is
    the program's again. ``sb3-llm watch MODEL.zip ENV --live`` does.

    :param make: an environment's id, or a callable that makes a :class:`~sb3_llm.TextObservation` with the text and the
        phrases of the training's environment, and with ``render_mode="rgb_array"`` if frames are wanted
    :param every: updates from one recording to the next
    :param episodes: how many are played
    :param port: 0 takes any that is free
    :param seed: of the first episode; the others have seed + 1, seed + 2, ...
    :param max_steps: where an episode that does not end is broken off
    :param patience: how long a text waits to be scored, in seconds; longer updates answer that they are going on
    :param verbose: as in SB3
    :raises SetupError: for arguments that can't be; when training starts, for a port in use, a policy that is no
        language model, or an environment with other text or phrases than the training's
    """

    def __init__(
        self,
        make: str | Callable[[], TextObservation],
        every: int = 10,
        episodes: int = 3,
        port: int = 0,
        seed: int = SEED,
        max_steps: int = MAX_STEPS,
        patience: float = PATIENCE,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        maker(make)  # its checks
        if not isinstance(patience, int | float) or isinstance(patience, bool) or not 0 < patience < float("inf"):
            raise SetupError(f"patience={patience!r}", "seconds, above 0", "leave patience out")
        self.make, self.patience = make, float(patience)
        self.every, self.episodes = whole("every", every), whole("episodes", episodes)
        self.port, self.seed = whole("port", port, least=0), whole("seed", seed, least=0)
        self.max_steps = whole("max_steps", max_steps)
        if self.port > 65535:
            raise SetupError(f"port={port}", "0 to 65535", "leave port out for any that is free")
        self.updates, self.training = 0, False
        self._total = 0  # steps of the whole training
        self._recorded_after = -1  # so many updates
        #: What the page shows, once training has begun.
        self.published: Published = Published(0, 0, Replay("nothing yet"), None)
        self._server: TrainingServer | None = None
        self._questions = Questions(self.patience)

    def __getstate__(self) -> dict[str, Any]:
        """Plain values only: ``learn`` hands over the model and SB3's variables again, and serves the page anew."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("model", "_questions", "_make")}
        return state | {"locals": {}, "globals": {}, "parent": None, "_server": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._questions = Questions(self.patience)

    @property
    def url(self) -> str | None:
        """:return: where the page is; None before training has begun, and once it is closed."""
        return None if self._server is None else self._server.url

    def close(self) -> None:
        """Serve the page no longer."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # -- asked by the server's threads ---------------------------------------------------------------------------------

    def news(self) -> dict[str, Any]:
        """:return: how far the training is, and the number of the newest episodes."""
        told = {"steps": self.num_timesteps, "total": self._total, "updates": self.updates, "training": self.training}
        return told | {"number": self.published.number}

    def ask(self, text: str) -> dict[str, Any]:
        """
        :param text: observation text
        :return: what the policy says of it, as soon as it stands still
        :raises Busy: if it does not, or training has ended
        :raises ValueError: if the text can't be scored
        """
        if not self.training:
            raise Busy("The training has ended. To score texts: sb3-llm watch MODEL.zip ENV --live.")
        return self._questions.ask(text)

    # -- SB3's callback points, all in the thread that trains ----------------------------------------------------------

    def _init_callback(self) -> None:
        require_language_model("LivePage", self.model.policy)

    def _on_training_start(self) -> None:
        self._total, self._recorded_after = int(self.locals["total_timesteps"]), -1
        if not self.num_timesteps:
            self.updates = 0
        began = self._server is None
        if self._server is None:
            self._server = TrainingServer(self, self.port)
            Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            self._require_same_world()
            self._record()
        except BaseException:
            self.close()
            raise
        self.training = True
        if began:
            print(f"The training's page is {self.url}", flush=True)

    def _on_rollout_start(self) -> None:
        if self.updates % self.every == 0 and self._recorded_after != self.updates:
            self._record()
        self._answer()

    def _on_step(self) -> bool:
        self._answer()
        return True

    def _on_rollout_end(self) -> None:
        self._answer()
        self.updates += 1  # it comes next

    def _on_training_end(self) -> None:
        if self._recorded_after != self.updates:
            self._record()
        self._answer()
        self.training = False

    # -- the policy, undisturbed ---------------------------------------------------------------------------------------

    def _require_same_world(self) -> None:
        with apart(self.model.policy, False):
            self._make = maker_of(self.make) if isinstance(self.make, str) else self.make
            checked_world("LivePage", self._make, self.model).close()

    def _record(self) -> None:
        policy: Any = self.model.policy
        self._recorded_after = self.updates
        when = f"after {self.updates} updates, {self.num_timesteps:,} steps"
        with apart(policy, True):
            torch.manual_seed(self.seed)
            try:
                seeds = range(self.seed, self.seed + self.episodes)
                replay = record(policy, self._make, seeds, f"Episodes {when}", max_steps=self.max_steps)
            except FloatingPointError as error:  # the policy's own, for scores that are not finite
                warnings.warn(f"No episodes {when}: {error}", stacklevel=2)
                return
        first = replay.episodes[0].steps[0].why
        phrases = None if policy.phrases else tuple(phrase.text for phrase in first.phrases)
        self.published = Published(self.published.number + 1, self.updates, replay, phrases)

    def _answer(self) -> None:
        if self._questions.waiting():
            with apart(self.model.policy, True):
                self._questions.answer(lambda text: scored(self.model.policy, text, self.published.phrases))
