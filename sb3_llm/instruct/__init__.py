"""Instructions: the model writes freely or inside its phrases, and what it wrote is parsed into actions."""

from sb3_llm.instruct.asking import Limits, instruct
from sb3_llm.instruct.generating import MAX_TOKENS, Written, write
from sb3_llm.instruct.instruction import Instruction, as_chosen, as_parsed
from sb3_llm.instruct.parsing import Parsed, Parser

__all__ = [
    "MAX_TOKENS",
    "Instruction",
    "Limits",
    "Parsed",
    "Parser",
    "Written",
    "as_chosen",
    "as_parsed",
    "instruct",
    "write",
]
