"""What comes before RL, on the command line: ``sb3-llm pretrain`` and ``sb3-llm record``."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from minigrid.minigrid_env import MiniGridEnv

from sb3_llm.cli_options import EnvArg, Finetune, Seed, json_or_text, json_pairs
from sb3_llm.demos import clone, expert_for, play, record
from sb3_llm.errors import SetupError
from sb3_llm.make import make_env
from sb3_llm.pretrain.corpus import check_folder, read_manifest, write_corpus
from sb3_llm.pretrain.correct import correct
from sb3_llm.pretrain.publish import publish
from sb3_llm.pretrain.settings import PretrainConfig, check_config, check_device, claim, config_for
from sb3_llm.pretrain.train import pretrain

LINES, PROCESSES = 200_000, 2
EPISODES = 100
EXPERTS = ("planner", "bot", "keyboard")

Count = int | None  # None: not given, so that what does not belong together is noticed


def add_pretraining(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(
        "pretrain",
        epilog="Examples: sb3-llm pretrain --out runs/pretrain --lines 3000 --steps 50 --layers 2 --hidden 64 --heads 2"
        "   or   sb3-llm pretrain --from-demos demos.jsonl --out runs/clone   (both work offline)",
    )(pretrain_command)
    app.command(
        "record",
        epilog="Example: sb3-llm record BabyAI-GoToLocal-v0 --out demos.jsonl --episodes 50   (works offline)",
    )(record_command)


def pretrain_command(
    out: Annotated[Path, typer.Option(help="Folder for corpus, resumable state and model.")],
    lines: Annotated[Count, typer.Option(help=f"Lines of the corpus; {LINES} by default.")] = None,
    steps: Annotated[Count, typer.Option(help=f"Training steps; {PretrainConfig.steps} by default.")] = None,
    seed: Seed = 0,
    processes: Annotated[Count, typer.Option(help=f"Processes that tell stories; {PROCESSES} by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
    precision: Annotated[str | None, typer.Option(help="Of the matrix products: float32 or bfloat16")] = None,
    corpus: Annotated[Path | None, typer.Option(help="A corpus that is there already, instead of OUT/corpus.")] = None,
    hidden: Annotated[Count, typer.Option(help=f"Width; {PretrainConfig.hidden_size} by default.")] = None,
    layers: Annotated[Count, typer.Option(help=f"How many; {PretrainConfig.layers} by default.")] = None,
    heads: Annotated[Count, typer.Option(help=f"Of attention; {PretrainConfig.heads} by default.")] = None,
    vocab: Annotated[Count, typer.Option(help=f"Tokens, at most; {PretrainConfig.vocab_size} by default.")] = None,
    from_demos: Annotated[
        Path | None, typer.Option(help="Tune a model on demonstrations instead, as sb3-llm record writes them.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --from-demos: embedded, a folder or a hub name.")] = None,
    epochs: Annotated[Count, typer.Option(help="With --from-demos: how often each line is read.")] = None,
    lr: Annotated[float | None, typer.Option(help="With --from-demos: the largest learning rate.")] = None,
    finetune: Finetune = None,
) -> None:
    """
    Make the embedded model from nothing: tell the stories, learn the words, train. Or tune one on demonstrations.

    After Ctrl-C or a kill, the same command goes on.
    """
    shape = {"precision": precision, "hidden": hidden, "layers": layers, "heads": heads, "vocab": vocab}
    making = given({"lines": lines, "steps": steps, "processes": processes, "corpus": corpus, **shape})
    cloning = given({"model": model, "epochs": epochs, "lr": lr, "finetune": finetune})
    if from_demos is not None:
        _refuse(making, "with --from-demos, which makes no corpus")
        _clone(from_demos, out, seed, device, cloning)
    else:
        _refuse(cloning, "without --from-demos FILE")
        _make(out, seed, device, making)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """:return: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: dict[str, Any], where: str) -> None:
    if options:
        named = ", ".join(f"--{name}" for name in options)
        raise SetupError(f"{named} {where}", "options that belong together", "see sb3-llm pretrain --help")


