"""How a model is to be built and trained, checked before anything is done, and kept beside its state."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from sb3_llm.errors import SetupError
from sb3_llm.folder import write_text
from sb3_llm.spaces import is_whole

SETTINGS = "pretraining.json"
DEVICES, PRECISIONS = ("cpu", "cuda"), ("float32", "bfloat16")
WIDTH_STEP = 16  # widths are a multiple of it
BYTES, ID_LIMIT = 256, 2**16  # token ids are kept in 16 bits


@dataclass(frozen=True)
class PretrainConfig:
    """How the embedded model is built and trained."""

    hidden_size: int = 160
    intermediate_size: int = 432
    layers: int = 6
    heads: int = 10
    vocab_size: int = 2048  # at most; a small corpus has fewer words to merge
    context: int = 1024  # tokens
    steps: int = 4800
    practice_share: float = 0.18  # of the steps: the first ones, on lists and orders
    reworded_share: float = 0.22  # of the steps: the next ones, with lists in other words too
    batch_tokens: int = 6400  # padding included
    learning_rate: float = 1.5e-3  # peak; warmed up, the layers' matrices first, then a cosine to a tenth
    warmup_steps: int = 100
    embedding_warmup_steps: int = 800  # of all else; faster, the embeddings drown what the heads compare
    weight_decay: float = 0.01
    prompt_weight: float = 0.1  # of a prompt token's loss beside a completion token's
    held_out_lines: int = 2000  # kept from training, to measure on
    save_every: int = 250  # steps between resumable states
    correction_rounds: int = 2  # in each, the model plays itself and then learns from it
    correction_lines: int = 24_000  # of a round, told where it plays
    correction_steps: int = 600  # of a round, on all corrections so far and on the corpus
    correction_rate: float = 4e-4  # peak of their learning rate
    correction_share: float = 0.6  # of those steps are on corrections
    precision: str = "float32"  # of the matrix products: "float32" or "bfloat16"; weights stay float32
    seed: int = 0


def config_for(
    lines: int,
    steps: int = PretrainConfig.steps,
    seed: int = 0,
    precision: str = "float32",
    hidden: int = PretrainConfig.hidden_size,
    layers: int = PretrainConfig.layers,
    heads: int = PretrainConfig.heads,
    vocab: int = PretrainConfig.vocab_size,
) -> PretrainConfig:
    """
    :param lines: of the corpus
    :param steps: of the training
    :param seed: of the weights and of the order of lines
    :param precision: of the matrix products
    :param hidden: width of the model; the layers' inner width follows from it as in Llama
    :param layers: how many
    :param heads: of attention
    :param vocab: tokens, at most
    :return: what `sb3-llm pretrain` trains with these options; it is not checked yet
    """
    return PretrainConfig(
        hidden_size=hidden,
        intermediate_size=-(-8 * hidden // (3 * WIDTH_STEP)) * WIDTH_STEP,
        layers=layers,
        heads=heads,
        vocab_size=vocab,
        steps=steps,
        held_out_lines=max(1, min(PretrainConfig.held_out_lines, lines // 10)),
        correction_lines=max(1, min(PretrainConfig.correction_lines, lines * 3 // 25)),
        correction_steps=steps // 8,
        precision=precision,
        seed=seed,
    )


def check_config(config: PretrainConfig, n_lines: int) -> None:
    """
    :param config: of a training
    :param n_lines: of its corpus
    :raises SetupError: if they don't fit each other, or an option is unknown
    """
    for field in fields(config):
        _check_number(field.name, getattr(config, field.name))
    if config.hidden_size % (2 * config.heads):
        raise SetupError(
            f"hidden_size={config.hidden_size} with heads={config.heads}",
            "a hidden size that shares out evenly among the heads, two by two",
            f"pass hidden_size={2 * config.heads * max(1, config.hidden_size // (2 * config.heads))}",
        )
    if not BYTES < config.vocab_size <= ID_LIMIT:
        raise SetupError(
            f"vocab_size={config.vocab_size}", f"{BYTES + 1} (bytes and end mark) to {ID_LIMIT}", "leave it at 2048"
        )
    if not 0 < config.held_out_lines < n_lines:
        raise SetupError(
            f"a corpus of {n_lines} lines with held_out_lines={config.held_out_lines}",
            "some lines to measure on, and others left over to train on",
            "tell a longer corpus, or hold out fewer lines",
        )
    if config.precision not in PRECISIONS:
        raise SetupError(f"precision={config.precision!r}", "'float32' or 'bfloat16'", "pass precision='float32'")


def _check_number(name: str, value: Any) -> None:
    kind = PretrainConfig.__annotations__[name]
    least = 0 if name in ("seed", "correction_steps") else 1
    if kind is int and (not is_whole(value) or value < least):
        raise SetupError(f"{name}={value!r}", f"a whole number, {least} or more", f"leave {name} out")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and not (number and 0 <= value < math.inf):
        raise SetupError(f"{name}={value!r}", "a number, 0 or more", f"leave {name} out")


def check_device(device: str) -> str:
    """
    :param device: "cpu", "cuda", "cuda:1", ... or "auto"
    :return: the device to train on
    :raises SetupError: if there is no such device here
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(device).type not in DEVICES:
            raise RuntimeError(f"one of another kind than {', '.join(DEVICES)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise SetupError(
            f"device={device!r} ({reason})", "'cpu', 'cuda' or 'auto', and one that is here", "pass device='auto'"
        ) from None
    return device


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """
    Make a folder that of a training, or see that it is. Settings that it doesn't know yet are added.

    :param folder: where a training keeps its state
    :param settings: JSON values
    :raises SetupError: if it is a file, or a training's with other settings
    """
    path, wanted = folder / SETTINGS, json.loads(json.dumps(settings))
    if folder.exists() and not folder.is_dir():
        raise SetupError(f"{folder}, which is a file", "a folder", "name another place")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    differing = {**_differing(known, wanted), **_differing(known.get("config", {}), wanted.get("config", {}))}
    differing.pop("config", None)
    if differing:
        was, now = ({name: pair[place] for name, pair in differing.items()} for place in (0, 1))
        raise SetupError(
            f"{folder}, which holds a training with {was}, for one with {now}",
            "the same settings",
            "use them, or name another folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**known, **wanted}, indent=1) + "\n"
    write_text(path, text)


def _differing(known: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (known[name], wanted[name]) for name in wanted if name in known and known[name] != wanted[name]}
