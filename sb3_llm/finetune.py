"""Which parts of a language model are trained: all of it, adapters, its upper layers, or its output head."""

import re
import warnings
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer, cast_adapter_dtype
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from torch import nn
from transformers import PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.model import decoder_layers

MODES = (
    '"full" for the whole model, "lora" for low-rank adapters, "top:N" for the N upper layers, such as "top:2", '
    '"head" for the output head, or a dict such as {"mode": "lora", "rank": 8, "alpha": 16}'
)
MEND = 'leave finetune out to train the whole model ("full")'


@dataclass(frozen=True)
class Tuning:
    """A tuning mode, read from ``finetune``."""

    mode: str  # "full", "lora", "top" or "head"
    layers: int = 0  # of "top"
    rank: int = 8  # of "lora": the inner size of an adapter
    alpha: float = 16.0  # of "lora": adapters count alpha / rank
    target_modules: tuple[str, ...] | None = None  # of "lora": ends of module names; None: the architecture's usual


def read_tuning(finetune: str | dict[str, Any]) -> Tuning:
    """
    :param finetune: as :class:`~sb3_llm.LLMPolicy` takes it
    :return: the mode it names
    :raises SetupError: for an unknown mode, or a dict with other keys or values
    """
    options = dict(finetune) if isinstance(finetune, dict) else {"mode": finetune}
    mode = options.pop("mode", None)
    top = re.fullmatch(r"top:(\d+)", mode) if isinstance(mode, str) else None
    if mode == "lora":
        return _read_lora(finetune, options)
    if not options and top:
        return Tuning("top", layers=int(top[1]))
    if not options and mode in ("full", "head"):
        return Tuning(mode)
    raise SetupError(f"finetune={finetune!r}", MODES, MEND)


def _read_lora(finetune: Any, options: dict[str, Any]) -> Tuning:
    rank, alpha, targets = options.pop("rank", 8), options.pop("alpha", None), options.pop("target_modules", None)
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    alpha = 2 * rank if alpha is None and whole else alpha
    positive = isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and alpha > 0
    named = targets is None or (
        isinstance(targets, (list, tuple)) and bool(targets) and all(isinstance(each, str) for each in targets)
    )
    if options or not (whole and positive and named):
        expected = '"lora", or {"mode": "lora"} with rank (1 or more), alpha (above 0), target_modules (module names)'
        raise SetupError(f"finetune={finetune!r}", expected, 'write finetune="lora" for the usual ones')
    return Tuning("lora", rank=rank, alpha=alpha, target_modules=tuple(targets) if targets else None)


def freeze(lm: PreTrainedModel, finetune: str | dict[str, Any]) -> int:
    """
    Freeze what a tuning mode does not train, and add what it needs.

    ``"lora"`` puts adapters beside some linear layers (Hu et al., arXiv 2106.09685), in float32 whatever the model's
    dtype; they change nothing until they are trained. ``"top:N"`` trains the N upper layers and what stands between
    them and the output head (the last norm); embeddings and head stay, since most small models tie the two. ``"head"``
    trains the output head alone, untied from the input embeddings.

    :param lm: causal language model; changed in place
    :param finetune: ``"full"``, ``"lora"``, ``"top:N"``, ``"head"``, or a dict
    :return: how many lower layers never change
    :raises SetupError: for an unknown mode, more layers than the model has, or adapters for modules it does not have
    """
    tuning = read_tuning(finetune)
    if tuning.mode == "full":
        return 0
    if tuning.mode == "lora":
        return _add_adapters(lm, tuning)
    if tuning.mode == "head":
        return _free_the_head(lm)
    return _freeze_below(lm, tuning.layers)


def _freeze_below(lm: PreTrainedModel, count: int) -> int:
    layers = decoder_layers(lm)
    if not 0 < count <= len(layers):
        given = f"finetune='top:{count}' for a model of {len(layers)} layers"
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


def _free_the_head(lm: PreTrainedModel) -> int:
    """Train the output head on what the frozen layers say; a head tied to the embeddings becomes a copy of its own."""
    head: Any = lm.get_output_embeddings()
    if not isinstance(head, nn.Module):
        given = f'finetune="head" for a {type(lm).__name__}, which shows no output head'
        raise SetupError(given, "get_output_embeddings() to return a module", 'choose finetune="lora"')
    lm.requires_grad_(False)
    weight: Any = head.weight
    head.weight = nn.Parameter(weight.detach().clone())
    lm.config.tie_word_embeddings = False  # what save_pretrained and tie_weights go by
    head.requires_grad_(True)
    return len(decoder_layers(lm))


def _add_adapters(lm: PreTrainedModel, tuning: Tuning) -> int:
    usual = LORA_TARGETS.get(lm.config.model_type, "all-linear")
    targets = list(tuning.target_modules) if tuning.target_modules else usual
    config = LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, target_modules=targets, lora_dropout=0.0)  # type: ignore[arg-type]
    found = sorted({name.rsplit(".", 1)[-1] for name, module in lm.named_modules() if not list(module.children())})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # PEFT sets it right for GPT-2
            inject_adapter_in_model(config, lm)
    except ValueError as error:
        raise _no_adapter(targets, lm, found, error) from error
    cast_adapter_dtype(lm, "default")
    return 0


def _no_adapter(targets: Any, lm: PreTrainedModel, found: list[str], error: Exception) -> SetupError:
    return SetupError(
        f"LoRA adapters for target_modules={targets!r} of a {type(lm).__name__}: {str(error).splitlines()[0][:200]}",
        f"ends of names of its linear modules, among {', '.join(found)}",
        "choose from these, or leave target_modules out",
    )


def merge_adapters(lm: PreTrainedModel) -> PreTrainedModel:
    """
    :param lm: causal language model, changed in place: adapters become part of the weights they stand beside
    :return: the model, of plain transformers modules
    """
    for name, module in list(lm.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            lm.set_submodule(name, module.get_base_layer())
    if hasattr(lm, "peft_config"):  # else save_pretrained would look for adapters
        del lm.peft_config
    return lm
