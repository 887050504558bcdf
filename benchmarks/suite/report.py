"""The report: tables and figures from the cells' JSON files, in Markdown and as one page without a network."""

import base64
from collections.abc import Callable
from pathlib import Path

import jinja2
from markdown import markdown as to_html

from sb3_llm.benchmarks.suite import tables
from sb3_llm.benchmarks.suite.config import FOLDER, Suite
from sb3_llm.benchmarks.suite.figures import write_figures
from sb3_llm.benchmarks.suite.found import Found
from sb3_llm.benchmarks.suite.store import Store
from sb3_llm.folder import write_text
from sb3_llm.pretrain.sources import SOURCES, Source

#: Title, what to read it with, and the table.
SECTIONS: tuple[tuple[str, str, Callable[[Found], str]], ...] = (
    (
        "What was aimed at",
        "For how many of the tasks, or tasks in other words or mazes, that were tried it holds. All of these were to "
        "hold everywhere. Cloned networks meet other words in missions alone; two runs that draw count as half a win.",
        tables.aimed_at,
    ),
    (
        "Success after training",
        "Share of test episodes, sampled policy, mean over seeds with its 95 % interval: a bootstrap over seeds, or "
        "Wilson's over episodes where there is one seed. What was not run is empty.",
        tables.success,
    ),
    ("The same, greedy", "Always the likeliest action.", tables.greedy),
    (
        "What it costs to get to 90 %: the best network against the language model",
        "How many times more environment steps and seconds the network needs that needs the fewest, with a 95 % "
        "interval where both have several seeds. A network's run that did not get there counts with what it was "
        "given, so the ratio is a lower bound (>=). A language model that was there before training counts with its "
        "first rollout's steps, and with the seconds that it took to load it. Where not all of its runs got there, "
        "there is no ratio, and their number stands. Tests are not counted in anybody's seconds; loading is, in "
        "everybody's. "
        "Processor time does not grow when others use the machine.",
        lambda found: tables.ratios(found, 0.9),
    ),
    (
        "Steps to 50 %",
        "The median of the seeds; > where that one did not get there; in brackets how many did, if not all.",
        lambda f: tables.reached(f, 0.5, "steps"),
    ),
    ("Steps to 90 %", "", lambda found: tables.reached(found, 0.9, "steps")),
    ("Steps to 95 %", "", lambda found: tables.reached(found, 0.95, "steps")),
    ("Seconds to 50 %", "", lambda found: tables.reached(found, 0.5, "seconds")),
    ("Seconds to 90 %", "", lambda found: tables.reached(found, 0.9, "seconds")),
    ("Seconds to 95 %", "", lambda found: tables.reached(found, 0.95, "seconds")),
    (
        "Over all shared tasks",
        "Interquartile mean of final success; how probably a run of the language model is better than one of the "
        "method on the same task, ties half; area under the curve up to the steps that both had. Intervals: "
        "stratified bootstrap over seeds.",
        tables.aggregates,
    ),
    (
        "Against networks cloned from the same stories",
        "Success after training, and how probably a run of the language model is better, ties half. They see the same "
        "as numbers; what they read of missions is which words occur.",
        tables.cloned,
    ),
    (
        "In words that were never read, after training in canonical English",
        "Success, and how probably a run of the language model there is better than one of a cloned network. Other "
        "phrases for the actions, nouns, colors, wordings of the mission, sentences that tell what is seen "
        "(templates), and Chinese (zh). A network's numbers hold the nouns, colors and wordings that a mission is told "
        "in, and it is tried with them, drawn as for the text; the others don't reach it, and it stands there "
        "as trained, with canonical English missions. The stories that the language model read were told in many "
        "other words; the missions that networks were cloned with, in canonical ones.",
        tables.reworded,
    ),
    (
        "Against RL Baselines3 Zoo",
        "Mean reward ± 1.96 standard errors (of the episodes, which all seeds share, and of the seeds), the steps of "
        "the longest run, and what the planner gets in the same episodes. Zoo's figures are of one run of PPO with "
        "an MLP each (its benchmark.md, April 2023), greedy by that page, sampled by the program that computes them "
        "(rl_zoo3/enjoy.py, in MiniGrid). The settings differ: Zoo's networks start from nothing and see the "
        "flattened view without the compass; the language model has read stories of other worlds, is told a summary "
        "of what it saw, and chooses among the actions that do something.",
        tables.zoo,
    ),
    ("Generalisation", "Sampled success after training, where one thing differs.", tables.generalisation),
    ("Costs", "A multiplication and an addition count two operations. On one core.", tables.costs),
    ("Fluency", "Perplexity per token on stories that training does not show; worst of all runs.", tables.fluency),
    ("Mean return, sampled", "", tables.returns),
    ("Steps of an episode", "SPL: success weighted by path length, where shortest paths are known.", tables.lengths),
    ("How each method was tuned", "", tables.tuning),
)
FIGURES = {
    "curves-steps": "Success over environment steps: mean and range of the seeds",
    "curves-seconds": "Success over seconds of training: mean and range of the seeds",
    "profiles": "Performance profiles, each over the tasks that a method shares with the language model",
    "generalisation": "Success as trained, and where one thing differs",
    "cost": "Success against what training took, a mark for each task",
}
READ = """The embedded model had read 200,000 lines of stories of experts in other worlds, questions, answers and \
dialogues (sb3_llm/embedded/README.md). No MiniGrid-* task, test maze or their twins were among them. {read} \
Networks start from nothing, but for those that were cloned from the same stories."""


