"""What a method costs: parameters, floating-point operations of a decision, memory."""

import resource
import sys
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: Any) -> dict[str, int]:
    """:return: how many numbers the policy has, and how many of them are trained."""
    own = list(model.policy.parameters())
    return {
        "parameters": sum(each.numel() for each in own),
        "trained": sum(each.numel() for each in own if each.requires_grad),
    }


@torch.no_grad()
def flops_per_decision(model: Any, env: VecEnv) -> float:
    """
    :param model: of SB3
    :param env: its observations are what is decided on
    :return: floating-point operations of the forward pass, a multiplication and an addition counting two, divided by
        the decisions that it makes; first observations, of which none was seen before
    """
    if hasattr(model.policy, "clear_memo"):
        model.policy.clear_memo()
    model.policy.set_training_mode(False)
    with FlopCounterMode(display=False) as counter:
        obs: Any = env.reset()  # where it makes vectors of texts, that counts too
        model.policy(model.policy.obs_to_tensor(obs)[0])
    return counter.get_total_flops() / env.num_envs


def peak_memory() -> float:
    """:return: MiB that this process had resident at most."""
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / 1024 / (1024 if sys.platform == "darwin" else 1)
