"""Checks of texts: that states can be told apart, and that tokens are those the model would see in running text."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import torch

from sb3_llm.decisions import ask
from sb3_llm.doctor.finding import Measured
from sb3_llm.doctor.patient import Patient, split
from sb3_llm.language_model import context_length
from sb3_llm.observations import longest_text
from sb3_llm.prior import NEARLY_DETERMINISTIC, explained_by_length
from sb3_llm.scoring import Continuations
from sb3_llm.scoring.encoding import Encoder
from sb3_llm.spaces import TextSpace

MERGED = 4  # states to a text at most: beyond, most of what the environment shows is gone
NEARLY_FULL = 0.95  # of the bytes or tokens there is room for: the next text may not fit
PROMPTS = 16


def text(patient: Patient) -> Measured:
    """Whether observations come back from their bytes, and distinct states have distinct texts."""
    seen, space = patient.rollout.observations, patient.model.observation_space
    states, texts = len(patient.rollout.states), len({patient.policy.render(_one(row))[0] for row in seen.values()})
    told = f"{texts} texts of {states} states"
    merges = states > 1 and (texts == 1 or states / texts > MERGED)
    mend = "make describe= say what differs between states, and check that history= is what it should be"
    if not isinstance(space, TextSpace):
        return Measured(not merges, f"{told}; numbers are told as numbers", mend)
    changed = sum(not np.array_equal(_again(space, row), row) for row in seen.values())
    most = max(int(np.count_nonzero(row)) for row in seen.values())
    full = most > NEARLY_FULL * space.max_bytes
    if changed or full:
        mend = "take wrappers that change numbers off the text" if changed else "pass max_bytes= of twice the length"
    trip = f"{changed} do not come back from their bytes" if changed else "all come back from their bytes"
    figure = f"{told}; {trip}; at most {most} of {space.max_bytes} bytes"
    return Measured(not (changed or full or merges), figure, mend)


def _one(row: Any) -> Any:
    return {name: part[None] for name, part in row.items()} if isinstance(row, dict) else np.asarray(row)[None]


def _again(space: TextSpace, row: Any) -> Any:
    return space.encode(space.decode(row), space.decode_phrases(row) if space.slots else None)


def tokens(patient: Patient) -> Measured:
    """Whether prompt and continuation apart are the tokens of both together, and whether tokens are the whole text."""
    policy, joins, lossy = patient.policy, 0, []
    encoder = Encoder(policy.tokenizer, patient.questions[0][0], policy._template.special_tokens)
    wrong: list[str] = []
    for prompt, each in _continuations(patient):
        joint = encoder.encode([prompt + added for added in each.texts])
        (ids,) = policy._scorer.tokens.encode([prompt])
        joins += len(joint)
        wrong += [added for added, ours, real in zip(each.texts, each.ids, joint, strict=True) if (*ids, *ours) != real]
        lossy += [] if _read_back(policy.tokenizer, prompt + each.texts[0]) else [prompt]
    figure = f"{len(wrong)} of {joins} joins differ{f' ({wrong[0]!r})' if wrong else ''}"
    figure += f"; {len(lossy)} texts lose characters{f' ({lossy[0][-40:]!r})' if lossy else ''}"
    mend = (
        'end the template in another character, a newline or ":"; where texts lose characters, the tokenizer does not '
        "know them: say them in other words, or take a model whose tokenizer does"
    )
    return Measured(not wrong and not lossy, figure, mend)


def _continuations(patient: Patient) -> Iterator[tuple[str, Continuations]]:
    prompts, phrases = split(patient.some(PROMPTS))
    yield from zip(prompts, patient.policy._continuations(prompts, phrases), strict=True)


def _read_back(tokenizer: Any, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() == text.strip()


def phrases(patient: Patient) -> Measured:
    """Whether phrases differ, as words and as tokens, and none begins another."""
    lists = list(dict.fromkeys(each for _, each in _continuations(patient)))
    clashes = [pair for each in lists for pair in _clashes(each)]
    longest = max(len(ids) for each in lists for ids in each.ids)
    figure = f"{max(len(each.ids) for each in lists)} phrases of up to {longest} tokens"
    if clashes:
        one, other = clashes[0]
        figure += f"; {len(clashes)} clash: {one!r} begins or equals {other!r}"
    mend = "reword one of the two so that neither begins the other: the shorter is always the more probable"
    return Measured(not clashes, figure, mend)


def _clashes(each: Continuations) -> Iterator[tuple[str, str]]:
    ordered = sorted(zip(each.ids, each.texts, strict=True))  # what a sequence begins stands right behind it
    for (short, one), (long, other) in pairwise(ordered):
        if long[: len(short)] == short:
            yield one, other
    bare = sorted((" ".join(words.lower().split()), words) for words in each.texts)
    yield from ((one, other) for (low, one), (same, other) in pairwise(bare) if low == same)


def prior(patient: Patient) -> Measured:
    """Whether the policy, as it is now, can explore."""
    policy, questions = patient.policy, patient.questions
    log_probs = ask(policy, questions)
    surest = log_probs.exp().max(dim=1).values.mean().item()
    free = (log_probs.isfinite().sum(dim=1) > 1).any()
    entropy = torch.special.entr(log_probs.exp()).sum(dim=1).mean().item()
    by_length = policy._fixed is not None and questions[0][2] is None and explained_by_length(log_probs, policy._fixed)
    figure = f"the likeliest action has {surest:.3f}, entropy {entropy:.2f} nats"
    figure += f" ({_shares(patient, log_probs)})" if policy._fixed else ""
    figure += "; the length of phrases explains it" if by_length else ""
    mend = "raise temperature, set normalization to 'token' or 'word', or reword phrases; a trained policy may be so"
    return Measured(not (by_length or (bool(free) and surest > NEARLY_DETERMINISTIC)), figure, mend)


def _shares(patient: Patient, log_probs: torch.Tensor) -> str:
    mean = log_probs.exp().mean(dim=0).tolist()
    ordered = sorted(zip(mean, patient.policy.phrases, strict=True), reverse=True)
    return ", ".join(f"{phrase} {share:.2f}" for share, phrase in ordered[:3])


def context(patient: Patient) -> Measured:
    """Whether prompts fit into the model's context, and what the longest text would take."""
    policy, room = patient.policy, context_length(patient.policy.lm.config)
    encode = policy._scorer.tokens.encode
    lengths = [len(ids) for ids in encode([question[0] for question in patient.questions])]
    (longest,) = encode([policy._template.prompt(longest_text(patient.model.observation_space))])
    phrase = max(len(ids) for _, each in _continuations(patient) for ids in each.ids)
    seen, possible = max(lengths) + phrase, len(longest) + phrase
    figure = f"mean {fmean(lengths):.0f} tokens, longest seen {seen} with its phrase, longest possible about {possible}"
    figure += f", of {room}" if room else ", without a limit"
    mend = "shorten the text, the history or the template, or take a model with a longer context"
    return Measured(room is None or seen <= NEARLY_FULL * room, figure, mend)
