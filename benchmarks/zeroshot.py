"""Success on tasks that the embedded model never saw, before any tuning, beside what other policies do there."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from sb3_llm.benchmarks.controls.cloning import Schedule, kept_network
from sb3_llm.benchmarks.controls.fresh import fresh_weights
from sb3_llm.benchmarks.controls.networks import NETWORKS
from sb3_llm.benchmarks.controls.numbers import GRID, MAZE
from sb3_llm.benchmarks.controls.playing import (
    FIRST_SEED,
    N_ENVS,
    Words,
    play_expert,
    play_lm,
    play_network,
    play_random,
)
from sb3_llm.benchmarks.controls.replay import choices_digest
from sb3_llm.benchmarks.controls.results import Results, table, wordings_table
from sb3_llm.benchmarks.controls.tasks import TASKS, WORDED, Task, tasks_named
from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.worded import WORDINGS
from sb3_llm.errors import SetupError
from sb3_llm.language_model import EMBEDDED_FOLDER

RESULTS = Path(__file__).parent / "results" / "zeroshot.json"
WORK = Path("runs") / "zeroshot"
ROWS = ("lm", "expert", "bot", "random", "untrained", *NETWORKS)
HELD_OUT_WORDS = tuple(Words(wording=wording) for wording in WORDINGS if wording.startswith("held-out"))
OTHER_WORDS = (*HELD_OUT_WORDS, Words(language="zh"))
NOTES = """Success of {episodes} episodes each, with the 95 % Wilson interval; sampled, not greedy; seeds from \
{first_seed:,}. Bold: the target is met. lm: the language model as it was pretrained. expert: the planner whose \
stories it read, which knows no more than the agent. bot: BabyAI's, which sees the whole level; in {twins} it plays \
the BabyAI level of that name. random: each phrase offered as likely as the others. untrained: the same architecture \
with the weights that its training begins with. mlp, cnn: cloned from the same stories' choices, those of a corpus of \
{demonstrations:,} lines, which they see as numbers with the same information; learning rate and length of training \
chosen on held-out stories."""


@dataclass(frozen=True)
class Options:
    """What the table is made with."""

    episodes: int
    model: str
    history: History
    demonstrations: int
    work: Path
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def words(self) -> Words:
        """:return: canonical English."""
        return Words(history=self.history)

    @property
    def common(self) -> dict[str, Any]:
        """:return: what all figures depend on."""
        return {"episodes": self.episodes, "first_seed": FIRST_SEED, "n_envs": N_ENVS}


def play_row(row: str, tasks: Sequence[Task], options: Options, results: Results) -> None:
    """Play one policy on some tasks."""
    if row in NETWORKS:
        _play_cloned(row, tasks, options, results)
    elif row == "lm":
        _play_lm(row, options.model, options.words, tasks, options, results)
    elif row == "untrained":
        with tempfile.TemporaryDirectory() as folder:
            _play_lm(row, fresh_weights(options.model, Path(folder)), options.words, tasks, options, results)
    elif row == "random":
        for task in tasks:
            results.keep(task.name, row, options.common, play_random, task, options.episodes, f"{task.name}: {row}")
    else:
        for task in (task for task in tasks if row == "expert" or task.level is not None):
            arguments = (task, options.episodes, row == "bot", f"{task.name}: {row}")
            made_with = options.common | ({"choices": choices_digest()} if row == "expert" else {})
            results.keep(task.name, row, made_with, play_expert, *arguments)


def _play_lm(row: str, model: str, words: Words, tasks: Sequence[Task], options: Options, results: Results) -> None:
    made_with = options.common | asdict(words) | {"model": model_digest(model)}
    for task in tasks:
        arguments = (task, options.episodes, model, words, f"{task.name}: {row}")
        results.keep(task.name, row, made_with, play_lm, *arguments)


def _play_cloned(row: str, tasks: Sequence[Task], options: Options, results: Results) -> None:
    learned = {"demonstrations": options.demonstrations, "choices": choices_digest()}
    made_with = options.common | learned | asdict(options.schedule)
    for kind in (GRID, MAZE):
        mine = [task for task in tasks if (task.env_id == "sb3_llm/Maze-v0") == (kind == MAZE)]
        if all(results.holds(task.name, row, made_with) for task in mine):
            continue
        network, report = kept_network(options.work, row, kind, options.demonstrations, options.schedule)
        results.note(f"{row} {kind}", report)
        for task in mine:
            arguments = (task, options.episodes, network, f"{task.name}: {row}")
            results.keep(task.name, row, made_with, play_network, *arguments)


def model_digest(model: str) -> str:
    """:return: sha256 of a folder's weights, configuration and tokenizer; a hub model's name is as it is."""
    folder = EMBEDDED_FOLDER if model == "embedded" else Path(model)
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json"):
            whole.update(path.read_bytes())
    return whole.hexdigest()[:16] if folder.is_dir() else model


def wording_row(words: Words) -> str:
    """:return: the name under which a wording's figures are kept."""
    return f"lm, {words.wording if words.language == 'en' else words.language}"


def zeroshot(
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each policy on each task.")] = 300,
    tasks: Annotated[str | None, typer.Option(help="Some of the tasks, with commas between; all by default.")] = None,
    rows: Annotated[str, typer.Option(help="Some of the policies, with commas between.")] = ",".join(ROWS),
    model: Annotated[str, typer.Option(help='"embedded" or a folder.')] = "embedded",
    history: Annotated[str, typer.Option(help='"summary", or how many last actions the text tells.')] = SUMMARY,
    wordings: Annotated[bool, typer.Option(help="Also words that the model never read, and Chinese.")] = False,
    demonstrations: Annotated[int, typer.Option(min=100, help="Corpus lines that mlp and cnn learn from.")] = 200_000,
    work: Annotated[Path, typer.Option(help="Where demonstrations and cloned networks are kept.")] = WORK,
    json_file: Annotated[Path, typer.Option("--json", help="Where results are kept, and gone on from.")] = RESULTS,
) -> None:
    """Play held-out tasks with a language model that was not tuned, and with controls; print success in Markdown."""
    torch.set_num_threads(1)
    chosen, columns = tasks_named(tasks), _rows_named(rows)
    told: History = int(history) if history.isdigit() else history
    options, results = Options(episodes, model, told, demonstrations, work), Results(json_file)
    for row in columns:
        play_row(row, chosen, options, results)
    twins = " and ".join(task.name for task in TASKS if task.level not in (None, task.env_id))
    print(table(results, chosen, columns))
    print(NOTES.format(episodes=episodes, first_seed=FIRST_SEED, twins=twins, demonstrations=demonstrations))
    if wordings:
        worded, names = [task for task in chosen if task.name in WORDED], [wording_row(words) for words in OTHER_WORDS]
        for name, words in zip(names, OTHER_WORDS, strict=True):
            _play_lm(name, model, replace(words, history=options.history), worded, options, results)
        print(wordings_table(results, worded, names))


def _rows_named(rows: str) -> list[str]:
    wanted = [name.strip() for name in rows.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise SetupError(f"the policies {unknown}", f"some of {', '.join(ROWS)}", "correct --rows, or leave it out")
    return wanted
