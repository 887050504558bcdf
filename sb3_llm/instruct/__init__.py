"""Instructions: the model writes freely or inside its phrases, and what it wrote is parsed into actions."""

from sb3_llm.instruct.generating import Written, write
from sb3_llm.instruct.instruction import Instruction, as_chosen, as_parsed
from sb3_llm.instruct.parsing import Parsed, Parser

__all__ = ["Instruction", "Parsed", "Parser", "Written", "as_chosen", "as_parsed", "write"]
