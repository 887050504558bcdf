"""The report's tables, in Markdown."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sb3_llm.benchmarks.suite.aims import aims
from sb3_llm.benchmarks.suite.formats import Cell, heading, number, row, share, times, with_interval, without_interval
from sb3_llm.benchmarks.suite.found import CLONED, HOW, OURS, WORDS, Found
from sb3_llm.benchmarks.suite.statistics import (
    Estimate,
    Reached,
    Scores,
    area_under,
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
)
from sb3_llm.benchmarks.suite.store import NOT_RUN


def aimed_at(found: Found) -> str:
    """:return: each aim, for how many of what was tried it holds, and for what it does not."""
    lines = heading("aim", "holds for", "but not for")
    for aim, items in aims(found):
        failed: dict[str, list[str]] = {}
        for item in items:
            if not item.holds:
                failed.setdefault(item.task, []).append(item.axis or "as trained")
        told = [task if axes == ["as trained"] else f"{task} ({', '.join(axes)})" for task, axes in failed.items()]
        lines.append(row(aim, f"{sum(item.holds for item in items)} of {len(items)}", "; ".join(told)))
    return "\n".join(lines)


def success(found: Found) -> str:
    """:return: final success of the sampled policy, all methods."""
    return _by_task(found, lambda task, method: with_interval(found.success(task, method)))


def greedy(found: Found) -> str:
    """:return: final success of the greedy policy, all methods that train or are language models."""
    return _by_task(found, lambda task, method: with_interval(found.success(task, method, "greedy")))


def returns(found: Found) -> str:
    """:return: mean return of the sampled policy."""
    return _by_task(found, lambda task, method: number(found.mean(task, method, "mean_return")))


def lengths(found: Found) -> str:
    """:return: mean steps of an episode, and where shortest paths are known success weighted by path length."""

    def cell(task: str, method: str) -> Cell:
        spl = found.mean(task, method, "spl")
        length = number(found.mean(task, method, "mean_length"), 1)
        return length if spl is None else f"{length} (SPL {share(spl)})"

    return _by_task(found, cell)


def reached(found: Found, level: float, unit: str) -> str:
    """:return: steps or seconds until a level of success, the median of the seeds; ">" where it did not arrive."""
    return _by_task(found, lambda task, method: _ends(found.reached(task, method, level), unit))


def ratios(found: Found, level: float) -> str:
    """:return: how many times what the language model costs the best network does; or how many of its runs arrived."""
    lines = heading(
        "task", "best network", "x fewer steps", "best network", "x less time", "best network", "x processor time"
    )
    for task in found.tasks:
        cells = []
        for unit in ("steps", "seconds", "processor_seconds"):
            ratio = found.ratio(task, level, unit)
            cells += ["", _arrived(found, task, level)] if ratio is None else [ratio[1], _times(found, task, ratio)]
        if any(cells):
            lines.append(row(task, *cells))
    return "\n".join(lines)


def zoo(found: Found) -> str:
    """:return: RL Baselines3 Zoo's PPO beside ours: mean reward, sampled and greedy."""
    names = "task", "Zoo's PPO: reward", "steps", "ours: sampled", "greedy", "steps", "zero-shot: sampled", "greedy"
    lines = heading(*names, "planner")
    for task in found.suite.tasks:
        if task.zoo is None or not found.of(task.name, OURS):
            continue
        steps = max(look["steps"] for one in found.of(task.name, OURS) for look in [{"steps": 0}, *one["curve"]])
        ours, before = ([_mean_return(found, task.name, name, how) for how in HOW] for name in (OURS, "zero-shot"))
        theirs = f"{task.zoo['reward']:.3f}", f"{task.zoo['steps']:,.0f}"
        planner = _mean_return(found, task.name, "expert", "sampled")
        lines.append(row(task.name, *theirs, *ours, f"{steps:,}", *before, planner))
    return "\n".join(lines)


def _mean_return(found: Found, task: str, method: str, how: str) -> str:
    mean = found.mean_return(task, method, how)
    return "" if mean is None else f"{mean.value:.3f} ± {mean.high - mean.value:.3f}"


