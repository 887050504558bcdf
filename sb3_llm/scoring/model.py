"""How scorers look into a model of any architecture."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sb3_llm.errors import SetupError


@contextmanager
def head_input(lm: PreTrainedModel, at: Tensor | None = None) -> Iterator[list[Tensor]]:
    """
    Watch the hidden states that enter the output head, for the length of a ``with`` block, or let only some enter.

    They are the last hidden states after the final norm for every architecture, at no cost: ``output_hidden_states``
    would keep those of all layers. The head is a large part of a small model, and ``logits_to_keep``, where a model has
    it, takes the same columns of every row only.

    :param lm: causal language model
    :param at: (N,) columns that enter, counted through all rows of a pass, as one row of N; all if ``None``
    :return: list that each forward pass appends to: (B, K, H), K the positions the head was applied to; (1, N, H)
    :raises SetupError: if the model shows no output head, or never calls it
    """
    head = lm.get_output_embeddings()
    if not isinstance(head, nn.Module):
        given = f"{type(lm).__name__} shows no output head"
        raise SetupError(given, "get_output_embeddings() to return a module", "choose another language model")
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        hidden = inputs[0] if at is None else inputs[0].flatten(0, 1).index_select(0, at)[None]
        seen.append(hidden)
        return hidden

    handle = head.register_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        handle.remove()
    if not seen:
        given = f"{type(lm).__name__} never calls its output head"
        raise SetupError(given, "logits made by get_output_embeddings()", "choose another language model")


def widen(values: Tensor) -> Tensor:
    """
    Cast to float32 at least, because log-probabilities in bfloat16 make PPO's ratio differ from 1.

    :param values: any floating-point tensor
    :return: the same values; float64 stays float64
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def keywords(lm: PreTrainedModel) -> set[str]:
    """
    :param lm: causal language model
    :return: what its forward pass can be told by name. An adapter's wrapper (PEFT) takes any keyword; the signature
        that counts is the one below it
    """
    return set(inspect.signature(getattr(lm, "get_base_model", lambda: lm)().forward).parameters)


def decoder_layers(lm: PreTrainedModel) -> nn.ModuleList:
    """
    Find the list of a model's decoder layers.

    :param lm: causal language model
    :return: its layers, lowest first
    :raises SetupError: if it shows no such list
    """
    count = lm.config.get_text_config().num_hidden_layers
    for module in lm.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    given = f"{type(lm).__name__} shows no list of its {count} layers"
    raise SetupError(given, "a ModuleList of decoder layers", "train the whole model")


def drops_caches(lm: PreTrainedModel) -> bool:
    """
    :param lm: causal language model
    :return: whether layers are checkpointed now: in training such a layer drops the cache it is given
    """
    return lm.training and any(getattr(module, "gradient_checkpointing", False) for module in lm.modules())
