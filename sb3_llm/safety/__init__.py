"""What keeps a policy within bounds: limits on cost, a log of what it would rather do, loading without foreign code."""

from sb3_llm.folder import pickles_in
from sb3_llm.pickles import Pickle
from sb3_llm.safety.costs import CostLimit
from sb3_llm.safety.loading import load_policy
from sb3_llm.safety.log import SafetyLog

__all__ = ["CostLimit", "Pickle", "SafetyLog", "load_policy", "pickles_in"]
