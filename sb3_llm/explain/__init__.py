"""Why a decision: probabilities beside the base model's, token by token, and which words of the text it hangs on."""

from sb3_llm.explain.attribution import Part, by_deletion, by_gradient
from sb3_llm.explain.explaining import Explanation, Phrase, explain
from sb3_llm.explain.parts import clauses, words

__all__ = ["Explanation", "Part", "Phrase", "by_deletion", "by_gradient", "clauses", "explain", "words"]
