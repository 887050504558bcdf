"""Stories in which the model itself acts and the expert says what it would have done (DAgger, arXiv 1011.0686)."""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import sb3_llm.envs  # noqa: F401  # registers the project's worlds
from sb3_llm.describe.actions import KEYS
from sb3_llm.observations import SAMPLE_TEXTS
from sb3_llm.pretrain.sources import SOURCES, Source
from sb3_llm.pretrain.stories import STORY_LIMIT, Line, Story, draw_telling
from sb3_llm.prompt import DEFAULT_TEMPLATE, SEPARATOR
from sb3_llm.scoring import PhraseScorer, PromptTokenizer, Row, choose_scorer

SIDE_BY_SIDE = 32  # stories at a time, so that the model is asked about all of them at once
SURE = 0.9  # of what the expert would do; a model that is surer needs no correction
KEPT_ALL_THE_SAME = 0.1  # of such lines, so that what is right stays so
GREEDY_SHARE = 0.5  # of the stories: always the likeliest act; in the others it is drawn
LOOKS = 3  # so often the model may come back to a text; then the expert acts, or a greedy one would loop for ever

#: From prompts, and the phrases of each, to the probabilities of the phrases.
Ask = Callable[[list[str], list[tuple[str, ...]]], list[list[float]]]


class Led(Story):
    """A story that the model leads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.greedy = bool(self.rng.random() < GREEDY_SHARE)
        self.seen: Counter[str] = Counter()
        self.steps = 0
        self.best: str | None = None  # what the expert would do now; None: the story is over
        self.think()

    def think(self) -> None:
        """Ask the expert, and put into words where the agent is."""
        best, self.purpose = self.expert.advice()
        self.best = best if best in self.describer.keys and self.steps < STORY_LIMIT else None
        self.text = self.describer.tell(self.obs, tuple(self.turns))

    @property
    def phrases(self) -> tuple[str, ...]:
        """:return: of all acts, in the order of their keys."""
        return tuple(map(self.describer.words.phrase, self.describer.keys))

    def go_on(self, probabilities: Sequence[float], all_the_same: bool) -> tuple[Line, ...]:
        """
        :param probabilities: that the model gives each phrase
        :param all_the_same: tell what the expert would do even if the model is sure of it
        :return: what the expert would do, if that is told; what the model chose has been done
        """
        assert self.best is not None
        keys = list(self.describer.keys)
        telling = all_the_same or probabilities[keys.index(self.best)] < SURE
        lines = tuple(self._say(self.best, self.purpose)) if telling else ()  # its drills take thought
        self.seen[self.text] += 1
        taken = self.best if self.seen[self.text] > LOOKS else keys[self._choose(probabilities)]
        self.steps += 1
        if self._step(taken):
            self.best = None
        else:
            self.think()
        return lines

    def _choose(self, probabilities: Sequence[float]) -> int:
        shares = np.asarray(probabilities, np.float64)
        return int(shares.argmax() if self.greedy else self.rng.choice(len(shares), p=shares / shares.sum()))


def tell_corrections(
    ask: Ask, n_lines: int, seed: int = 0, sources: Sequence[Source] = SOURCES
) -> Iterator[tuple[Line, ...]]:
    """
    Let the model play in the corpus's worlds, and keep what it is not sure to do right.

    :param ask: the model
    :param n_lines: how many lines are wanted
    :param seed: of worlds, words and choices
    :param sources: where the stories play; those of the bot are left out, which can't be joined amid a story
    :return: the lines of one decision after another
    """
    rng = np.random.default_rng([seed, 1])
    told, stories = 0, [_begin(rng, sources) for _ in range(SIDE_BY_SIDE)]
    while True:
        prompts = [DEFAULT_TEMPLATE.replace("{observation}", story.text) for story in stories]
        answers = ask(prompts, [story.phrases for story in stories])
        for place, probabilities in enumerate(answers):
            all_the_same = bool(rng.random() < KEPT_ALL_THE_SAME)
            lines = stories[place].go_on(probabilities[: len(stories[place].phrases)], all_the_same)
            if lines:
                told += len(lines)
                yield lines
            if told >= n_lines:
                return
            if stories[place].best is None:
                stories[place] = _begin(rng, sources)


def _begin(rng: np.random.Generator, sources: Sequence[Source]) -> Led:
    """A new story, by shares of the corpus; one more, where an expert has nothing to say."""
    planned = [source for source in sources if not source.use_bot]
    shares = np.array([source.share for source in planned])
    while True:
        source = planned[int(rng.choice(len(planned), p=shares / shares.sum()))]
        seed = int(rng.integers(2**31))
        own = np.random.default_rng(seed)
        with contextlib.redirect_stdout(io.StringIO()):  # BabyAI tells of worlds that it throws away
            env = gym.make(source.env_id, disable_env_checker=True, **source.env_kwargs)
            story = Led(env, seed, draw_telling(own), own)
        if story.best is not None:
            return story


def asker(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int) -> Ask:
    """:return: how to ask a model, which is in evaluation mode."""
    probes = [DEFAULT_TEMPLATE.replace("{observation}", text) for text in SAMPLE_TEXTS]
    tokens = PromptTokenizer(tokenizer, probes, SEPARATOR, context)
    known = tokens.continuations(("go forward", "turn left"))
    scorer, _ = choose_scorer(lm, [Row(ids, known.ids) for ids in tokens.encode(probes)])
    score = PhraseScorer(lm, tokens, scorer).score

    @torch.no_grad()
    def ask(prompts: list[str], phrases: list[tuple[str, ...]]) -> list[list[float]]:
        continuations = [tokens.continuations(own, prompt) for own, prompt in zip(phrases, prompts, strict=True)]
        found = score(prompts, continuations, len(KEYS))
        logits = found.log_probs.masked_fill(~found.present, -torch.inf)
        return [list(row) for row in logits.softmax(-1).tolist()]

    return ask