def _make(out: Path, seed: int, device: str, options: dict[str, Any]) -> None:
    processes, corpus = options.pop("processes", PROCESSES), options.pop("corpus", None)
    told = None if corpus is None else read_manifest(corpus)
    lines = options.pop("lines", LINES if told is None else told["asked"])
    for name, value in (("lines", lines), ("processes", processes)):
        if value < 1:
            raise SetupError(f"--{name} {value}", "a whole number, 1 or more", f"leave --{name} out")
    config = config_for(lines, seed=seed, **options)
    check_config(config, lines)
    device = check_device(device)
    check_folder(corpus or out / "corpus", lines, seed if told is None else told["seed"])
    _require_ours(out)
    claim(out, {"lines": lines, "seed": seed, "config": asdict(config)})
    with interruptible("What was told and trained so far is kept."):
        if corpus is None:
            corpus = out / "corpus"
            write_corpus(corpus, lines, seed, processes)
        lm, tokenizer, report = pretrain(corpus, config, out, device)
        report = correct(lm, tokenizer, report, corpus, config, out, device)
        publish(out / "model", lm, tokenizer, read_manifest(corpus), report)
    typer.echo(json.dumps({name: report[name] for name in report if name != "config"}, indent=1))
    typer.echo(f"The model is {out / 'model'}: sb3-llm evaluate --model {out / 'model'} MiniGrid-DoorKey-8x8-v0")


def _require_ours(out: Path) -> None:
    """A model in the folder is this training's, or nobody knows whose."""
    if (out / "model").exists() and not (out / "pretraining.json").exists():
        raise SetupError(
            f"{out}, which holds a model that no training there has made",
            "a new folder, or one of an interrupted training",
            "name another folder with --out",
        )


def _clone(demos: Path, out: Path, seed: int, device: str, options: dict[str, Any]) -> None:
    model = options.pop("model", "embedded")
    if "finetune" in options:
        options["finetune"] = json_or_text(options["finetune"])
    with interruptible("The last state is kept."):
        report = clone(model, demos, out, seed=seed, device=device, **options)
    typer.echo(json.dumps(asdict(report), indent=1, ensure_ascii=False))
    typer.echo(f"The model is {out}: policy_kwargs={report.policy_kwargs}")


def record_command(
    env_id: Annotated[str, typer.Argument(metavar="ENV", help="A Gymnasium id with discrete actions.")],
    out: Annotated[Path, typer.Option(help="File of demonstrations; what it holds stays.")],
    episodes: Annotated[
        Count, typer.Option(help=f"How many to play; {EPISODES} by default, by hand until you quit.")
    ] = None,
    expert: Annotated[
        str,
        typer.Option(
            help="planner: of mazes, MiniGrid and BabyAI worlds, knows no more than the agent; bot: BabyAI's, knows "
            "the whole level; keyboard: you, in any environment",
        ),
    ] = EXPERTS[0],
    seed: Seed = 0,
    keep_failures: Annotated[bool, typer.Option("--keep-failures", help="Keep unsolved episodes too.")] = False,
    env_arg: EnvArg = None,
) -> None:
    """Let an expert play, or play yourself, and keep each decision for sb3-llm pretrain --from-demos."""
    if expert not in EXPERTS:
        raise SetupError(f"--expert {expert}", f"one of {', '.join(EXPERTS)}", f"leave it out for {EXPERTS[0]}")
    if episodes is not None and episodes < 1:
        raise SetupError(f"--episodes {episodes}", "a whole number, 1 or more", "leave --episodes out")
    env_kwargs = json_pairs("--env-arg", env_arg)
    env = make_env(env_id, **env_kwargs)
    if expert == "keyboard" and "ansi" in env.metadata.get("render_modes", ()):
        env = make_env(env_id, **{"render_mode": "ansi"} | env_kwargs)
    if expert == "bot" and not isinstance(env.unwrapped, MiniGridEnv):
        raise SetupError(f"the BabyAI bot in {env_id}", "a BabyAI level", "leave --expert out")
    if expert == "keyboard":
        play(env, out, episodes, seed, keep_failures)
        return
    with interruptible("Finished episodes are kept; the same command adds as many again."):
        found = record(
            env, expert_for(env, expert == "bot"), episodes or EPISODES, seed, out, keep_failures=keep_failures
        )
    typer.echo(f"{found.kept} episodes kept, {found.lines} lines: {found.path}")
    typer.echo(
        f"{found.failed} without success, {found.hung} in which the expert hung, {found.broken} in which it broke"
    )
    typer.echo(f"Teach a model by them: sb3-llm pretrain --from-demos {found.path} --out runs/clone")


@contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Ctrl-C ends the program with what to type to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. {kept} To go on: sb3-llm {shlex.join(sys.argv[1:])}")
        raise typer.Exit(130) from None
