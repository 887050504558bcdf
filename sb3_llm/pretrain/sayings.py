"""Lines of the corpus that are no stories: how these worlds work, questions about that, lists, dialogues and talks."""

import numpy as np

from sb3_llm.describe.dialogue import describe_dialogue
from sb3_llm.envs.dialogue import BOOK, DialogueEnv
from sb3_llm.pretrain.drills import one_of
from sb3_llm.pretrain.lists import listed
from sb3_llm.pretrain.orders import ordered
from sb3_llm.pretrain.sources import LISTS, ORDERS, REWORDED
from sb3_llm.pretrain.stories import Line, exchange
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.statements import dialogue, question, statements
from sb3_llm.words.wording import Wording, default_wording, draw_wording

CHINESE_SHARE = 0.3  # of the sayings, but for lists, which are all English, and the reworded ones
CHINESE_LISTS = 0.45  # of the reworded lists
DRAWN_SHARE = 0.5  # of the Chinese lists; the others are canonical. The English ones are all drawn
DETOUR = 0.2  # of the acts in a talk are random


def say(kind: str, rng: np.random.Generator) -> Line:
    """
    :param kind: "lists", "orders", "reworded", "statements", "questions", "dialogue" or "talks"
    :param rng: the only source of randomness
    :return: one line
    """
    if kind == LISTS:
        return listed(rng, default_wording())
    if kind == REWORDED:
        return listed(rng, _wording(rng))
    if kind == ORDERS:
        return ordered(rng, draw_wording(rng, "zh" if rng.random() < CHINESE_SHARE else "en"))
    language = "zh" if rng.random() < CHINESE_SHARE else "en"
    if kind == "statements":
        return Line("", f"{statements(rng, language)}\n")
    if kind == "questions":
        asked, answer = question(rng, language)
        return Line(asked, f" {answer}\n")
    if kind == "talks":
        return talk(rng, language)
    turns = dialogue(rng, language)
    return Line("\n".join(turns[:-1]), f"\n{turns[-1]}\n")


def _wording(rng: np.random.Generator) -> Wording:
    """:return: any but the canonical English one."""
    if rng.random() >= CHINESE_LISTS:
        return draw_wording(rng, "en")
    return draw_wording(rng, "zh") if rng.random() < DRAWN_SHARE else default_wording("zh")


def talk(rng: np.random.Generator, language: str) -> Line:
    """
    :param rng: draws the user, a moment of the talk, and now and then an act
    :param language: "en" or "zh"
    :return: a moment of a talk, and the expert's act in it
    """
    env = DialogueEnv(language=language)
    moments = [env.reset(seed=int(rng.integers(2**31)))[0]]
    while not env.over and env.expert_action(moments[-1]) != BOOK:
        act = int(rng.integers(BOOK)) if rng.random() < DETOUR else env.expert_action(moments[-1])
        moments.append(env.step(act)[0])
    obs = one_of(rng, moments)  # of all alike: drawn by its turn, half of the acts would be the booking
    return Line(*exchange(DEFAULT_TEMPLATE, describe_dialogue(obs, language), env.phrases[env.expert_action(obs)]))
