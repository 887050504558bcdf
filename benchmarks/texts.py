"""What the form of the text is worth: one small model from scratch for each form, on the same stories."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import typer

from sb3_llm import LLMPolicy, make_env
from sb3_llm.benchmarks.controls.playing import play_model, side_by_side
from sb3_llm.benchmarks.controls.results import Results
from sb3_llm.benchmarks.controls.tasks import tasks_named
from sb3_llm.describe.actions import meanings
from sb3_llm.describe.describer import SUMMARY, History
from sb3_llm.describe.minigrid import RoomDescriber
from sb3_llm.describe.view import UNSEEN, cells_of, thing_of
from sb3_llm.folder import write_text
from sb3_llm.pretrain.corpus import FORMAT, MANIFEST, as_text, digest
from sb3_llm.pretrain.settings import PretrainConfig
from sb3_llm.pretrain.sources import DETOURS, Source
from sb3_llm.pretrain.stories import Line, Story, Telling
from sb3_llm.pretrain.train import pretrain

RESULTS = Path(__file__).parent / "results" / "texts.json"
KINDS = ("keydoor", "fetch", "gotodone", "walls", "corridor")  # of sb3_llm/Rooms-v0
TASKS = "DoorKey-6x6,GoToObject-6x6-N2,Fetch-5x5-N2,SimpleCrossingS9N3,FourRooms,MultiRoom-N4-S5-v1"


class MapDescriber(RoomDescriber):
    """The view as rows of words, the farthest first, the agent below the middle; the rest in sentences."""

    def observation(self, obs: Any, turns: tuple[str, ...]) -> str:
        """:return: the observation text."""
        view, past = self.facts(obs, turns)
        rest = self.words.room(obs["mission"], view._replace(seen=(), free=(), floor=None), past)
        rows = ("/".join(map(_cell, row)) for row in cells_of(obs)[::-1])
        return f"{' '.join(rows)} {rest}"


def _cell(code: Any) -> str:
    return "?" if code[0] == UNSEEN else "_".join(filter(None, reversed(thing_of(code))))


@dataclass(frozen=True)
class Form:
    """How the same stories are told."""

    name: str
    history: History
    compass: bool = True
    floor: bool | None = None
    cls: type[RoomDescriber] = RoomDescriber

    def describer(self, env: gym.Env[Any, Any]) -> RoomDescriber:
        """:return: a new describer for a world."""
        inner: Any = env.unwrapped
        return self.cls(dict(meanings(inner)), self.history, compass=self.compass, floor=self.floor)


FORMS = (
    Form("map", 1, cls=MapDescriber),
    Form("sentences", 1),
    Form("sentences, no compass", 1, compass=False),
    Form("summary", SUMMARY),
    Form("summary, no compass", SUMMARY, compass=False),
    Form("summary and floor", SUMMARY, floor=True),
)


def stories(form: Form, lines_of_each: int, seed: int) -> Iterator[Line]:
    """:return: lines of every kind of room: the same worlds in every form, by the same expert."""
    for kind in KINDS:
        source, told, number = Source("sb3_llm/Rooms-v0", 1, {"kind": kind}), 0, 0
        env = gym.make(source.env_id, disable_env_checker=True, **source.env_kwargs)
        while told < lines_of_each:
            rng = np.random.default_rng([seed, number])
            detour = float(rng.choice(DETOURS))
            story = Story(
                env, seed + number, Telling(form.history, "en", "canonical"), rng, describer=form.describer(env)
            )
            for line in story.told(detour)[: lines_of_each - told]:
                told += 1
                yield Line(line.prompt, line.completion)  # without drills, which need a summary's memory
            number += 1


def write(folder: Path, lines: list[Line]) -> None:
    """Write a corpus of one part."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "lines.jsonl", "".join(f"{as_text(line)}\n" for line in lines))
    entry = {"kind": "lines", "lines": len(lines), "sha256": digest(lines)}
    manifest = {"format": FORMAT, "seed": 0, "asked": len(lines), "lines": len(lines), "sha256": entry["sha256"]}
    write_text(folder / MANIFEST, json.dumps(manifest | {"sources": [entry]}))


def taught(form: Form, folder: Path, lines: int, config: PretrainConfig) -> dict[str, Any]:
    """:return: figures of a model that is trained from scratch and left in ``folder / "model"``."""
    told = list(stories(form, lines // len(KINDS), config.seed))
    write(folder / "corpus", told)
    lm, tokenizer, report = pretrain(folder / "corpus", config, folder, "cpu")
    lm.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    length = float(np.mean([len(tokenizer(line.prompt)["input_ids"]) for line in told[::50]]))
    return {name: report[name] for name in ("phrase_perplexity", "first_token_accuracy")} | {"prompt_tokens": length}


def play(task: Any, form: Form, model: str, episodes: int, title: str) -> dict[str, Any]:
    """:return: how the sampled policy does."""

    def make() -> Any:
        env = make_env(task.env_id, history=0)
        return make_env(task.env_id, describe=form.describer(env), **task.env_kwargs)

    env = side_by_side(make, episodes)
    policy = LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=model)
    return play_model(policy, env, episodes, title)


def texts(
    steps: Annotated[int, typer.Option(min=10, help="Training steps of each model.")] = 800,
    lines: Annotated[int, typer.Option(min=100, help="Lines that each model may read.")] = 40_000,
    episodes: Annotated[int, typer.Option(min=2, help="Test episodes of each model on each task.")] = 100,
    seed: int = 0,
    work: Annotated[Path, typer.Option(help="Where corpora and models are kept.")] = Path("runs/texts"),
    json_file: Annotated[Path, typer.Option("--json", help="Where results are kept, and gone on from.")] = RESULTS,
) -> None:
    """Train a small model on each form of the text, and print success on tasks it never saw, in Markdown."""
    torch.set_num_threads(1)
    shape = {"hidden_size": 96, "intermediate_size": 256, "layers": 4, "heads": 3, "batch_tokens": 3200}
    held_out = min(1000, lines // 10)
    config = PretrainConfig(**shape, steps=steps, held_out_lines=held_out, precision="bfloat16", seed=seed)
    results, tasks = Results(json_file), tasks_named(TASKS)
    for form in FORMS:
        folder = work / form.name.replace(", ", "-").replace(" ", "-")
        if form.name not in results.found:
            results.note(form.name, taught(form, folder, lines, config))
        for task in tasks:
            made_with = {"episodes": episodes, "steps": steps, "lines": lines, "seed": seed}
            title = f"{task.name}: {form.name}"
            results.keep(task.name, form.name, made_with, play, task, form, str(folder / "model"), episodes, title)
    print(as_table(results, [task.name for task in tasks]))


def as_table(results: Results, tasks: list[str]) -> str:
    """:return: a row for each form, in Markdown."""
    rows = [f"| text | tokens | first token | {' | '.join(tasks)} |", "|---" * (3 + len(tasks)) + "|"]
    for form in FORMS:
        learned = results.found[form.name]
        shares = [f"{(results.of(task, form.name) or {})['success']:.2f}" for task in tasks]
        rows.append(
            f"| {form.name} | {learned['prompt_tokens']:.0f} | {learned['first_token_accuracy']:.2f} | "
            f"{' | '.join(shares)} |"
        )
    return "\n".join(rows)
