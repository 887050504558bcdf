"""The same network without pretraining."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain.initial import plant


def fresh_weights(model: str, folder: Path, seed: int = 0) -> str:
    """
    A model of the same architecture and tokenizer that has read nothing. One of the embedded model's architecture is
    laid out as that one was before its first step (:func:`sb3_llm.pretrain.initial.plant`).

    :param model: "embedded", a folder or a hub name
    :param folder: where it is put
    :param seed: of the weights
    :return: the folder
    """
    lm, tokenizer = load_language_model(model)
    torch.manual_seed(seed)
    fresh = AutoModelForCausalLM.from_config(lm.config, dtype=torch.float32)
    if isinstance(fresh, LlamaForCausalLM) and fresh.config.attention_bias:
        plant(fresh)
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
