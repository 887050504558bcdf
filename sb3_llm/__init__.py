"""Language models as policies for Stable-Baselines3. Importing this registers the project's environments."""

from sb3_llm.callbacks import PolicyWatch
from sb3_llm.diary import Diary
from sb3_llm.envs import register_envs
from sb3_llm.errors import SetupError
from sb3_llm.export import export
from sb3_llm.make import make_env, make_vec_env
from sb3_llm.policy import LLMPolicy, MaskableLLMPolicy
from sb3_llm.presets import presets
from sb3_llm.safety import CostLimit, SafetyLog, load_policy
from sb3_llm.spaces import PhraseSpace, TextSpace
from sb3_llm.wrappers import TextObservation

register_envs()

__all__ = [
    "CostLimit",
    "Diary",
    "LLMPolicy",
    "MaskableLLMPolicy",
    "PhraseSpace",
    "PolicyWatch",
    "SafetyLog",
    "SetupError",
    "TextObservation",
    "TextSpace",
    "export",
    "load_policy",
    "make_env",
    "make_vec_env",
    "presets",
]
