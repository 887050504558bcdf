"""Rewards: functions of the user, and parts to compose them of."""

from sb3_llm.rewards.checked import Reward, checked_reward
from sb3_llm.rewards.parts import Forbidden, Goal, Own, Part, Potential, Quality, RewardSum, StepCost

__all__ = [
    "Forbidden",
    "Goal",
    "Own",
    "Part",
    "Potential",
    "Quality",
    "Reward",
    "RewardSum",
    "StepCost",
    "checked_reward",
]
