"""Which parts of a language model are trained."""

import re

from transformers import PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.model import decoder_layers

MODES = '"full" for the whole model, or "top:N" for its N upper layers, such as "top:2"'


def freeze(lm: PreTrainedModel, finetune: str) -> int:
    """
    Freeze what a tuning mode does not train.

    ``"top:N"`` trains the N upper layers and what stands between them and the output head (the last norm). Embeddings
    and head stay: most small models tie the two, and what lies below must never change for its work to be kept.

    :param lm: causal language model; ``requires_grad`` of its parameters is set
    :param finetune: ``"full"`` or ``"top:N"``
    :return: how many lower layers never change
    :raises SetupError: for an unknown mode, or more layers than the model has
    """
    found = re.fullmatch(r"top:(\d+)", finetune) if isinstance(finetune, str) else None
    if finetune == "full":
        return 0
    if found is None:
        raise SetupError(f"finetune={finetune!r}", MODES, 'leave finetune out to train the whole model ("full")')
    layers, count = decoder_layers(lm), int(found[1])
    if not 0 < count <= len(layers):
        given = f"finetune={finetune!r} for a model of {len(layers)} layers"
        raise SetupError(given, f'"top:1" to "top:{len(layers)}"', "choose a number within it")
    below = len(layers) - count
    fixed = [lm.get_input_embeddings(), lm.get_output_embeddings(), *layers[:below]]
    names = {id(parameter) for module in fixed if module is not None for parameter in module.parameters()}
    trained = {id(parameter) for layer in layers[below:] for parameter in layer.parameters()}
    head_side = _after_the_layers(lm)
    for parameter in lm.parameters():
        parameter.requires_grad_(id(parameter) in trained | head_side and id(parameter) not in names)
    return below


def _after_the_layers(lm: PreTrainedModel) -> set[int]:
    """Find the last norm: modules registered beside the list of layers, after it."""
    layers = decoder_layers(lm)
    parent = next(module for module in lm.modules() if any(child is layers for child in module.children()))
    children = list(parent.children())
    after = children[[child is layers for child in children].index(True) + 1 :]
    return {id(parameter) for module in after for parameter in module.parameters()}
