"""``sb3-llm watch``: episodes in the terminal, as a page, as a film, or served with a box to try other texts."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from sb3_llm.cli_options import EnvArg, Seed, json_pairs, zip_and_env
from sb3_llm.core import LanguageModelCore
from sb3_llm.errors import SetupError
from sb3_llm.folder import load_model, write_text
from sb3_llm.make import make_env
from sb3_llm.runs import Run
from sb3_llm.spaces import PhraseSpace, TextSpace
from sb3_llm.watch import Replay, as_page, record
from sb3_llm.watch.film import save_film
from sb3_llm.watch.recording import maker_of
from sb3_llm.watch.serving import Server
from sb3_llm.watch.terminal import show

WATCH_SEED = 20_000  # far from those of training and of sb3-llm evaluate


def add_watch(app: typer.Typer) -> None:
    """Add the command to the program."""
    epilog = "Example: sb3-llm watch --model embedded MiniGrid-DoorKey-6x6-v0 --html replay.html   (works offline)"
    app.command("watch", epilog=epilog)(watch_command)


def watch_command(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[MODEL.zip] ENV", help="What sb3-llm train saved, and an id.")
    ],
    model: Annotated[str | None, typer.Option(help="A language model as it is, without a zip: zero-shot.")] = None,
    episodes: Annotated[int, typer.Option(help="How many.", min=1)] = 5,
    seed: Seed = WATCH_SEED,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest action.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one page that a browser opens without a network.")] = None,
    film: Annotated[Path | None, typer.Option(help="Write the frames as a .gif or .mp4.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Serve the page here, with a box to try texts.")] = False,
    port: Annotated[int, typer.Option(help="Of --live; 0 takes any that is free.", min=0, max=65535)] = 0,
    env_arg: EnvArg = None,
) -> None:
    """Play episodes and show every decision: text with its weight, both models' probabilities, value, reward."""
    path, env_id = zip_and_env(arguments, model)
    frames = html is not None or film is not None or live
    policy, make = _policy_and_world(env_id, path, model, json_pairs("--env-arg", env_arg), frames)
    start = time.monotonic()
    replay = _record(policy, make, range(seed, seed + episodes), f"{model or path} on {env_id}", greedy)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_text(html, as_page(replay))
        typer.echo(f"The page is {html}: {_speed(replay, time.monotonic() - start)}")
    if film is not None:
        save_film(replay, film)
        typer.echo(f"The film is {film}")
    if live:
        _serve(replay, policy, make, port)
    elif not frames:
        show(replay, Console())


def _speed(replay: Replay, seconds: float) -> str:
    steps = sum(len(episode.steps) for episode in replay.episodes)
    return f"{steps} decisions, {steps / max(seconds, 1e-9):.1f} a second"


def _policy_and_world(
    env_id: str, path: str | None, model: str | None, env_kwargs: dict[str, Any], frames: bool
) -> tuple[Any, Callable[[], Any]]:
    maker = maker_of if frames else partial(partial, make_env)
    if model is not None:
        run = Run(env_id, model=model, n_envs=1, env_kwargs=env_kwargs)
        return run.make_model(run.make_env()).policy, maker(env_id, **env_kwargs)
    loaded = load_model(Path(str(path)), None)
    policy, space, actions = loaded.policy, loaded.observation_space, loaded.action_space
    if not (
        isinstance(policy, LanguageModelCore) and isinstance(space, TextSpace) and isinstance(actions, PhraseSpace)
    ):
        raise SetupError(f"{path}, a model of {type(policy).__name__}", "a language model's policy", "train one")
    told: dict[str, Any] = {"max_bytes": space.max_bytes}
    if isinstance(actions, PhraseSpace):
        told["phrases"] = actions.phrases
    return policy, maker(env_id, **told, **env_kwargs)


def _record(policy: Any, make: Callable[[], Any], seeds: range, title: str, greedy: bool) -> Replay:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("decisions", total=None)
        return record(policy, make, seeds, title, greedy, on_step=lambda n: progress.advance(bar, n))


def _serve(replay: Replay, policy: Any, make: Callable[[], Any], port: int) -> None:
    phrases = None if policy.phrases else [phrase.text for phrase in replay.episodes[0].steps[0].why.phrases]
    server = Server(lambda: replay, policy, phrases, port)
    typer.echo(f"Open {server.url}   (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("Ended.")
    finally:
        server.server_close()
