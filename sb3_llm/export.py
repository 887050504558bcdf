"""From a trained policy to a plain transformers folder."""

import copy
from pathlib import Path
from typing import Any

from sb3_llm.errors import SetupError
from sb3_llm.finetune import merge_adapters


def export(model: Any, folder: str | Path) -> Path:
    """
    Write the language model of a policy as transformers saves its own, adapters merged into the weights.

    ``AutoModelForCausalLM.from_pretrained(folder)`` loads it, and ``policy_kwargs={"model": folder}`` makes a policy
    that scores the same. The value head is not a part of it. Weights are safetensors in the policy's dtype; merging
    float32 adapters into a bfloat16 model rounds.

    :param model: an SB3 algorithm with a language model as its policy, or the policy
    :param folder: where to; made if need be
    :return: the folder
    :raises SetupError: if the model has no language model, or the folder is a file
    """
    policy = getattr(model, "policy", model)
    if not hasattr(policy, "lm"):
        given = f"export of a {type(model).__name__} whose policy is a {type(policy).__name__}"
        raise SetupError(given, "an algorithm whose policy is an LLMPolicy", "make it with PPO(LLMPolicy, env)")
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise SetupError(f"export to {str(path)!r}, which is a file", "a folder", "name another place")
    lm = merge_adapters(copy.deepcopy(policy.lm)).cpu()
    lm.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)
    return path
