"""
RL Zoo's train for MaskablePPO, which is not among the algorithms it knows: here it is called ``ppo_mask``.

    python -m benchmarks.zoo.maskable --algo ppo_mask --env sb3_llm/Maze-v0 --gym-packages sb3_llm \
        --conf-file benchmarks/zoo/ppo_mask.yml --eval-freq -1 -f runs/zoo

``ALGOS`` is one dict that all of RL Zoo's programs share, so one entry more is enough, and nothing of RL Zoo's is
replaced. Its evaluation asks for no masks, and may play actions that a mask forbids: hence --eval-freq -1.
"""

from typing import Any

import gymnasium as gym
from rl_zoo3 import ALGOS
from rl_zoo3.train import train
from sb3_contrib import MaskablePPO
from sb3_contrib.common.wrappers import ActionMasker

from sb3_llm.benchmarks.suite.worlds import open_ways
from sb3_llm.zoo import text_observation


def mask_walls(env: gym.Env[Any, Any]) -> ActionMasker:
    """:return: a maze as text, with masks that allow what no wall blocks; ppo_mask.yml names this function."""
    return ActionMasker(text_observation(env), open_ways)


if __name__ == "__main__":
    ALGOS["ppo_mask"] = MaskablePPO
    train()