def aggregates(found: Found) -> str:
    """:return: over the tasks that a method shares with ours: means, and how probably ours is better."""
    lines = heading(
        "method", "tasks", "runs", "IQM of success", "ours there", "probability that ours is better", "area"
    )
    for method in found.methods:
        tasks = found.shared(method)
        theirs, ours = found.scores(method, tasks), found.scores(OURS, tasks)
        if theirs is None or ours is None or method == OURS:
            continue
        shown = with_interval if min(len(ours), len(theirs)) > 1 else without_interval
        better = shown(bootstrap(probability_of_improvement, ours, theirs, resamples=1000))
        iqms = [shown(bootstrap(interquartile_mean, each, resamples=1000)) for each in (theirs, ours)]
        area = _area(found, method, tasks)
        areas = f"{area} (ours {_area(found, OURS, tasks)})" if area else ""
        lines.append(row(method, str(len(tasks)), str(len(theirs)), *iqms, better, areas))
    return "\n".join(lines)


def cloned(found: Found) -> str:
    """:return: task by task beside networks that were cloned from the same stories, and how probably ours is better."""
    names = [name for name in CLONED if name in found.methods]
    columns = ("sampled", "ours is better", "greedy", "ours is better")
    lines = heading("task", "ours: sampled", "greedy", *(f"{name}: {column}" for name in names for column in columns))
    for task in found.tasks:
        theirs = [cell for name in names for how in HOW for cell in _beside(found, task, name, how)]
        if found.of(task, OURS) and any(theirs):
            lines.append(row(task, *(with_interval(found.success(task, OURS, how)) for how in HOW), *theirs))
    return "\n".join(lines)


def reworded(found: Found) -> str:
    """:return: ours in words that it never read, beside cloned networks, whose numbers hold a mission's words alone."""
    names = [name for name in CLONED if name in found.methods]
    lines = heading(
        "task", "words", "ours", *(cell for name in names for cell in (name, f"ours is better than {name}"))
    )
    for task in found.tasks:
        for words in WORDS:
            ours = found.success_there(task, OURS, words)
            if ours is not None:
                runs = found.there(task, OURS, words)
                theirs = [cell for name in names for cell in _against(runs, found.beside(task, name, words))]
                lines.append(row(task, words, with_interval(ours), *theirs))
    return "\n".join(lines)


def _beside(found: Found, task: str, method: str, how: str) -> tuple[Cell, Cell]:
    success, scores = found.success(task, method, how), found.scores(method, [task], how)
    return _against(found.scores(OURS, [task], how), None if success is None or scores is None else (success, scores))


def _against(ours: Scores | None, theirs: tuple[Estimate, Scores] | None) -> tuple[Cell, Cell]:
    """:return: their success, and how probably ours is better"""
    if ours is None or theirs is None:
        return None, None
    shown = with_interval if min(len(ours), len(theirs[1])) > 1 else without_interval
    return with_interval(theirs[0]), shown(bootstrap(probability_of_improvement, ours, theirs[1], resamples=1000))


def generalisation(found: Found) -> str:
    """:return: sampled success after training where one thing differs, beside that where nothing does."""
    lines = heading("task", "method", "axis", "as trained", "there", "costs")
    for task, method in found.cells:
        for axis in found.axes(task, method):
            trained, there = found.success(task, method), found.success_there(task, method, axis)
            if trained is not None and there is not None:
                costs = f"{1 - there.value / trained.value:.0%}" if trained.value else ""
                lines.append(row(task, method, axis, share(trained.value), share(there.value), costs))
    return "\n".join(lines)


def costs(found: Found) -> str:
    """:return: parameters, operations, memory and time of each method, over its tasks."""
    lines = heading("method", "parameters", "trained", "MFLOP per decision", "peak MiB", "seconds per 1,000 steps")
    for method in found.methods:
        seeds = [one for (_, name), cells in found.cells.items() if name == method for one in cells]
        if "parameters" not in seeds[0]["costs"]:
            continue
        each = {name: [one["costs"][name] for one in seeds] for name in seeds[0]["costs"]}
        trained = [(look["steps"], look["seconds"]) for one in seeds for look in one["curve"][-1:]]
        per_step = sum(seconds for _, seconds in trained) / max(1, sum(steps for steps, _ in trained)) * 1000
        figures = (
            f"{np.mean(each['parameters']):,.0f}",
            f"{np.mean(each['trained']):,.0f}" if trained else "",
            f"{np.mean(each['flops_per_decision']) / 1e6:,.2f}",
            f"{max(each['peak_memory_mib']):,.0f}",
            f"{per_step:.2g}" if trained else "",
        )
        lines.append(row(method, *figures))
    return "\n".join(lines)