def write_report(suite: Suite, store: Store) -> Path:
    """
    :param suite: what was to be run
    :param store: what was
    :return: the page; ``report.md`` and the figures are beside it
    """
    found = Found(suite, store)
    figures = write_figures(found, store.folder / "figures")
    text = as_markdown(found)
    write_text(store.folder / "report.md", text)
    page = store.folder / "report.html"
    write_text(page, as_page(suite.name, text, figures))
    return page


def as_markdown(found: Found) -> str:
    """:return: the report without figures."""
    suite = found.suite
    n_cells = len(suite.cells)
    parts = [
        f"# Benchmark: {suite.name}",
        suite.description,
        f"{n_cells - len(found.problems)} of {n_cells} cells (a task, a method and a seed each) have figures. "
        f"Commits: {', '.join(found.commits) or 'none'}. Machine: {'; '.join(found.machines) or 'none'}.",
        READ.format(read=_tasks_read(suite)),
    ]
    for title, note, table in SECTIONS:
        shown = table(found)
        if shown.count("\n") > 1:
            parts += [f"## {title}", note, shown]
    if suite.left_out:
        parts += ["## Left out for lack of time", suite.left_out]
    if found.problems:
        parts += ["## Cells without figures", tables.problems(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tasks_read(suite: Suite) -> str:
    """The worlds of this suite that the embedded model's corpus tells of."""
    told = {source.env_id for source in SOURCES if isinstance(source, Source)}
    names = [task.name for task in suite.tasks if task.env_id in told and task.kind != "maze"]
    levels = f"It did read of the levels of {', '.join(names)}, other episodes of them." if names else ""
    return levels + (" Of mazes it read of the training split." if any(t.kind == "maze" for t in suite.tasks) else "")


def as_page(title: str, text: str, figures: dict[str, Path]) -> str:
    """:return: the report with its figures inside, as HTML that needs nothing else."""
    environment = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(FOLDER), trim_blocks=True)
    images = [
        {"title": FIGURES[name], "data": base64.b64encode(path.read_bytes()).decode()} for name, path in figures.items()
    ]
    head, _, rest = text.partition("\n## ")
    body = [to_html(part, extensions=["tables"]) for part in (head, f"## {rest}")]
    return environment.get_template("page.html").render(title=title, head=body[0], body=body[1], figures=images)
