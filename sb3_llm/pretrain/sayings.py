"""Lines of the corpus that are no stories: how these worlds work, questions about that, lists, dialogues and talks."""

import numpy as np

from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.envs.dialogue import BOOK, DialogueEnv
from sb3_llm.pretrain.lists import listed
from sb3_llm.pretrain.sources import LISTS
from sb3_llm.pretrain.stories import Line, exchange
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.statements import dialogue, question, statements
from sb3_llm.words.wording import default_wording, draw_wording

CHINESE_SHARE = 0.3  # of the sayings, but for lists, which are all English
DRAWN_SHARE = 0.5  # of the reworded lists; the others are canonical


def say(kind: str, rng: np.random.Generator) -> Line:
    """
    :param kind: "lists", "reworded", "statements", "questions", "dialogue" or "talks"
    :param rng: the only source of randomness
    :return: one line
    """
    if kind == LISTS:
        return listed(rng, default_wording())
    language = "zh" if rng.random() < CHINESE_SHARE else "en"
    if kind == "statements":
        return Line("", f"{statements(rng, language)}\n")
    if kind == "questions":
        asked, answer = question(rng, language)
        return Line(asked, f" {answer}\n")
    if kind == "reworded":
        return listed(rng, draw_wording(rng, language) if rng.random() < DRAWN_SHARE else default_wording(language))
    if kind == "talks":
        return talk(rng, language)
    turns = dialogue(rng, language)
    return Line("\n".join(turns[:-1]), f"\n{turns[-1]}\n")


def talk(rng: np.random.Generator, language: str) -> Line:
    """
    :param rng: draws the user and the acts, and how many there were
    :param language: "en" or "zh"
    :return: a moment of a talk in which all acts are random: its words, but not what to say
    """
    env = DialogueEnv(language=language)
    obs, _ = env.reset(seed=int(rng.integers(2**31)))
    for act in rng.integers(BOOK, size=int(rng.integers(env.max_turns))).tolist():
        obs = env.step(act)[0]
    act = int(rng.integers(len(env.phrases)))
    return Line(*exchange(DEFAULT_TEMPLATE, describe_dialogue(obs, language), env.phrases[act]))
