"""``sb3-llm benchmark``: run what is missing of a suite, then make the report."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sb3_llm.benchmarks.suite.config import Cell, Suite, load_suite, suites
from sb3_llm.benchmarks.suite.launch import run_locally, run_on_ray
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.store import NOT_RUN, Store
from sb3_llm.errors import SetupError

LAUNCHERS = ("local", "ray")
#: Seconds that a thousand steps of a method take, roughly, on one core: only for the bar's time left.
SECONDS = {"language_model": 80.0, "network": 0.9, "cloned": 3.0, "text_embedding": 12.0, "random": 0.0, "expert": 0.0}
FEWEST_SECONDS = 15.0  # of a cell, tests included


def benchmark(
    suite: Annotated[str, typer.Option(help=f"{', '.join(suites())}, or a YAML file of that form.")] = "quick",
    out: Annotated[Path | None, typer.Option(help="Folder for results; runs/benchmark/SUITE by default.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for what several cells share.")] = Path("runs/benchmark/work"),
    tasks: Annotated[str, typer.Option(help="Only these, with commas between.")] = "",
    methods: Annotated[str, typer.Option(help="Only these, with commas between.")] = "",
    seeds: Annotated[int | None, typer.Option(help="At most so many of each.", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="Cells at a time, each on one core.", min=1)] = 2,
    launcher: Annotated[str, typer.Option(help=" or ".join(LAUNCHERS))] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default one on this machine.")] = None,
    fallback: Annotated[bool, typer.Option("--fallback", help="Run locally if Ray can't be reached.")] = False,
    mix: Annotated[bool, typer.Option("--mix", help="Keep results of other commits too.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Run nothing; make the report anew.")] = False,
) -> None:
    """
    Language models against small networks: run a suite, and write tables, figures and a page.

    Interrupted at any moment, the same command goes on: what is finished is kept.
    """
    if launcher not in LAUNCHERS:
        raise SetupError(f"--launcher {launcher}", f"one of {', '.join(LAUNCHERS)}", "pass --launcher local")
    _report_module()  # before anything runs
    chosen = load_suite(suite, _names(tasks), _names(methods), seeds)
    store, console = Store(out or Path("runs") / "benchmark" / chosen.name), Console()
    store.require(chosen.cells, here(), mix or report_only)
    missing = [] if report_only else [cell for cell in chosen.cells if store.load(cell) is None]
    for problem in store.problems(missing):
        if problem.why != NOT_RUN:
            console.print(f"again: {problem.key} ({problem.why})", markup=False, soft_wrap=True)
    try:
        _run(missing, store, work, jobs, launcher, ray_address, fallback, console)
    except KeyboardInterrupt:
        console.print("Interrupted; what is finished is kept. The same command goes on.")
        raise typer.Exit(130) from None
    _report(chosen, store, console)


def _run(
    cells: Sequence[Cell],
    store: Store,
    work: Path,
    jobs: int,
    launcher: str,
    address: str | None,
    fallback: bool,
    console: Console,
) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %")
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(f"0 of {len(cells)} cells", total=sum(map(_seconds, cells)) or 1.0)
        done: list[str] = []

        def ended(cell: Cell, why: str | None) -> None:
            done.append(cell.key)
            if why is not None:
                console.print(f"failed: {cell.key}: {why}", style="red", markup=False, soft_wrap=True)
            elif not console.is_terminal:  # a log gets lines, not a bar
                console.print(f"{len(done)} of {len(cells)} cells: {cell.key}", markup=False, soft_wrap=True)
            progress.update(bar, advance=_seconds(cell), description=f"{len(done)} of {len(cells)} cells")

        if launcher == "ray":
            try:
                return run_on_ray(cells, store, work, address, ended)
            except SetupError as error:
                if not fallback:
                    raise
                console.print(f"{error} Running locally.", markup=False, soft_wrap=True)
        return run_locally(cells, store, work, jobs, ended)


def _seconds(cell: Cell) -> float:
    return FEWEST_SECONDS + SECONDS[cell.method.player] * cell.steps / 1000


def _report(suite: Suite, store: Store, console: Console) -> None:
    problems = store.problems(suite.cells)
    page = _report_module().write_report(suite, store)
    console.print((page.parent / "report.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} cells have no figures; the same command runs them (again).", style="red")
        raise typer.Exit(1)


def _report_module() -> Any:
    """Imported only here: what draws and counts is an extra, and `sb3-llm` starts without it."""
    try:
        return importlib.import_module("sb3_llm.benchmarks.suite.report")
    except ImportError as error:
        raise SetupError(
            f"the benchmark, without {error.name}", "the extra of that name", "pip install 'sb3_llm[benchmarks]'"
        ) from None


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]
