"""Lines of the corpus that are no stories: how these worlds work, questions about that, and short dialogues."""

import numpy as np

from sb3_llm.pretrain.stories import Line
from sb3_llm.words.statements import dialogue, question, statements

CHINESE_SHARE = 0.3


def say(kind: str, rng: np.random.Generator) -> Line:
    """
    :param kind: "statements", "questions" or "dialogue"
    :param rng: the only source of randomness
    :return: one line
    """
    language = "zh" if rng.random() < CHINESE_SHARE else "en"
    if kind == "statements":
        return Line("", f"{statements(rng, language)}\n")
    if kind == "questions":
        asked, answer = question(rng, language)
        return Line(asked, f" {answer}\n")
    turns = dialogue(rng, language)
    return Line("\n".join(turns[:-1]), f"\n{turns[-1]}\n")
