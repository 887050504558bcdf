"""What a model says: short greedy answers to prompts of every kind that its corpus has, in worlds that it has not."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import sb3_llm.envs  # noqa: F401  # registers the project's worlds
from sb3_llm.describe.describer import SUMMARY
from sb3_llm.describe.minigrid import RoomDescriber
from sb3_llm.describe.worded import CANONICAL
from sb3_llm.pretrain.experts import make_expert
from sb3_llm.pretrain.stories import PLAN_CUE, Telling, describer_for
from sb3_llm.prompt import DEFAULT_TEMPLATE
from sb3_llm.words.mission import parse
from sb3_llm.words.statements import dialogue, question, statements, view_question

SEED = 2**31  # stories have smaller ones
WORLD: tuple[str, dict[str, Any]] = ("sb3_llm/Rooms-v0", {"kind": "keydoor"})
LANGUAGES = ("en", "zh")
MAX_NEW = 60  # tokens
START = 4  # words, or Chinese characters, of a statement


@dataclass(frozen=True)
class Prompt:
    """Something to go on from."""

    language: str
    text: str  # an observation text, or nothing
    asked: str  # what stands below it
    expected: str = ""  # what the corpus would have there; nothing where it could be anything

    @property
    def whole(self) -> str:
        """:return: the prompt as the model reads it."""
        return f"{self.text}\n{self.asked}" if self.text else self.asked


def sample(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """
    :param lm: a pretrained model
    :param tokenizer: its tokenizer
    :return: for each prompt that leaves room in the model's context: its fields, and what the model said
    """
    fitting = (each for each in prompts() if len(tokenizer(each.whole)["input_ids"]) + MAX_NEW <= lm_context(lm))
    return [asdict(each) | {"said": answer(lm, tokenizer, each.whole)} for each in fitting]


def prompts() -> Iterator[Prompt]:
    """:return: for each language what is asked in a world, then a question, a dialogue and a statement."""
    for language in LANGUAGES:
        rng = np.random.default_rng([SEED, LANGUAGES.index(language)])
        yield from _in_a_world(language, rng)
        asked, expected = question(rng, language)
        yield Prompt(language, "", asked, expected)
        *turns, last = dialogue(rng, language)
        yield Prompt(language, "", "\n".join(turns) + "\n", last)
        told = statements(rng, language)
        yield Prompt(language, "", " ".join(told.split(" ")[:START]) if told.isascii() else told[:START])


def _in_a_world(language: str, rng: np.random.Generator) -> Iterator[Prompt]:
    env, obs, best, purpose = _world()
    describer = describer_for(env, Telling(SUMMARY, language, CANONICAL))
    assert isinstance(describer, RoomDescriber)
    describer.begin(obs, rng)
    text, words = describer.tell(obs, ()), describer.words
    yield Prompt(language, text, DEFAULT_TEMPLATE.removeprefix("{observation}\n"), words.phrase(best))
    yield Prompt(language, text, PLAN_CUE.removeprefix("{observation}\n"), words.mission(purpose))
    yield Prompt(language, text, *view_question(rng, words, obs["mission"], *describer.facts(obs, ())))


def _world() -> tuple[gym.Env[Any, Any], dict[str, Any], str, str]:
    """The first world whose expert's purpose can be translated, just reset, with its observation and the advice."""
    env, seed = gym.make(WORLD[0], disable_env_checker=True, **WORLD[1]), SEED
    while True:
        obs, _ = env.reset(seed=seed)
        best, purpose = make_expert(env, obs).advice()
        if parse(purpose) is not None:
            return env, obs, best, purpose
        seed += 1


def lm_context(lm: PreTrainedModel) -> int:
    """:return: how many tokens it attends to."""
    return int(lm.config.max_position_embeddings)


@torch.no_grad()
def answer(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """:return: the likeliest words after a prompt, token by token, to the end of the line."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]], device=lm.device)
    first = ids.shape[1]
    model: Any = lm  # transformers annotates generate's self as another class
    whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_NEW)
    said = str(tokenizer.decode(whole[0, first:], skip_special_tokens=True))
    return said.partition("\n")[0].strip()
