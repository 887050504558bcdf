"""
RL Zoo's configuration as Python: ``--conf-file benchmarks/zoo/ppo.py``, otherwise as ppo.yml says.

It can do what YAML can't: share the settings of ``sb3-llm train``, and compute. Policy and wrapper are dotted paths
here too: RL Zoo 2.9 looks for a "." in the policy's name, and takes only classes and paths as wrappers.
"""

from typing import Any

from sb3_llm.presets import presets
from sb3_llm.training import HYPERPARAMETERS, Run

default: dict[str, Any] = {
    **HYPERPARAMETERS["ppo", "llm"],
    "env_wrapper": "sb3_llm.zoo.text_observation",
    "policy": "sb3_llm.LLMPolicy",
    "policy_kwargs": presets("ppo")["policy_kwargs"] | {"model": "embedded"},
    "n_envs": Run.n_envs,
    "n_timesteps": 8_192,
}

#: RL Zoo changes these in place, so each environment has a dict of its own.
hyperparams: dict[str, dict[str, Any]] = {
    "default": {**default},
    "sb3_llm/Maze-v0": {**default, "env_kwargs": {"split": "train"}},
    "MiniGrid-DoorKey-5x5-v0": {
        **default,
        "policy_kwargs": presets("ppo", "top:3")["policy_kwargs"] | {"model": "embedded"},
    },
}
