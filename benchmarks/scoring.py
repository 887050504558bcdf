"""What scoring costs: ours beside the routes of others and beside the prompts alone, alternating in one process."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from sb3_llm.benchmarks.endtoend import end_to_end
from sb3_llm.benchmarks.gpu import on_gpu
from sb3_llm.benchmarks.memory import peak
from sb3_llm.benchmarks.peers import AllRows, CachedPrompt, PromptOnly
from sb3_llm.benchmarks.shapes import SETTINGS, Setting, random_lm, random_rows
from sb3_llm.scoring import PackedScorer, ReferenceScorer

ROUTES: dict[str, Callable[[PreTrainedModel], Any]] = {
    "prompt only": PromptOnly,
    "ours": PackedScorer,
    "cached prompt, a row per phrase (lamorel)": CachedPrompt,
    "all rows": AllRows,
    "all rows + critic pass (TWOSOME)": lambda lm: AllRows(lm, critic_pass=True),
    "reference": ReferenceScorer,
}
QUICK = ("prompt only", "ours")


def scoring(
    only: Annotated[int | None, typer.Option(help="Measure one setting alone, counted from 1.", min=1, max=5)] = None,
    batch: Annotated[int | None, typer.Option(help="Prompts in a batch, instead of each setting's.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="Of the quick routes.", min=1)] = 7,
    slow_repeats: Annotated[int, typer.Option(help="Of the peers' routes and the reference.", min=1)] = 2,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, each route in a process of its own.")] = True,
    device: Annotated[str, typer.Option(help='"cpu", or "cuda" for a model of 0.5 B parameters.')] = "cpu",
    out: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Print each route's cost in forward passes over the prompts alone, and how many times cheaper than all rows."""
    torch.set_num_threads(threads)
    if device != "cpu":
        on_gpu(batch or 64, repeats)
        return
    chosen = SETTINGS if only is None else SETTINGS[only - 1 : only]
    found = []
    for setting in chosen:
        setting = Setting(**asdict(setting) | ({"batch": batch} if batch else {}))
        figures = _measure(setting, repeats, slow_repeats, peers=setting.model == "6M" and setting.vocabulary == 4096)
        peaks = {name: peak(_alone, setting, name) for name in ("all rows", "ours")} if memory else {}
        _print(setting, figures, peaks)
        found.append({"setting": asdict(setting), "seconds": figures, "peak_MiB": peaks})
    Console().print(
        f"{repeats} alternating repeats of {' and '.join(QUICK)}, {slow_repeats} of the others; {threads} thread(s), "
        "processor time; prompts share 90 tokens (120 with 20 phrases) and go on for 30 to 60. Ours knows "
        "that start already in the forward pass, as it does in all of a rollout but its first step. Peak memory is "
        "that of forward + backward above the model's own."
    )
    if only is None:
        end_to_end(threads=threads)
    if out:
        out.write_text(json.dumps(found, indent=1))


def _measure(setting: Setting, repeats: int, slow_repeats: int, peers: bool) -> dict[str, dict[str, list[float]]]:
    """Seconds of each route, forward and forward + backward; the first quick repeat warms up."""
    lm, rows = random_lm(setting.model, setting.vocabulary), random_rows(setting, seed=1)
    routes = {name: make(lm) for name, make in ROUTES.items() if peers or name in (*QUICK, "all rows")}
    seconds: dict[str, dict[str, list[float]]] = {"forward": {}, "forward + backward": {}}
    for way, kept in seconds.items():
        for repeat in range(repeats + 1):
            for name, route in routes.items():
                if name not in QUICK and repeat >= slow_repeats:
                    continue
                _forget(route, setting)
                start = time.process_time()
                _run(lm, route, rows, backward=way != "forward")
                if repeat or name not in QUICK:
                    kept.setdefault(name, []).append(time.process_time() - start)
    return seconds


def _forget(route: Any, setting: Setting) -> None:
    """Let a route know no more than the start of all prompts, as in a rollout at prompts it has not met."""
    if isinstance(route, PackedScorer):
        route.forget()
        with torch.no_grad():
            route.score(random_rows(setting, seed=2))


def _run(lm: PreTrainedModel, route: Any, rows: list[Any], backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        scores = route.score(rows)
        if backward:
            (scores.log_probs.sum() + scores.features.sum()).backward()
            lm.zero_grad(set_to_none=True)


def _alone(setting: Setting, name: str) -> Callable[[], object]:
    """One route, to be measured in a process of its own."""
    torch.set_num_threads(1)
    lm, rows = random_lm(setting.model, setting.vocabulary), random_rows(setting)
    route = ROUTES[name](lm)
    with torch.no_grad():
        PromptOnly(lm).score(rows[:1])
    return lambda: _run(lm, route, rows, backward=True)


def _print(setting: Setting, seconds: dict[str, dict[str, list[float]]], peaks: dict[str, float]) -> None:
    table = Table("route", "pass", "cost in prompt-only passes", "times cheaper than all rows", "peak MiB")
    table.title = str(setting)
    for way, found in seconds.items():
        bound, naive = statistics.median(found["prompt only"]), statistics.median(found["all rows"])
        for name, times in found.items():
            ratios = [each / bound for each in (min(times), statistics.median(times), max(times))]
            cheaper = f"{naive / statistics.median(times):.1f}"
            held = f"{peaks[name]:.0f}" if name in peaks and way != "forward" else ""
            table.add_row(name, way, f"{ratios[1]:.2f} ({ratios[0]:.2f}-{ratios[2]:.2f})", cheaper, held)
    Console().print(table)
