"""
Scores of phrases after prompts, under a causal language model.

Knows no Stable-Baselines3 and no observation: strings in, log-probabilities and value features out. A score is the sum
of token log-probabilities of a continuation (separator + phrase + end mark if needed) given its prompt.
"""

from sb3_llm.scoring.memo import MemoScorer
from sb3_llm.scoring.normalization import NORMALIZATIONS, action_logits
from sb3_llm.scoring.packed import PackedScorer
from sb3_llm.scoring.probe import choose_scorer
from sb3_llm.scoring.reference import ReferenceScorer, Scorer, Scores
from sb3_llm.scoring.tokens import PromptTokenizer, resolve_continuations

__all__ = [
    "NORMALIZATIONS",
    "MemoScorer",
    "PackedScorer",
    "PromptTokenizer",
    "ReferenceScorer",
    "Scorer",
    "Scores",
    "action_logits",
    "choose_scorer",
    "resolve_continuations",
]
