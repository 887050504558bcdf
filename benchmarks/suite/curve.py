"""How success grows while a model learns: looks at test episodes that training pauses for."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.evaluation import Evaluation

FIRST = 512  # steps before the first look after the one before training
GROWTH = 2**0.5  # of the steps from one look to the next


@dataclass(frozen=True)
class Look:
    """Where a run stood; seconds count the making of the model, and leave the looks out."""

    steps: int
    seconds: float  # on the clock
    processor_seconds: float
    success: float | None
    mean_return: float
    mean_length: float
    episodes: int


class Stopwatch:
    """
    Clock and processor time, which can be paused.

    It runs from when it is made.
    """

    def __init__(self) -> None:
        self._since, self._total = self._now(), (0.0, 0.0)
        self._running = True

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """:return: seconds on the clock and of the processor, without the pauses."""
        if not self._running:
            return self._total
        clock, processor = (now - then for now, then in zip(self._now(), self._since, strict=True))
        return self._total[0] + clock, self._total[1] + processor

    def pause(self) -> None:
        """Stop counting."""
        self._total, self._running = self.read(), False

    def go_on(self) -> None:
        """Count again."""
        self._since, self._running = self._now(), True


class Curve(BaseCallback):
    """
    Looks before training, and then between rollouts: first after 512 steps, later at steps that grow by the square root
    of two.

    :param look: plays the test episodes
    :param watch: paused meanwhile
    :param stop_at: training ends when two looks in a row reach this success
    """

    def __init__(self, look: Callable[[], Evaluation], watch: Stopwatch, stop_at: float) -> None:
        super().__init__()
        self._look, self._watch, self._stop_at = look, watch, stop_at
        self.looks: list[Look] = []
        self._next, self.stopped = 0.0, False

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self._next:
            return
        self._next = max(FIRST, self._next * GROWTH) if self.looks else FIRST
        while self._next <= self.num_timesteps:
            self._next *= GROWTH
        self.look_now()
        last = [look.success or 0.0 for look in self.looks[-2:]]
        self.stopped = len(last) == 2 and min(last) >= self._stop_at

    def _on_step(self) -> bool:
        return not self.stopped

    def look_now(self) -> None:
        """Play the test episodes with the policy as it stands."""
        self._watch.pause()
        found = self._look()
        seconds, processor = self._watch.read()
        figures = found.success, found.mean_return, found.mean_length, found.episodes
        self.looks.append(Look(self.num_timesteps, seconds, processor, *figures))
        self._watch.go_on()
