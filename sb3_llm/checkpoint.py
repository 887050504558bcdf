"""What a checkpoint holds: what was trained, and which base model it belongs to; not the weights that never change."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.errors import SetupError

BASE_MODEL = "base_model"  # the entry of a state dict that names it: JSON as bytes, which any torch.load accepts
HASHED_NUMBERS = 2**16  # of each tensor


def fingerprint(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Tell base models apart, also revisions of one.

    Of large tensors, evenly spaced numbers are hashed, 65,536 of each: fine-tuning changes nearly all of them, and
    hashing 8 billion would take a minute at every start.

    :param lm: causal language model, as loaded
    :param tokenizer: its tokenizer
    :return: SHA-256 of the weights and the vocabulary, in hexadecimal digits
    """
    digest = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, parameter in lm.named_parameters():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // HASHED_NUMBERS)]
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some.to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def without_frozen(state: dict[str, Any], lm: nn.Module, base: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param state: a policy's whole state dict; ``lm.`` stands before what belongs to the language model
    :param lm: the language model
    :param base: what identifies the base model: JSON values
    :return: the state dict without what never changes, and with ``base``
    """
    trained = {f"lm.{name}" for name, each in lm.named_parameters(remove_duplicate=False) if each.requires_grad}
    for name in [name for name in state if name.startswith("lm.") and name not in trained]:
        del state[name]
    state[BASE_MODEL] = torch.frombuffer(bytearray(json.dumps(dict(base)).encode()), dtype=torch.uint8)
    return state


def require_same_base(state: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """
    :param state: a state dict that is about to be loaded
    :param base: what identifies this policy's base model and tuning mode
    :raises SetupError: if it was saved from another base model, another revision of it, or another tuning mode
    """
    entry = state.get(BASE_MODEL)
    if entry is None or entry.dtype != torch.uint8:  # weights made by arithmetic on state dicts have no name left
        return
    found = json.loads(bytes(entry.cpu().numpy()))
    if found["sha256"] != base["sha256"]:
        raise SetupError(
            f"a checkpoint trained from the base model {_name(found)}, for a policy made from {_name(base)}",
            "the base model that the checkpoint was trained from, in the same revision",
            f"make the policy with policy_kwargs={{'model': {found['model']!r}, 'revision': {found['revision']!r}}}",
        )
    if found["finetune"] != base["finetune"]:
        raise SetupError(
            f"a checkpoint of finetune={found['finetune']!r}, for a policy of finetune={base['finetune']!r}",
            "the same tuning mode",
            f"make the policy with policy_kwargs={{'finetune': {found['finetune']!r}}}",
        )


def _name(base: Mapping[str, Any]) -> str:
    revision = f" at revision {base['revision']!r}" if base["revision"] else ""
    return f"{base['model']!r}{revision} (SHA-256 {base['sha256'][:12]})"


def require_same_entries(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """
    :param state: a state dict that is about to be loaded
    :param own: this policy's
    :raises SetupError: if tensors are absent, unknown, or of another shape
    """
    absent, unknown = sorted(own.keys() - state.keys() - {BASE_MODEL}), sorted(state.keys() - own.keys())
    other = [name for name in own.keys() & state.keys() - {BASE_MODEL} if own[name].shape != state[name].shape]
    if absent or unknown or other:
        first = next(iter([*absent, *unknown, *other]))
        raise SetupError(
            f"weights that lack {len(absent)} tensors, have {len(unknown)} unknown ones and {len(other)} of another "
            f"shape ({first!r} the first)",
            f"the {len(own) - 1} tensors that this policy trains",
            "make the policy with the policy_kwargs that the weights were saved with",
        )
