"""What each part of a reward paid, and how often."""

from collections import Counter

from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback


class RewardReport(BaseCallback):
    """
    Logs, after each rollout, what each part of a :class:`~sb3_llm.rewards.RewardSum` paid: ``reward/<part>``, its mean
    over all steps, and ``reward/<part>_paid``, the share of steps that it paid or took something for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0  # of the whole training so far
        self.totals: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()

    def _on_rollout_start(self) -> None:
        self._before = self.steps, self.totals.copy(), self.paid.copy()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            parts: dict[str, float] = info.get("reward_parts", {})
            self.steps += bool(parts)
            self.totals.update(parts)
            self.paid.update(name for name, amount in parts.items() if amount)
        return True

    def _on_rollout_end(self) -> None:
        steps, totals, paid = self._before
        count = self.steps - steps
        for name in self.totals if count else ():
            self.logger.record(f"reward/{name}", (self.totals[name] - totals[name]) / count)
            self.logger.record(f"reward/{name}_paid", (self.paid[name] - paid[name]) / count)

    def table(self) -> Table:
        """:return: over the whole training, for the terminal."""
        shown = Table("part", "mean of a step", "share of steps", "in all", title=f"{self.steps:,} steps")
        for name, total in self.totals.items():
            count = max(1, self.steps)
            shown.add_row(name, f"{total / count:.4f}", f"{self.paid[name] / count:.3f}", f"{total:.2f}")
        return shown
