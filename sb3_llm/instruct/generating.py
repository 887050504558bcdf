"""Writing: token by token with a KV cache, freely or inside the phrases, whole batches at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.errors import SetupError
from sb3_llm.language_model import context_length

MAX_TOKENS = 24  # of an instruction, unless one asks for more
Ids = Sequence[int]


@dataclass(frozen=True)
class Written:
    """What a model wrote after one prompt."""

    ids: tuple[int, ...]  # new tokens, up to and with the one that ended it
    text: str  # up to the end of the line
    log_prob: float  # of those tokens, in nats


@torch.no_grad()
def write(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ids],
    max_tokens: int = MAX_TOKENS,
    greedy: bool = False,
    temperature: float = 1.0,
    inside: Sequence[Sequence[Ids]] | None = None,
) -> list[Written]:
    """
    Let a model write after each prompt, to the end of the line.

    :param lm: in evaluation mode
    :param tokenizer: its tokenizer
    :param prompts: token ids of B prompts
    :param max_tokens: how many tokens it may write at most
    :param greedy: always the likeliest token; otherwise sampled with torch's random numbers
    :param temperature: of sampling
    :param inside: token ids of each prompt's phrases; what is written is one of them then
    :return: what it wrote after each
    :raises SetupError: if nothing may be written, or the prompts leave no room in the model's context
    """
    _require_room(lm, prompts, max_tokens)
    if not prompts:
        return []
    filler = _filler(lm, tokenizer, inside)
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), filler)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # on the left, so that all go on from the same column
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    stopping: dict[str, Any] = {"stop_strings": ["\n"], "tokenizer": tokenizer}
    if inside is not None:
        stopping = {"prefix_allowed_tokens_fn": _stay_inside(inside, width, filler)}
    drawing = (
        {"do_sample": False} if greedy else {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    )
    generate: Any = lm.generate
    found = generate(
        ids.to(lm.device),
        attention_mask=mask.to(lm.device),
        max_new_tokens=max_tokens,
        pad_token_id=filler,
        eos_token_id=filler if inside is not None else tokenizer.eos_token_id,
        return_dict_in_generate=True,
        output_logits=True,
        **drawing,
        **stopping,
    )
    new = found.sequences[:, width:]
    log_probs = torch.stack(found.logits, 1).float().log_softmax(-1).gather(2, new[:, :, None])[:, :, 0]
    return [_read(row, each, tokenizer, filler) for row, each in zip(new.tolist(), log_probs, strict=True)]


def _read(new: list[int], log_probs: Tensor, tokenizer: PreTrainedTokenizerBase, filler: int) -> Written:
    """The tokens up to the line's end or the model's own; what stands after that is padding."""
    kept: list[int] = []
    for token in new:
        if token in (filler, tokenizer.eos_token_id):
            break
        kept.append(token)
        if "\n" in tokenizer.decode([token]) and str(tokenizer.decode(kept)).strip():
            break
    text = str(tokenizer.decode(kept, skip_special_tokens=True)).strip().split("\n")[0].strip()
    return Written(tuple(kept), text, float(log_probs[: len(kept)].sum()))


def _stay_inside(inside: Sequence[Sequence[Ids]], width: int, end: int) -> Callable[[int, Tensor], list[int]]:
    """Which tokens may follow: those that go on with a phrase of that prompt; after a whole one the end."""

    def allowed(row: int, ids: Tensor) -> list[int]:
        written = tuple(ids[width:].tolist())
        here = {phrase[len(written)] for phrase in map(tuple, inside[row]) if _goes_on(phrase, written)}
        return sorted(here) or [end]

    return allowed


def _goes_on(phrase: tuple[int, ...], written: tuple[int, ...]) -> bool:
    return len(phrase) > len(written) and phrase[: len(written)] == written


def _filler(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inside: Sequence[Sequence[Ids]] | None) -> int:
    """A token that no phrase has: it pads prompts, where it is masked, and ends rows."""
    used = {token for phrases in inside or () for phrase in phrases for token in phrase}
    own = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(token, int)]
    return next(token for token in [*own, *range(lm.config.vocab_size - 1, -1, -1)] if token not in used)


def _require_room(lm: PreTrainedModel, prompts: Sequence[Ids], max_tokens: int) -> None:
    if max_tokens < 1:
        raise SetupError(f"max_tokens={max_tokens}", "1 or more", "leave it out")
    context, longest = context_length(lm.config), max(map(len, prompts), default=0)
    if context is not None and longest + max_tokens > context:
        raise SetupError(
            f"a prompt of {longest} tokens and {max_tokens} to write",
            f"at most {context} together, the model's context",
            "shorten the observation text, or lower max_tokens",
        )
