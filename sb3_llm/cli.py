"""The program ``sb3-llm``: train, evaluate, doctor, benchmark; and what the modules beside it add."""

import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm import doctor
from sb3_llm.benchmarks.suite.command import benchmark
from sb3_llm.cli_options import EnvArg, Finetune, PolicyArg, Seed, json_or_text, json_pairs, zip_and_env
from sb3_llm.cli_pretrain import add_pretraining
from sb3_llm.cli_watch import add_watch
from sb3_llm.core import LanguageModelCore
from sb3_llm.distributed import Ranks, RanksApart
from sb3_llm.errors import SetupError
from sb3_llm.evaluation import Evaluation, Masked, as_json, as_table, evaluate
from sb3_llm.instruct.playing import Speaker
from sb3_llm.make import make_vec_env
from sb3_llm.policy import LLMPolicy, MaskableLLMPolicy
from sb3_llm.safety.loading import load_policy, read_saved
from sb3_llm.spaces import PhraseSpace, TextSpace
from sb3_llm.training import ALGORITHMS, Run, RunFolder, TrainingStopped, load_model, train
from sb3_llm.watch import LivePage
from sb3_llm.watch.recording import maker_of

app = typer.Typer(
    help="Language models as policies for Stable-Baselines3.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DECODINGS = ("score", "generate", "constrained")
Player = BaseAlgorithm | LLMPolicy | MaskableLLMPolicy
EVALUATION_SEED = 10_000  # far from the seeds that training starts from


@app.command(
    "train",
    epilog="Example: sb3-llm train MiniGrid-DoorKey-5x5-v0 --timesteps 8000 --out runs/doorkey   (works offline)",
)
def train_command(
    env_id: Annotated[str, typer.Argument(metavar="ENV", help="A Gymnasium id with discrete actions.")],
    algorithm: Annotated[str, typer.Option(help=", ".join(ALGORITHMS))] = "ppo",
    policy: Annotated[str, typer.Option(help="llm, or mlp: the baseline on the same information as numbers")] = "llm",
    model: Annotated[str, typer.Option(help='"embedded", a local folder, or a hub name')] = "embedded",
    finetune: Finetune = None,
    timesteps: Annotated[int, typer.Option(help="Environment steps in all.", min=1)] = 20_000,
    seed: Seed = 0,
    n_envs: Annotated[int, typer.Option(help="Environments side by side.", min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="Folder for the model; runs/ENV-POLICY-SEED by default.")] = None,
    env_arg: EnvArg = None,
    policy_arg: PolicyArg = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A keyword of the algorithm, as name=JSON: n_steps=64")
    ] = None,
    save_every: Annotated[int, typer.Option(help="Environment steps between checkpoints.", min=1)] = Run.save_every,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Serve a page of sampled episodes while it trains.")] = False,
) -> None:
    """
    Train a policy. After Ctrl-C or a crash, --resume goes on from the last checkpoint.

    In several processes, each with its own environments: torchrun --nproc-per-node 2 -m sb3_llm train ENV ...
    """
    folder = RunFolder(out or Path("runs") / f"{env_id.replace('/', '_')}-{policy}-{seed}")
    policy_kwargs = json_pairs("--policy-arg", policy_arg)
    if finetune is not None:
        policy_kwargs["finetune"] = json_or_text(finetune)
    settings = json_pairs("--set", set_)
    env_kwargs = json_pairs("--env-arg", env_arg)
    run = Run(env_id, algorithm, policy, model, seed, n_envs, env_kwargs, policy_kwargs, settings, save_every)
    if resume:
        _require_same(folder.load_run(), run)
    elif folder.model.exists():
        raise SetupError(
            f"the folder {folder.path}, which holds a model already",
            "an empty folder, or a run to resume",
            "add --resume to go on, or name another folder with --out",
        )
    ranks, callbacks = Ranks.from_environment(), [SayWhatTrains(), *_live(run, live)]
    trained, finished = train(run, timesteps, folder, resume, callback=callbacks if ranks.chief else [])
    if ranks.chief:
        _report(trained.num_timesteps * ranks.size, finished, folder, run)
    if not finished:
        raise typer.Exit(130)


def _live(run: Run, live: bool) -> list[BaseCallback]:
    if live and run.policy != "llm":
        raise SetupError(f"--live with --policy {run.policy}", "a language model's policy", "leave --live out")
    return [LivePage(maker_of(run.env_id, **run.env_kwargs))] if live else []


