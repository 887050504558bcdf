"""What scoring costs: ours beside the routes of others and beside the prompts alone, alternating in one process."""

import json
import multiprocessing
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

from benchmarks.endtoend import end_to_end
from benchmarks.gpu import on_gpu
from benchmarks.peers import AllRows, CachedPrompt, PromptOnly
from benchmarks.shapes import SETTINGS, Setting, random_lm, random_rows
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
        peaks = {name: _peak(setting, name) for name in ("all rows", "ours")} if memory else {}
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


def _peak(setting: Setting, name: str) -> float:
    """MiB that forward + backward takes above the model, in a process of its own: the peak only ever grows in one."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(setting, name, sender))
    process.start()
    sender.close()
    peak = receiver.recv()
    process.join()
    return float(peak)


def _report_peak(setting: Setting, name: str, sender: Any) -> None:
    torch.set_num_threads(1)
    lm, rows = random_lm(setting.model, setting.vocabulary), random_rows(setting)
    route = ROUTES[name](lm)
    with torch.no_grad():
        PromptOnly(lm).score(rows[:1])
    before = _high_water()
    _run(lm, route, rows, backward=True)
    sender.send((_high_water() - before) / 1024)


def _high_water() -> int:
    """KiB this process has held at most. Not ``ru_maxrss``: Linux hands a parent's down to its child."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def _print(setting: Setting, seconds: dict[str, dict[str, list[float]]], peaks: dict[str, float]) -> None:
    table = Table("route", "pass", "cost in prompt-only passes", "times cheaper than all rows", "peak MiB")
    table.title = str(setting)
    for way, found in seconds.items():
        bound, naive = statistics.median(found["prompt only"]), statistics.median(found["all rows"])
        for name, times in found.items():
            ratios = [each / bound for each in (min(times), statistics.median(times), max(times))]
            cheaper = f"{naive / statistics.median(times):.1f}"
            peak = f"{peaks[name]:.0f}" if name in peaks and way != "forward" else ""
            table.add_row(name, way, f"{ratios[1]:.2f} ({ratios[0]:.2f}-{ratios[2]:.2f})", cheaper, peak)
    Console().print(table)
