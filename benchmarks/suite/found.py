"""What a folder of results holds, by task and method."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_llm.benchmarks.suite.config import Suite
from sb3_llm.benchmarks.suite.statistics import Estimate, Reached, Scores, cost_ratio, first_reaching, mean_over_runs
from sb3_llm.benchmarks.suite.store import Store

Figures = dict[str, Any]  # of a cell, as its JSON file holds them
NETWORKS = ("mlp", "mlp-view", "cnn", "cnn-view")  # that start from nothing
CLONED = ("mlp-cloned", "cnn-cloned")  # that start from the language model's own stories
OURS = "llm"
HOW = ("sampled", "greedy")
WORDS = ("phrases", "nouns", "colors", "missions", "templates", "zh")  # axes of generalisation


class Found:
    """
    All whole cells of a suite.

    :param suite: what was to be run
    :param store: where it is
    """

    def __init__(self, suite: Suite, store: Store) -> None:
        self.suite = suite
        self.cells: dict[tuple[str, str], list[Figures]] = {}
        for cell in suite.cells:
            figures = store.load(cell)
            if figures is not None:
                self.cells.setdefault((cell.task.name, cell.method.name), []).append(figures)
        self.problems = store.problems(suite.cells)

    def of(self, task: str, method: str) -> list[Figures]:
        """:return: the seeds of one method on one task."""
        return self.cells.get((task, method), [])

    @property
    def tasks(self) -> list[str]:
        """:return: those with results, in the suite's order."""
        return [task.name for task in self.suite.tasks if any(name == task.name for name, _ in self.cells)]

    @property
    def methods(self) -> list[str]:
        """:return: those with results, in the suite's order."""
        return [method.name for method in self.suite.methods if any(name == method.name for _, name in self.cells)]

    def shared(self, method: str) -> list[str]:
        """:return: the tasks with success of a method and of ours."""
        return [task for task in self.tasks if all(self.scores(name, [task]) is not None for name in (method, OURS))]

    @property
    def commits(self) -> list[str]:
        """:return: that results are from."""
        return sorted({one["provenance"]["commit"] for seeds in self.cells.values() for one in seeds})

    @property
    def machines(self) -> list[str]:
        """:return: what they were run on."""
        every = (one["provenance"]["machine"] for seeds in self.cells.values() for one in seeds)
        return sorted({f"{each['processor']}, {each['cores']} cores" for each in every})

    def success(self, task: str, method: str, how: str = "sampled") -> Estimate | None:
        """:return: mean success over seeds, with its interval over seeds and, for one seed, over its episodes."""
        return _success([one["final"][how] for one in self.of(task, method)])

    def axes(self, task: str, method: str) -> list[str]:
        """:return: what differed in tests after training."""
        return list(dict.fromkeys(axis for one in self.of(task, method) for axis in one["generalisation"]))

    def success_there(self, task: str, method: str, axis: str) -> Estimate | None:
        """:return: the same where one thing differs; None if that was not tried."""
        tried = [one["generalisation"] for one in self.of(task, method)]
        return _success([one[axis] for one in tried]) if all(axis in one for one in tried) else None

    def mean(self, task: str, method: str, name: str, how: str = "sampled") -> float | None:
        """:return: the mean over seeds of another final figure."""
        values = [one["final"][how][name] for one in self.of(task, method)]
        return None if not values or None in values else float(np.mean(values))

    def mean_return(self, task: str, method: str, how: str) -> Estimate | None:
        """:return: its mean ± 1.96 standard errors: of the episodes, which all seeds share, and of the seeds."""
        finals = [one["final"][how] for one in self.of(task, method)]
        if not finals:
            return None
        of_episodes = float(np.mean([each["std_return"] ** 2 / each["episodes"] for each in finals]))
        means = [each["mean_return"] for each in finals]
        of_seeds = float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
        mean, error = float(np.mean(means)), (of_episodes + of_seeds) ** 0.5
        return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error)

    def reached(self, task: str, method: str, level: float) -> list[Reached]:
        """:return: for each seed that trained, when it got to a level of success."""
        return [first_reaching(curve, level) for curve in self.curves(task, method)]

    def curves(self, task: str, method: str) -> list[list[Figures]]:
        """:return: the looks of each seed that trained; none of a task that has no success"""
        seeds = [one["curve"] for one in self.of(task, method)]
        return [curve for curve in seeds if curve and curve[0]["success"] is not None]

    def scores(self, method: str, tasks: Sequence[str], how: str = "sampled") -> Scores | None:
        """:return: final success (runs, tasks), as many runs as every task has; None if one has none."""
        columns = [[one["final"][how]["success"] for one in self.of(task, method)] for task in tasks]
        n_runs = min(map(len, columns), default=0)
        if not n_runs or any(None in column for column in columns):
            return None
        return np.array([column[:n_runs] for column in columns]).T

    def there(self, task: str, method: str, axis: str) -> Scores:
        """:return: success of each run, (runs, 1), where one thing differs."""
        return np.array([[one["generalisation"][axis]["success"]] for one in self.of(task, method)])

    def beside(self, task: str, method: str, axis: str) -> tuple[Estimate, Scores] | None:
        """:return: a method's success where ours meets one thing that differs: there, or else as it was trained"""
        there = self.success_there(task, method, axis)
        if there is not None:
            return there, self.there(task, method, axis)
        trained, scores = self.success(task, method), self.scores(method, [task])
        return None if trained is None or scores is None else (trained, scores)

    def best_network(self, task: str, level: float, unit: str) -> tuple[str, list[Reached]] | None:
        """:return: the network that got to a level at the least cost: first by seeds that arrived, then by the mean."""
        candidates = [(name, self.reached(task, name, level)) for name in NETWORKS]
        known = [(name, ends) for name, ends in candidates if ends]
        if not known:
            return None

        def cost(each: tuple[str, list[Reached]]) -> tuple[float, float]:
            ends = each[1]
            mean = float(np.mean(np.log([max(getattr(end, unit), 1e-9) for end in ends])))  # 0: before training
            return float(np.mean([end.censored for end in ends])), mean

        return min(known, key=cost)

    def contested(self, task: str, level: float) -> bool:
        """:return: whether both the language model and a network were tried."""
        return bool(self.reached(task, OURS, level)) and self.best_network(task, level, "steps") is not None

    def ratio(self, task: str, level: float, unit: str) -> tuple[Estimate, str, bool] | None:
        """
        How many times what the language model costs the best network does until a level of success.

        A language model that was there before training counts as having needed the first rollout's steps, and in
        seconds what it took to make it.

        :param task: which
        :param level: of success
        :param unit: "steps", "seconds" or "processor_seconds"
        :return: the ratio, the network, and whether the ratio is a lower bound; None if either has no results, or the
            language model did not arrive with every seed
        """
        best, ours = self.best_network(task, level, unit), self.reached(task, OURS, level)
        if best is None or not ours or any(end.censored for end in ours):
            return None
        name, theirs = best
        least = self._first_steps(task) if unit == "steps" else 0.0
        dearer, cheaper = ([max(getattr(end, unit), least) for end in ends] for ends in (theirs, ours))
        return cost_ratio(dearer, cheaper), name, any(end.censored for end in theirs)

    def _first_steps(self, task: str) -> float:
        looks = [one["curve"][1]["steps"] for one in self.of(task, OURS) if len(one["curve"]) > 1]
        return float(min(looks, default=1))


def _success(figures: list[Figures]) -> Estimate | None:
    values = [each["success"] for each in figures]
    if not values or None in values:
        return None
    return (
        Estimate(values[0], *figures[0]["success_interval"])
        if len(values) == 1
        else mean_over_runs(np.array([values]).T)
    )