def fluency(found: Found) -> str:
    """:return: perplexity on stories before and after training."""
    lines = heading("method", "perplexity before", "after", "worst")
    for method in found.methods:
        seeds = [one["fluency"] for (_, name), cells in found.cells.items() if name == method for one in cells]
        if seeds[0] is None or method == "zero-shot":
            continue
        before, after = ([one[when] for one in seeds] for when in ("before", "after"))
        lines.append(row(method, f"{np.mean(before):.2f}", f"{np.mean(after):.2f}", f"{max(after):.2f}"))
    return "\n".join(lines)


def tuning(found: Found) -> str:
    """:return: how each method was tuned."""
    lines = heading("method", "how it was tuned")
    return "\n".join([*lines, *(row(method.name, method.tuned) for method in found.suite.methods)])


def problems(found: Found) -> str:
    """:return: cells without figures; those that were not run, of which there may be many, a line for each task."""
    why = {problem.key: problem.why for problem in found.problems}
    waiting: dict[str, Counter[str]] = {}
    for cell in found.suite.cells:
        if why.get(cell.key) == NOT_RUN:
            waiting.setdefault(cell.task.name, Counter())[cell.method.name] += 1
    lines = [f"- {key}: {said}" for key, said in why.items() if said != NOT_RUN]
    for task, methods in waiting.items():
        lines.append(f"- {task}, {NOT_RUN}: " + ", ".join(f"{name} ({n})" for name, n in methods.items()))
    return "\n".join(lines)


def _by_task(found: Found, cell: Callable[[str, str], Cell]) -> str:
    every = {task: [cell(task, method) for method in found.methods] for task in found.tasks}
    rows = {task: cells for task, cells in every.items() if any(cells)}
    shown = [index for index in range(len(found.methods)) if any(cells[index] for cells in rows.values())]
    lines = heading("task", *(found.methods[index] for index in shown))
    return "\n".join([*lines, *(row(task, *(cells[index] or "" for index in shown)) for task, cells in rows.items())])


def _ends(ends: Sequence[Reached], unit: str) -> Cell:
    if not ends:
        return None
    ordered = sorted(ends, key=lambda end: (end.censored, getattr(end, unit)))
    middle = [ordered[(len(ends) - 1) // 2], ordered[len(ends) // 2]]
    median = float(np.mean([getattr(end, unit) for end in middle]))
    arrived = sum(not end.censored for end in ends)
    said = f"{'> ' if middle[1].censored else ''}{median:,.{0 if median >= 10 or median == 0 else 1}f}"
    return said if arrived == len(ends) else f"{said} ({arrived} of {len(ends)})"


def _area(found: Found, method: str, tasks: Sequence[str]) -> str:
    areas = []
    for task in tasks:
        mine = found.curves(task, method)
        curves = [*mine, *found.curves(task, OURS)]
        if mine:
            shared = min(curve[-1]["steps"] for curve in curves)
            areas += [area_under(curve, shared) for curve in mine]
    return share(float(np.mean(areas))) if areas else ""


def _times(found: Found, task: str, ratio: tuple[Estimate, str, bool]) -> str:
    estimate, network, bound = ratio
    seeds = min(len(found.of(task, name)) for name in (OURS, network))
    interval = f" ({times(estimate.low)}-{times(estimate.high)})" if seeds > 1 else ""
    return f"{'>= ' if bound else ''}{times(estimate.value)}{interval}"


def _arrived(found: Found, task: str, level: float) -> str:
    """:return: with how many seeds the language model got there; nothing where all did or no network was tried"""
    ends = found.reached(task, OURS, level)
    arrived = sum(not end.censored for end in ends)
    return f"ours: {arrived} of {len(ends)} runs" if found.contested(task, level) and arrived < len(ends) else ""
