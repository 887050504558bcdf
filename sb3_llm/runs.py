"""What a training run is made from, and the checks that refuse what can't work before anything is trained."""

import inspect
from dataclasses import dataclass, field
from typing import Any

from sb3_contrib import TRPO, MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.errors import SetupError
from sb3_llm.make import make_vec_env
from sb3_llm.numeric import make_numeric_env
from sb3_llm.policy import LLMPolicy, MaskableLLMPolicy
from sb3_llm.presets import ALGORITHMS as PRESETS
from sb3_llm.presets import presets

ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"ppo": PPO, "a2c": A2C, "trpo": TRPO, "maskable_ppo": MaskablePPO}
POLICIES = ("llm", "mlp")

#: Settings that suit each pairing; SB3's own defaults are tuned for other tasks and networks. The language model's are
#: its presets, the MLP's of PPO are torch-ac's for MiniGrid, those of A2C and TRPO are untuned.
HYPERPARAMETERS: dict[tuple[str, str], dict[str, Any]] = {
    **{(algorithm, "llm"): settings for algorithm, settings in PRESETS.items()},
    ("ppo", "mlp"): {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01},
    ("a2c", "mlp"): {"n_steps": 8, "learning_rate": 7e-4, "ent_coef": 0.01},
    ("trpo", "mlp"): {"n_steps": 128, "batch_size": 256, "learning_rate": 1e-3},
}
HYPERPARAMETERS["maskable_ppo", "mlp"] = HYPERPARAMETERS["ppo", "mlp"]

#: Keywords of the algorithms that a run has its own words for, or that no JSON value can say.
NOT_SETTINGS = {"self", "policy", "env", "policy_kwargs", "seed", "_init_setup_model"} | {
    f"rollout_buffer_{part}" for part in ("class", "kwargs")
}
WHOLE = {"n_steps", "batch_size", "n_epochs", "n_critic_updates", "cg_max_steps", "line_search_max_iter"}
NUMBERS = {"learning_rate", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "clip_range", "target_kl"}


@dataclass(frozen=True)
class Run:
    """Everything that a training run is made from; kept beside its model as ``run.json``."""

    env_id: str
    algorithm: str = "ppo"
    policy: str = "llm"
    model: str = "embedded"  # of the language model
    seed: int = 0
    n_envs: int = 16  # of each process
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # further keywords of the policy, such as finetune
    settings: dict[str, Any] = field(default_factory=dict)  # keywords of the algorithm that replace HYPERPARAMETERS
    save_every: int = 10_000  # environment steps between checkpoints

    def __post_init__(self) -> None:
        _check_choice("algorithm", self.algorithm, tuple(ALGORITHMS))
        _check_choice("policy", self.policy, POLICIES)
        for name, mend in (("n_envs", 16), ("save_every", 10_000)):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise SetupError(f"{name}={getattr(self, name)}", "1 or more", f"pass --{option} {mend}")
        _check_names("policy keyword", self.policy_kwargs, self._policy_keywords())
        _check_settings(self.settings, ALGORITHMS[self.algorithm])
        _check_batches(self)

    @property
    def policy_class(self) -> type | str:
        """:return: what the algorithm gets as its policy."""
        if self.policy == "mlp":
            return "MlpPolicy"
        return MaskableLLMPolicy if self.algorithm == "maskable_ppo" else LLMPolicy

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """:return: the algorithm's keywords that differ from SB3's defaults."""
        return HYPERPARAMETERS[self.algorithm, self.policy] | self.settings

    def make_env(self, seed: int | None = None, n_envs: int | None = None) -> VecEnv:
        """:return: the run's environments, as text or as numbers; ``seed`` and ``n_envs`` are the run's by default."""
        n_envs, seed = n_envs or self.n_envs, self.seed if seed is None else seed
        if self.policy == "llm":
            return make_vec_env(self.env_id, n_envs, seed, **self.env_kwargs)
        return sb3_make_vec_env(lambda: make_numeric_env(self.env_id, **self.env_kwargs), n_envs, seed)

    def make_model(self, env: VecEnv, **settings: Any) -> OnPolicyAlgorithm:
        """
        :param env: the run's environments
        :param settings: keywords of the algorithm that take the place of the run's own
        :return: an untrained SB3 model
        :raises SetupError: if MaskablePPO gets environments without masks, or the algorithm refuses a setting
        """
        if self.algorithm == "maskable_ppo" and not is_masking_supported(env):
            raise _no_masks(self.env_id)
        device = {"device": "cpu"} if self.policy == "mlp" else {}
        chosen = device | self.hyperparameters | settings
        policy_kwargs, algorithm = self._policy_kwargs(), ALGORITHMS[self.algorithm]
        try:
            return algorithm(self.policy_class, env, seed=self.seed, policy_kwargs=policy_kwargs, **chosen)
        except (AssertionError, TypeError) as error:  # SB3's own way of saying that an argument is wrong
            given = f"{self.algorithm} with {chosen}, policy_kwargs={policy_kwargs}: {error}"
            raise SetupError(given, "settings that it takes", "see its page in SB3's documentation") from error

    def _policy_keywords(self) -> set[str] | None:
        """What the policy takes beside spaces, model and schedule; None if it checks the names itself."""
        policy = self.policy_class
        if isinstance(policy, str):
            policy = ALGORITHMS[self.algorithm].policy_aliases[policy]
        parameters = inspect.signature(policy).parameters
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            return None
        return set(parameters) - {"observation_space", "action_space", "lr_schedule", "model", "use_sde"}

    def _policy_kwargs(self) -> dict[str, Any]:
        """A dict of its own, for A2C writes its optimizer into what it is given."""
        if self.policy == "mlp":
            return dict(self.policy_kwargs)
        preset: dict[str, Any] = {}
        if self.model == "embedded":  # of no other model is the size known before it is loaded
            preset = presets(self.algorithm, self.policy_kwargs.get("finetune", "full"))["policy_kwargs"]
        return preset | {"model": self.model} | self.policy_kwargs


