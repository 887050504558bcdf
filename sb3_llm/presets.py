"""Settings to start from: SB3's own defaults are tuned for small networks that start from nothing."""

from typing import Any

from sb3_llm.errors import SetupError
from sb3_llm.finetune import read_tuning

SIZES = ("small", "large")
#: One epoch: with three, KeyCorridorS3R1 learnt less of the same steps in twice the time (benchmarks/LOG.md, "one epoch
#: in PPO's presets"). A rollout may hold no reward at all, and then normalised advantages are noise of the value head:
#: target_kl ends an update that would go far on it. Without it one update of three epochs took a success of .98 to .24
#: in LockedRoom ("target_kl in PPO's presets" there).
PPO = {"n_steps": 32, "batch_size": 256, "n_epochs": 1, "learning_rate": 1e-4, "ent_coef": 0.01, "target_kl": 0.02}
#: Few large batches, since equal prompts in a batch cost one forward pass. TRPO differentiates twice, for each tensor
#: by itself, through all its prompts at once: every eighth has to do.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": PPO,
    "a2c": {"n_steps": 8, "learning_rate": 1e-4, "ent_coef": 0.01, "use_rms_prop": False},
    "trpo": {
        "n_steps": 32,
        "sub_sampling_factor": 8,
        "cg_max_steps": 5,
        "batch_size": 256,
        "n_critic_updates": 3,
        "learning_rate": 1e-4,
        "target_kl": 0.03,
    },
    "maskable_ppo": PPO,
}
#: The language model's learning rate by tuning mode, as a multiple of the algorithm's, for a model of some 2 million
#: parameters: as good as any in the sweep of benchmarks/LOG.md ("learning rates by tuning mode").
SMALL = {"full": 1.0, "lora": 3.0, "top": 1.0, "head": 3.0}
#: But for whole models in PPO: at 1.0 the fifth embedded model loses again what it learnt (benchmarks/LOG.md, "the
#: fifth embedded model"), and near it with one epoch too ("one epoch in PPO's presets").
PPO_SMALL = SMALL | {"full": 0.3}
#: For hundreds of millions and more. Not measured here: 5e-6 for whole models and 1e-5 for adapters lie between what
#: GLAM (1e-6), TWOSOME (1e-6) and usual LoRA tuning (1e-4) take.
LARGE = {"full": 0.05, "lora": 0.1, "top": 0.05, "head": 0.1}


def presets(algorithm: str = "ppo", finetune: str | dict[str, Any] = "full", size: str = "small") -> dict[str, Any]:
    """
    Keywords of an algorithm and its policy, as a dict of your own to change.

    ``PPO(LLMPolicy, env, **presets("ppo", "lora"))``. Made for 16 environments side by side.

    :param algorithm: "ppo", "a2c", "trpo" or "maskable_ppo"
    :param finetune: a tuning mode, as :class:`~sb3_llm.LLMPolicy` takes it
    :param size: "small", for models of a few million parameters such as the embedded one, or "large"; the latter's
        learning rates were not measured by us
    :return: keywords
    :raises SetupError: for an unknown algorithm, mode or size
    """
    for name, given, choices in (("algorithm", algorithm, tuple(ALGORITHMS)), ("size", size, SIZES)):
        if given not in choices:
            raise SetupError(f"presets of {name}={given!r}", f"one of {', '.join(choices)}", f"write {choices[0]!r}")
    small = PPO_SMALL if "n_epochs" in ALGORITHMS[algorithm] else SMALL
    scale = (small if size == "small" else LARGE)[read_tuning(finetune).mode]
    policy_kwargs: dict[str, Any] = {"finetune": finetune, "lm_lr_scale": scale}
    if size == "large" and algorithm != "trpo":  # a fresh value head would push a good prior about at first
        policy_kwargs |= {"value_warmup": 2}
    if algorithm == "trpo":
        del policy_kwargs["lm_lr_scale"]  # the size of TRPO's step is set by its target_kl
    return {**ALGORITHMS[algorithm], "policy_kwargs": policy_kwargs}