class SayWhatTrains(BaseCallback):
    """Say once, before the first step, which parts of the policy are trained."""

    def _on_training_start(self) -> None:
        what_trains = getattr(self.model.policy, "what_trains", None)
        if what_trains is not None:
            typer.echo(what_trains())

    def _on_step(self) -> bool:
        return True


def _report(steps: int, finished: bool, folder: RunFolder, run: Run) -> None:
    arguments = shlex.join(arg for arg in sys.argv[2:] if arg != "--resume")
    typer.echo(f"{steps} steps done; the model is {folder.model}")
    if finished:
        typer.echo(f"See what it can do: sb3-llm evaluate {folder.model} {run.env_id}")
    else:
        typer.echo(f"Interrupted. To go on: sb3-llm train {arguments} --resume")


@app.command(
    "evaluate",
    epilog="Example: sb3-llm evaluate --model embedded MiniGrid-DoorKey-8x8-v0 --episodes 200   (works offline)",
)
def evaluate_command(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[MODEL.zip] ENV", help="What sb3-llm train saved, and an id.")
    ],
    model: Annotated[str | None, typer.Option(help="A language model as it is, without a zip: zero-shot.")] = None,
    episodes: Annotated[int, typer.Option(help="How many, for each of sampled and greedy.", min=1)] = 100,
    seed: Seed = EVALUATION_SEED,
    n_envs: Annotated[int, typer.Option(help="Environments side by side.", min=1)] = 16,
    env_arg: EnvArg = None,
    decode: Annotated[
        str, typer.Option(help="score: phrases; generate: also what the model writes; constrained: inside the phrases")
    ] = "score",
    safe: Annotated[bool, typer.Option("--safe", help="Unpickle nothing of the zip: for files of strangers.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Play whole episodes and report success (95 % interval), return, length and, where known, SPL."""
    path, env_id = zip_and_env(arguments, model)
    if decode not in DECODINGS:
        raise SetupError(f"--decode {decode}", f"one of {', '.join(DECODINGS)}", "leave it out")
    n_envs, env_kwargs = min(n_envs, episodes), json_pairs("--env-arg", env_arg)
    player: Player
    if model is not None:
        run = Run(env_id, model=model, seed=seed, n_envs=n_envs, env_kwargs=env_kwargs)
        env = run.make_env()
        player = run.make_model(env)
    else:
        player, env = load_player(Path(str(path)), env_id, n_envs, env_kwargs, safe)
    if decode != "score":
        _require_words(player)
    results = [_play(player, env, episodes, seed, greedy) for greedy in (False, True)]
    spoken: dict[str, Any] = {}
    if decode != "score":
        spoken, played = _speak(player, env, episodes, seed, decode == "constrained")
        results += played
    title = f"{model or path} on {env_id}"
    if as_json_:
        typer.echo(as_json(title, results, **({"instructions": spoken} if spoken else {})))
    else:
        Console().print(as_table(title, results))
        for name, figures in spoken.items():
            typer.echo(f"{name}: {_said(figures)}")


def load_player(path: Path, env_id: str, n_envs: int, env_kwargs: dict[str, Any], safe: bool) -> tuple[Player, VecEnv]:
    """:return: what plays, a whole model or, with ``safe``, a policy alone; and its environments."""
    if not safe:
        loaded = load_model(path, None)
        return loaded, environment_for(loaded, env_id, n_envs, env_kwargs)
    saved = read_saved(path)
    if saved.max_bytes is None:
        env = sb3_make_vec_env(env_id, n_envs, env_kwargs=env_kwargs)
    else:
        env = make_vec_env(env_id, n_envs, phrases=saved.phrases, max_bytes=saved.max_bytes, **env_kwargs)
    return load_policy(path, env), env


def _speak(
    model: Player, env: VecEnv, episodes: int, seed: int, constrained: bool
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Episodes by what the model writes, and what was understood of it."""
    policy: Any = getattr(model, "policy", model)
    spoken, results = {}, []
    for greedy in (False, True):
        speaker: Any = Speaker(policy, constrained, seed)
        found = _play(speaker, env, episodes, seed, greedy)
        name = f"{'constrained' if constrained else 'written'}, {found.policy}"
        results.append(replace(found, policy=name))
        spoken[name] = {
            "instructions": speaker.understood.total(),
            "not understood": speaker.not_understood,
            "understood": dict(speaker.understood),
            "perplexity under the base model": speaker.fluency(policy.base_lm()),
        }
    return spoken, results


def _require_words(model: Player) -> None:
    policy = getattr(model, "policy", model)
    if not isinstance(policy, LanguageModelCore):
        what = f"--decode with {type(policy).__name__}"
        raise SetupError(what, "a policy that is a language model", "leave --decode out")


def _said(figures: dict[str, Any]) -> str:
    ways = ", ".join(f"{count} {how}" for how, count in figures["understood"].items())
    fluency = figures["perplexity under the base model"]
    return f"{figures['instructions']} instructions ({ways}), perplexity {fluency:.2f} under the base model"


def environment_for(model: BaseAlgorithm, env_id: str, n_envs: int, env_kwargs: dict[str, Any]) -> VecEnv:
    """:return: environments in the form a loaded model reads: text and its own phrases, raw numbers, or one-hot."""
    space, actions = model.observation_space, model.action_space
    if isinstance(space, TextSpace) and isinstance(actions, PhraseSpace):
        return make_vec_env(env_id, n_envs, phrases=actions.phrases, max_bytes=space.max_bytes, **env_kwargs)
    if isinstance(model.policy, LLMPolicy | MaskableLLMPolicy):
        return sb3_make_vec_env(env_id, n_envs, env_kwargs=env_kwargs)
    return Run(env_id, policy="mlp", n_envs=n_envs, env_kwargs=env_kwargs).make_env()


def _play(model: Player, env: VecEnv, episodes: int, seed: int, greedy: bool) -> Evaluation:
    env.seed(seed)
    set_random_seed(seed)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("greedy" if greedy else "sampled", total=episodes)
        knows_masks = isinstance(getattr(model, "policy", model), MaskableActorCriticPolicy)
        masked = knows_masks and env.has_attr("action_masks")
        player: Any = Masked(model, env) if masked else model
        return evaluate(player, env, episodes, greedy, on_episode=lambda: progress.advance(task))


@app.command(
    "doctor",
    epilog="Example: sb3-llm doctor MiniGrid-DoorKey-5x5-v0 --finetune lora   (works offline)",
)
def doctor_command(
    env_id: Annotated[
        str, typer.Argument(metavar="ENV", help="A Gymnasium id with discrete actions.")
    ] = "sb3_llm/Maze-v0",
    model: Annotated[str, typer.Option(help='"embedded", a local folder, or a hub name')] = "embedded",
    algorithm: Annotated[str, typer.Option(help=", ".join(ALGORITHMS))] = "ppo",
    finetune: Finetune = None,
    env_arg: EnvArg = None,
    policy_arg: PolicyArg = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Look for what fails without an error, in this model and environment. Exit code 1 if a check fails."""
    policy_kwargs = json_pairs("--policy-arg", policy_arg)
    if finetune is not None:
        policy_kwargs["finetune"] = json_or_text(finetune)
    findings = doctor.run(env_id, model, algorithm, json_pairs("--env-arg", env_arg), **policy_kwargs)
    if as_json_:
        typer.echo(doctor.as_json(findings))
    else:
        Console().print(doctor.as_table(findings, f"{model} on {env_id}"))
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)


app.command("benchmark", epilog="Example: sb3-llm benchmark --suite quick   (works offline)")(benchmark)
add_watch(app)
add_pretraining(app)


def _require_same(found: Run, asked: Run) -> None:
    differing = [name for name, value in asdict(found).items() if getattr(asked, name) != value]
    if differing:
        was, now = ({name: getattr(run, name) for name in differing} for run in (found, asked))
        raise SetupError(f"{now} for a run that was started with {was}", "the same settings", "resume it as it was")


def main() -> None:
    """Run the program; what the user can mend is one sentence, without a traceback."""
    try:
        app()
    except (SetupError, TrainingStopped, RanksApart) as error:
        ranks = Ranks.from_environment()
        who = f"sb3-llm, process {ranks.rank} of {ranks.size}" if ranks.size > 1 else "sb3-llm"
        Console(stderr=True).print(f"{who}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        code = 2 if isinstance(error, SetupError) else 1
        if ranks.size > 1:  # torch's own end could wait for a process that is gone
            sys.stderr.flush()
            os._exit(code)
        raise SystemExit(code) from None