def _check_choice(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise SetupError(f"{name} {given!r}", f"one of {', '.join(known)}", f"pass --{name} {known[0]}")


def _check_names(what: str, given: dict[str, Any], known: set[str] | None) -> None:
    unknown = sorted(set(given) - known) if known is not None else []
    if unknown:
        raise SetupError(f"the {what} {unknown[0]!r}", f"one of {', '.join(sorted(known or ()))}", "check the spelling")


def _check_settings(given: dict[str, Any], algorithm: type[OnPolicyAlgorithm]) -> None:
    """Names and plain mistakes in values; the rest is the algorithm's to refuse."""
    parameters = inspect.signature(algorithm.__init__).parameters
    _check_names(f"setting of {algorithm.__name__}", given, set(parameters) - NOT_SETTINGS)
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None and parameters[name].default is None:
            continue
        if name in WHOLE and not (number and isinstance(value, int) and value >= 1):
            raise SetupError(f"{name}={value!r}", "a whole number, 1 or more", f"pass --set {name}=64")
        if name in NUMBERS and not (number and 0 <= value < float("inf")):
            raise SetupError(f"{name}={value!r}", "a number, 0 or more", f"pass --set {name}=0.1")


def _check_batches(run: Run) -> None:
    """A batch of one has no standard deviation: its normalised advantage is NaN, and so are all weights after it."""
    parameters = inspect.signature(ALGORITHMS[run.algorithm].__init__).parameters
    chosen = {name: each.default for name, each in parameters.items()} | run.hyperparameters
    if not chosen["normalize_advantage"]:
        return
    rollout = chosen["n_steps"] * run.n_envs
    size = chosen.get("batch_size") or rollout
    given = f"n_steps * n_envs = {chosen['n_steps']} * {run.n_envs} = {rollout}"
    part = chosen.get("sub_sampling_factor", 1)  # TRPO takes every so-manieth step
    if part > 1:
        rollout, given = -(-rollout // part), f"{given}, sub_sampling_factor={part}"
    # PPO leaves a remainder of one as it is; MaskablePPO divides it by its standard deviation. TRPO and A2C normalise
    # the whole rollout.
    one = rollout == 1 or (run.algorithm in ("ppo", "maskable_ppo") and size == 1)
    if one or (run.algorithm == "maskable_ppo" and rollout % size == 1):
        raise SetupError(
            f"a minibatch of one step ({given}, batch_size={size}) with normalize_advantage, which makes it NaN",
            "minibatches of two steps or more",
            "change --n-envs, --set n_steps=... or --set batch_size=..., or pass --set normalize_advantage=false",
        )


def _no_masks(env_id: str) -> SetupError:
    return SetupError(
        f"maskable_ppo on {env_id}, which has no action_masks()",
        "an environment with a method action_masks() that says which actions are possible now",
        "give it one (or sb3_contrib's ActionMasker, or make_env's candidates=), or pass --algorithm ppo",
    )
