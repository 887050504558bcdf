"""Training runs in folders: start, interrupt, resume; the same for the language model and for the MLP baseline."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.errors import SetupError
from sb3_llm.make import make_vec_env
from sb3_llm.numeric import make_numeric_env
from sb3_llm.policy import LLMPolicy

ALGORITHMS: dict[str, type[PPO] | type[A2C]] = {"ppo": PPO, "a2c": A2C}
POLICIES = ("llm", "mlp")

#: Settings that suit each pairing; SB3's own defaults are tuned for other tasks and networks. The language model's are
#: few large batches, since equal prompts in a batch cost one forward pass; the MLP's PPO settings
#: are torch-ac's for MiniGrid. What was tried stands in benchmarks/LOG.md; the A2C settings are untuned.
HYPERPARAMETERS: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "llm"): {"n_steps": 32, "batch_size": 256, "n_epochs": 3, "learning_rate": 1e-4, "ent_coef": 0.01},
    ("a2c", "llm"): {"n_steps": 8, "learning_rate": 1e-4, "ent_coef": 0.01, "use_rms_prop": False},
    ("ppo", "mlp"): {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01},
    ("a2c", "mlp"): {"n_steps": 8, "learning_rate": 7e-4, "ent_coef": 0.01},
}


@dataclass(frozen=True)
class Run:
    """Everything that a training run is made from; kept beside its model as ``run.json``."""

    env_id: str
    algorithm: str = "ppo"
    policy: str = "llm"
    model: str = "embedded"  # of the language model
    seed: int = 0
    n_envs: int = 16
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("algorithm", self.algorithm, tuple(ALGORITHMS))
        _check_choice("policy", self.policy, POLICIES)
        if self.n_envs < 1:
            raise SetupError(f"n_envs={self.n_envs}", "at least one environment", "pass --n-envs 16")

    def make_env(self, seed: int | None = None, n_envs: int | None = None) -> VecEnv:
        """:return: the run's environments, as text or as numbers; ``seed`` and ``n_envs`` are the run's by default."""
        n_envs, seed = n_envs or self.n_envs, self.seed if seed is None else seed
        if self.policy == "llm":
            return make_vec_env(self.env_id, n_envs, seed, **self.env_kwargs)
        return sb3_make_vec_env(lambda: make_numeric_env(self.env_id, **self.env_kwargs), n_envs, seed)

    def make_model(self, env: VecEnv, **settings: Any) -> BaseAlgorithm:
        """:return: an untrained SB3 model; ``settings`` of the algorithm take the place of the run's own."""
        chosen = HYPERPARAMETERS[self.algorithm, self.policy] | settings
        algorithm = ALGORITHMS[self.algorithm]
        if self.policy == "mlp":
            return algorithm("MlpPolicy", env, seed=self.seed, device="cpu", **chosen)
        return algorithm(LLMPolicy, env, seed=self.seed, policy_kwargs={"model": self.model}, **chosen)


def _check_choice(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise SetupError(f"{name} {given!r}", f"one of {', '.join(known)}", f"pass --{name} {known[0]}")


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its model."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model.zip"

    def save(self, run: Run, model: BaseAlgorithm) -> None:
        """Write the model and what it was made from. A kill while writing leaves the earlier model whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "run.json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
        fresh = self.path / "model.new.zip"
        model.save(fresh)
        fresh.replace(self.model)

    def load_run(self) -> Run:
        """
        :return: the run this folder belongs to
        :raises SetupError: if there is none to resume
        """
        try:
            return Run(**json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SetupError(
                f"no run to resume in {self.path} ({error})",
                "a folder that `sb3-llm train --out` wrote",
                "leave --resume out to start a new run there, or name the right folder with --out",
            ) from None


class SaveNowAndThen(BaseCallback):
    """
    Keep the folder's model fresh, so that a crash loses little.

    :param save: what to call
    :param every: environment steps between two saves
    """

    def __init__(self, save: Callable[[], None], every: int) -> None:
        super().__init__()
        self.save, self.every, self._next = save, every, every

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self.every

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self.save()
            self._next = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        return True


def train(
    run: Run,
    timesteps: int,
    folder: RunFolder,
    resume: bool = False,
    progress_bar: bool = True,
    callback: list[BaseCallback] | None = None,
    save_every: int = 10_000,
) -> tuple[BaseAlgorithm, bool]:
    """
    Train until ``timesteps``, or until Ctrl-C; the model is in the folder either way.

    :param run: what to train
    :param timesteps: environment steps in all, the resumed ones included
    :param folder: where the model goes
    :param resume: go on from the folder's model
    :param progress_bar: show SB3's
    :param callback: further callbacks
    :param save_every: environment steps between saves
    :return: the model, and whether it was trained to the end
    """
    env = run.make_env()
    model = load_model(folder.model, env, run.algorithm) if resume else run.make_model(env)
    callbacks = [SaveNowAndThen(lambda: folder.save(run, model), save_every), *(callback or [])]
    left = timesteps - model.num_timesteps
    try:
        if left > 0:
            model.learn(left, callback=callbacks, progress_bar=progress_bar, reset_num_timesteps=not resume)
        finished = True
    except KeyboardInterrupt:
        finished = False
    folder.save(run, model)
    return model, finished


def load_model(path: Path, env: VecEnv | None, algorithm: str | None = None, **load_options: Any) -> BaseAlgorithm:
    """
    Load a model that SB3 saved.

    :param path: the zip
    :param env: environments to go on with, or None
    :param algorithm: "ppo" or "a2c"; by default told from what the zip holds
    :param load_options: as SB3's ``load``
    :return: the model
    :raises SetupError: if there is no such file, or it is no model of a known algorithm
    """
    if not path.is_file():
        raise SetupError(f"the model {path}", "a zip file that exists", "check the path; `sb3-llm train` writes one")
    return ALGORITHMS[algorithm or algorithm_of(path)].load(path, env=env, **load_options)


def algorithm_of(path: Path) -> str:
    """
    :param path: a zip that SB3 saved; it does not name its algorithm, but only PPO's has ``n_epochs``
    :return: "ppo" or "a2c"
    :raises SetupError: if it is no such zip
    """
    try:
        data, _, _ = load_from_zip_file(path, load_data=True, device="cpu")
    except (ValueError, OSError, KeyError) as error:
        raise SetupError(f"{path}, which can't be read ({error})", "a zip that SB3 saved", "save it again") from None
    return "ppo" if data and "n_epochs" in data else "a2c"
