"""Tasks, methods and suites as the YAML files beside this one say, checked before anything runs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sb3_llm.errors import SetupError

FOLDER = Path(__file__).parent
SUITES = FOLDER / "suites"
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Task:
    """What is trained, and what it is tested on."""

    name: str
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)  # keywords of the environment that differ in the test
    kind: str = "grid"  # "maze", or "other" where neither a planner nor a view of cells is
    zoo: dict[str, float] | None = None  # RL Baselines3 Zoo's reward and steps

    @property
    def test_kwargs(self) -> dict[str, Any]:
        """:return: the keywords of the environment that is tested on."""
        return self.env_kwargs | self.test


@dataclass(frozen=True)
class Method:
    """Who learns, and how."""

    name: str
    player: str
    tuned: str
    trains: bool = True
    algorithm: str = "ppo"
    model: str = "embedded"  # of a language model; "fresh": the same network without pretraining
    network: str | None = None  # that was cloned
    extractor: str | None = None  # of features, of a network
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One method on one task with one seed: the least that is run, kept and counted."""

    task: Task
    method: Method
    seed: int
    steps: int  # of training
    episodes: int  # of each look at the curve
    final_episodes: int
    axes: tuple[str, ...] = ()  # of generalisation, tested after training
    stop_at: float = 2.0  # a network's training ends when two looks in a row reach this success

    @property
    def key(self) -> str:
        """:return: its name, which is its file's too."""
        return f"{self.task.name}--{self.method.name}--{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        """:return: all that its figures depend on, beside the code; how it is told and explained does not count."""
        said = asdict(self)
        said["method"].pop("tuned")
        said["task"].pop("zoo")
        return said


@dataclass(frozen=True)
class Suite:
    """What is run together."""

    name: str
    description: str
    cells: tuple[Cell, ...]
    left_out: str = ""  # for lack of time, as the report says

    @property
    def tasks(self) -> list[Task]:
        """:return: each once, in order."""
        return list({cell.task.name: cell.task for cell in self.cells}.values())

    @property
    def methods(self) -> list[Method]:
        """:return: each once, in order."""
        return list({cell.method.name: cell.method for cell in self.cells}.values())


def load_suite(name: str, tasks: Iterable[str] = (), methods: Iterable[str] = (), seeds: int | None = None) -> Suite:
    """
    :param name: of a suite, or the path of a YAML file of that form
    :param tasks: only these; all by default
    :param methods: only these; all by default
    :param seeds: at most so many
    :return: the suite, its cells in the order they are run: all first seeds, then all second ones
    :raises SetupError: for a suite, task, method or keyword that is not known
    """
    known_tasks, known_methods = _read_all(FOLDER / "tasks.yaml", Task), _read_all(FOLDER / "methods.yaml", Method)
    said = _read(_path_of(name))
    cells: dict[str, Cell] = {}
    try:
        for group in said["groups"]:
            for cell in _cells_of(group, said, known_tasks, known_methods):
                cells.setdefault(cell.key, cell)
    except KeyError as error:
        raise SetupError(f"the suite {name} without {error}", "all that suites/quick.yaml says", "add it") from None
    chosen_tasks = _chosen("task", tasks, known_tasks)
    chosen_methods = _chosen("method", methods, known_methods)
    kept = [
        cell
        for cell in sorted(cells.values(), key=lambda cell: cell.seed)
        if cell.task.name in chosen_tasks
        and cell.method.name in chosen_methods
        and (seeds is None or cell.seed < seeds)
    ]
    if not kept:
        given = f"suite {name} with tasks {sorted(chosen_tasks)} and methods {sorted(chosen_methods)}"
        raise SetupError(given, "at least one cell", "leave --tasks or --methods out")
    return Suite(Path(name).stem, said["description"].strip(), tuple(kept), said.get("left_out", "").strip())


def suites() -> list[str]:
    """:return: the names of the suites there are."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def _path_of(name: str) -> Path:
    for path in (SUITES / f"{name}.yaml", Path(name)):
        if path.is_file() and path.suffix == ".yaml":
            return path
    raise SetupError(
        f"the suite {name!r}", f"one of {', '.join(suites())}, or a path to a .yaml file", "pass --suite quick"
    )


def _cells_of(
    group: dict[str, Any], said: dict[str, Any], tasks: Mapping[str, Task], methods: Mapping[str, Method]
) -> Iterable[Cell]:
    """A group's methods each train for their own number of steps on all of its tasks."""
    common = {"episodes": said["episodes"], "final_episodes": said["final_episodes"]}
    common |= {name: group[name] for name in ("episodes", "final_episodes", "stop_at") if name in group}
    axes = tuple(group.get("axes", ()))
    mine = [_named("task", name, tasks) for name in group["tasks"]]
    budgets = [(_named("method", name, methods), steps) for name, steps in group["methods"].items()]
    for task in mine:
        for method, steps in budgets:
            for seed in range(group["seeds"]):
                yield Cell(task, method, seed, steps, **common, axes=axes)


def _named(what: str, name: str, known: Mapping[str, Kept]) -> Kept:
    if name not in known:
        raise SetupError(f"the {what} {name!r}", f"one of {', '.join(known)}", "check the spelling")
    return known[name]


def _chosen(what: str, names: Iterable[str], known: Mapping[str, Any]) -> set[str]:
    names = list(names)
    for name in names:
        _named(what, name, known)
    return set(names) or set(known)


def _read_all(path: Path, kind: type[Kept]) -> dict[str, Kept]:
    found: dict[str, Kept] = {}
    for name, values in _read(path).items():
        try:
            found[name] = kind(name=name, **values)  # type: ignore[call-arg]
        except TypeError as error:
            raise SetupError(f"{name} in {path.name}: {error}", f"keywords of {kind.__name__}", "correct it") from None
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SetupError(f"{path}, which is no YAML ({error})", "a mapping", "correct the file") from None
    if not isinstance(said, dict):
        raise SetupError(f"{path}, which holds {type(said).__name__}", "a mapping", "correct the file")
    return said
