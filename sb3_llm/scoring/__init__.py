"""
Scores of phrases after prompts, under a causal language model.

Knows no Stable-Baselines3 and no observation: strings in, log-probabilities and value features out. A score is the sum
of token log-probabilities of a continuation (separator + phrase + end mark if needed) given its prompt. Routes
(reference, packed, cache, rows) work on token ids; the engine before them tokenises, asks each distinct question once
and remembers answers.
"""

from sb3_llm.scoring.continuations import Continuations
from sb3_llm.scoring.engine import PhraseScorer, PhraseScores
from sb3_llm.scoring.fallback import CachedScorer, PlainRowsScorer
from sb3_llm.scoring.normalization import NORMALIZATIONS, action_logits
from sb3_llm.scoring.packed import PackedScorer
from sb3_llm.scoring.probe import choose_scorer
from sb3_llm.scoring.reference import ReferenceScorer
from sb3_llm.scoring.rows import Row, Scorer, Scores
from sb3_llm.scoring.tokens import PromptTokenizer

__all__ = [
    "NORMALIZATIONS",
    "CachedScorer",
    "Continuations",
    "PackedScorer",
    "PhraseScorer",
    "PhraseScores",
    "PlainRowsScorer",
    "PromptTokenizer",
    "ReferenceScorer",
    "Row",
    "Scorer",
    "Scores",
    "action_logits",
    "choose_scorer",
]
