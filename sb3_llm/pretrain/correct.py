"""The last part of a training: the model plays, and learns from what the expert would have done instead."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.folder import write_text
from sb3_llm.pretrain.corpus import as_line, as_text, digest, read_manifest
from sb3_llm.pretrain.corrections import asker, tell_corrections
from sb3_llm.pretrain.data import Examples, batches, encode, join
from sb3_llm.pretrain.settings import PretrainConfig, check_device
from sb3_llm.pretrain.sources import SOURCES, Source
from sb3_llm.pretrain.stories import Line
from sb3_llm.pretrain.train import encoded, evaluate, held_out_and_rest, train_model

LINES, ENTRY, STATE = "corrections-{}.jsonl", "corrections-{}.json", "corrected-{}.pt"  # of each round
WARMUP_STEPS = 50


def correct(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    report: dict[str, Any],
    corpus: Path,
    config: PretrainConfig,
    folder: Path,
    device: str = "auto",
    sources: Sequence[Source] = SOURCES,
) -> dict[str, Any]:
    """
    Let a trained model play in the corpus's worlds, and train it on, on what it was not sure to do right.

    A pupil that has only read an expert's stories gets into moments that no story tells, and stays there (Ross, Gordon
    and Bagnell 2011, arXiv 1011.0686). In rounds, for the corrected model gets into others. Interrupted, it goes on
    from its last state in ``folder``.

    :param model: trained on the corpus; it is changed
    :param tokenizer: its tokenizer
    :param report: of its training
    :param corpus: which it goes on reading too, so that nothing is forgotten
    :param config: how many corrections and steps, and at which rate; nothing is done where it says 0 steps
    :param folder: of the training; token ids, corrections and the resumable state are kept there
    :param device: "cpu", "cuda" or "auto"
    :param sources: where it plays
    :return: the report, with held-out figures of the model as it is now, and "corrections"
    :raises KeyboardInterrupt: after Ctrl-C, when the step is done and its state is kept
    """
    if not config.correction_steps:
        return report
    examples = encoded(corpus, tokenizer, folder, read_manifest(corpus)["sha256"])
    held_out, order = held_out_and_rest(examples, config)
    whole, rounds = examples, []
    for number in range(1, config.correction_rounds + 1):
        lines = _told(model.cpu(), tokenizer, config, folder, sources, number)
        whole = join(whole, encode(lines, tokenizer))
        stream = _mixed(whole, order, np.arange(len(examples), len(whole)), replace(config, seed=config.seed + number))
        model.to(torch.device(check_device(device)))  # type: ignore[arg-type]  # transformers wraps torch's signature
        run = train_model(model, whole, stream, _phase(config), folder / STATE.format(number), f"correcting {number}")
        rounds.append({"lines": len(lines), "sha256": digest(lines), **run})
    figures = evaluate(model, examples, held_out, config)
    model.cpu()
    return report | figures | {"corrections": rounds}


def _phase(config: PretrainConfig) -> PretrainConfig:
    rate = config.correction_rate
    return replace(
        config,
        steps=config.correction_steps,
        learning_rate=rate,
        warmup_steps=WARMUP_STEPS,
        embedding_warmup_steps=WARMUP_STEPS,
    )


def _mixed(
    examples: Examples, old: NDArray[np.int64], new: NDArray[np.int64], config: PretrainConfig
) -> Iterator[NDArray[np.int64]]:
    """Batches of corrections and, so that nothing is forgotten, of the corpus."""
    rng, lengths = np.random.default_rng([config.seed, 2]), examples.lengths()
    streams = [batches(lengths, lines, config.batch_tokens, config.seed) for lines in (old, new)]
    while True:
        yield next(streams[int(rng.random() < config.correction_share)])


def _told(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainConfig,
    folder: Path,
    sources: Sequence[Source],
    number: int,
) -> list[Line]:
    """The corrections of a round, from disk if this model has told them before."""
    made_from, path = _made_from(model, config), folder / LINES.format(number)
    entry = folder / ENTRY.format(number)
    found = _kept(path, entry, made_from)
    if found is not None:
        return found
    model.eval()
    ask = asker(model, tokenizer, config.context)
    told = tell_corrections(ask, config.correction_lines, config.seed + number, sources)
    with tqdm(total=config.correction_lines, desc=f"playing {number}", unit="line") as progress:
        lines: list[Line] = []
        for some in told:
            lines += some
            progress.update(len(some))
    write_text(path, "".join(f"{as_text(line)}\n" for line in lines))
    write_text(entry, json.dumps({"made_from": made_from, "sha256": digest(lines)}))
    return lines


def _made_from(model: LlamaForCausalLM, config: PretrainConfig) -> str:
    whole = hashlib.sha256(f"{config.correction_lines} {config.seed}".encode())
    for parameter in model.parameters():
        whole.update(parameter.detach().cpu().to(torch.float32).numpy().tobytes())
    return whole.hexdigest()


def _kept(path: Path, entry_path: Path, made_from: str) -> list[Line] | None:
    try:
        entry = json.loads(entry_path.read_text(encoding="utf-8"))
        lines = [as_line(text) for text in path.read_bytes().splitlines()]
    except (OSError, ValueError):
        return None
    return lines if entry == {"made_from": made_from, "sha256": digest(lines)} else None
