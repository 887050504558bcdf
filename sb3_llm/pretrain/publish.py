"""What ships with a pretrained model: float16 weights, tokenizer, manifest, and a card that says what it read."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sb3_llm.folder import write_text
from sb3_llm.pretrain.card import model_card
from sb3_llm.pretrain.samples import sample

WEIGHTS, MANIFEST, CARD = "model.safetensors", "manifest.json", "README.md"


def publish(
    folder: Path,
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    manifest: dict[str, Any],
    report: dict[str, Any],
) -> None:
    """
    Write the folder that the package ships, which is also a plain transformers folder.

    :param folder: where to
    :param lm: the trained model; its weights are rounded to what float16 holds, in place
    :param tokenizer: its tokenizer
    :param manifest: of the corpus
    :param report: of the training
    """
    lm.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    whole = {"training": report, "corpus": manifest, "samples": sample(lm.float().eval(), tokenizer)}
    write_text(folder / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / CARD, card_of(folder, lm, tokenizer))


def card_of(folder: Path, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    :param folder: of a published model
    :param lm: the model in it
    :param tokenizer: its tokenizer
    :return: the card that belongs there, from nothing but the folder and the code
    """
    whole = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return model_card(lm.num_parameters(), len(tokenizer), (folder / WEIGHTS).stat().st_size, whole)
