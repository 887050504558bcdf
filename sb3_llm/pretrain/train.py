"""The training loop of the embedded model: next-token prediction on the corpus, most of it on the phrases."""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.folder import write_whole
from sb3_llm.pretrain.corpus import lines_of, read_lines, read_manifest
from sb3_llm.pretrain.data import NO_LOSS, Examples, batches, collate, encode, load_examples, save_examples
from sb3_llm.pretrain.initial import plant
from sb3_llm.pretrain.settings import PretrainConfig, check_config, check_device, claim
from sb3_llm.pretrain.sources import LISTS, ORDERS, REWORDED
from sb3_llm.pretrain.tokenizer import train_tokenizer

STATE = "state.pt"
ROPE_THETA = 100_000.0  # of its few dimensions, a head can then compare more of them over a whole text
TOKENIZER_LINES = 40_000  # evenly spaced in the corpus: enough to find its words


def token_losses(model: LlamaForCausalLM, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """:return: cross-entropy of every position, (B, S), zero where there is no target."""
    logits = model(input_ids=ids, use_cache=False).logits  # (B, S, V)
    return functional.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none", ignore_index=NO_LOSS)


def build_model(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    lay_out: Callable[[LlamaForCausalLM], None] = plant,
) -> LlamaForCausalLM:
    """
    :param config: shape and seed of the model
    :param tokenizer: its words
    :param lay_out: arranges the fresh weights, in place
    :return: a Llama-shaped model that has learnt nothing
    """
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            attention_bias=True,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    lay_out(model)
    return model


def learning_rate(step: int, warmup_steps: int, config: PretrainConfig) -> float:
    """:return: the rate at a step: a linear warm-up, times half a cosine down to a tenth of the peak."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return config.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * step / config.steps))


def set_learning_rates(optimizers: Sequence[torch.optim.Optimizer], step: int, config: PretrainConfig) -> None:
    """Set a step's rates: of the matrices inside the layers, and of all else, which is warmed up longer."""
    for optimizer, warmup in zip(optimizers, (config.warmup_steps, config.embedding_warmup_steps), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, warmup, config)


def make_optimizers(model: LlamaForCausalLM, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """
    Muon (Jordan et al. 2024) for the matrices inside the layers, scaled as AdamW's steps are (arXiv 2502.16982), and
    AdamW for embeddings, norms and biases.

    :return: the two; after 300 steps Muon's loss is where AdamW's alone is much later (benchmarks/LOG.md)
    """
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(inner, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=config.weight_decay),
    ]


def pretrain(
    corpus: Path, config: PretrainConfig, folder: Path, device: str = "auto"
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, dict[str, Any]]:
    """
    Train a model on a corpus from scratch. Interrupted, it goes on from its last state in ``folder``; on a CPU it ends
    in the same weights, bit for bit.

    :param corpus: folder that :func:`sb3_llm.pretrain.corpus.write_corpus` wrote
    :param config: shape and training of the model
    :param folder: where token ids and the resumable state are kept
    :param device: "cpu", "cuda" or "auto"
    :return: model, tokenizer, and a report: steps, tokens, seconds and held-out figures
    :raises SetupError: if the corpus is spoilt or too small to hold lines out, an option can't work, or the folder
        holds a training with other settings
    :raises KeyboardInterrupt: after Ctrl-C, when the step is done and its state is kept
    """
    device = check_device(device)
    manifest = read_manifest(corpus)
    check_config(config, manifest["lines"])
    claim(folder, {"config": asdict(config), "sha256": manifest["sha256"]})
    every = max(1, manifest["lines"] // TOKENIZER_LINES)
    texts = (line.text() for line in islice(read_lines(corpus), 0, None, every))
    tokenizer = train_tokenizer(texts, config.vocab_size, config.context)
    examples = encoded(corpus, tokenizer, folder, manifest["sha256"])
    held_out, order = held_out_and_rest(examples, config)
    model = build_model(config, tokenizer)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps torch's signature
    first = (*lines_of(manifest, LISTS), *lines_of(manifest, ORDERS))
    stream = _batches(examples, order, first, lines_of(manifest, REWORDED), config)
    run = train_model(model, examples, stream, config, folder / STATE)
    report = run | evaluate(model, examples, held_out, config) | {"config": asdict(config), "device": device}
    model.cpu()
    return model, tokenizer, report


def held_out_and_rest(examples: Examples, config: PretrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """:return: the lines that are kept from training, and all others."""
    order = np.random.default_rng(config.seed).permutation(len(examples))
    return order[: config.held_out_lines], order[config.held_out_lines :]


def encoded(corpus: Path, tokenizer: PreTrainedTokenizerFast, folder: Path, sha256: str) -> Examples:
    """:return: the corpus as token ids, from disk if it was encoded with the same tokenizer before."""
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()
    made_from = f"{sha256} {hashlib.sha256(vocabulary).hexdigest()}"
    examples = load_examples(folder, made_from)
    if examples is None:
        save_examples(encode(read_lines(corpus), tokenizer), folder, made_from)
        examples = load_examples(folder, made_from)
        assert examples is not None
    return examples


def _batches(
    examples: Examples, order: np.ndarray, first: Sequence[int], reworded: Sequence[int], config: PretrainConfig
) -> Iterator[np.ndarray]:
    """:return: the lines of each batch: of the first ones, if there are any, then of reworded ones too, then of all."""
    lengths, streams = examples.lengths(), []
    for kinds, share in (((*first,), config.practice_share), ((*first, *reworded), config.reworded_share)):
        practice = order[np.isin(order, kinds)]
        steps = round(share * config.steps) if len(practice) else 0
        streams.append(islice(batches(lengths, practice, config.batch_tokens, config.seed), steps))
    return chain(*streams, batches(lengths, order, config.batch_tokens, config.seed))


def train_model(
    model: LlamaForCausalLM,
    examples: Examples,
    stream: Iterator[np.ndarray],
    config: PretrainConfig,
    state_path: Path,
    name: str = "pretraining",
) -> dict[str, Any]:
    """
    :param model: trained in place, where it is
    :param examples: lines as token ids
    :param stream: the lines of each batch
    :param config: steps, rates and batches
    :param state_path: of the resumable state, from which it goes on
    :param name: for the progress bar
    :return: how many steps, tokens and seconds
    :raises KeyboardInterrupt: after Ctrl-C, when the step is done and its state is kept
    """
    optimizers, device = make_optimizers(model, config), model.device
    model.train()
    run: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0}
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        run = state["run"]
    start, first = time.monotonic() - run["seconds"], run["step"]
    progress = tqdm(range(config.steps), desc=name, initial=first, unit="step")
    with progress, ctrl_c() as pressed:
        for step, batch in zip(range(config.steps), stream, strict=False):
            if step < first:  # replay the data order up to where the run stopped
                continue
            ids, targets, weights = (part.to(device) for part in collate(examples, batch, config.prompt_weight))
            set_learning_rates(optimizers, step, config)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                losses = token_losses(model, ids, targets)
            loss = (losses * weights).sum() / weights.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            run = {"step": step + 1, "tokens": run["tokens"] + ids.numel(), "seconds": time.monotonic() - start}
            progress.update()
            if step % 20 == 0:
                phrase = weights == 1.0
                progress.set_postfix(loss=f"{loss.item():.3f}", phrase_loss=f"{losses[phrase].mean().item():.3f}")
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps or pressed.is_set():
                kept = [optimizer.state_dict() for optimizer in optimizers]
                _save_state(state_path, {"model": model.state_dict(), "optimizers": kept, "run": run})
            if pressed.is_set():
                raise KeyboardInterrupt
    return run


@contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """
    Let a step be finished after Ctrl-C: amid one, optimizer and weights are at different steps. The second Ctrl-C does
    not wait.

    :return: what is set then
    """
    pressed, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def note(signum: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    if ours:  # else somebody has other plans for it
        signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _save_state(path: Path, state: dict[str, Any]) -> None:
    write_whole(path, lambda file: torch.save(state, file))


@torch.no_grad()
def evaluate(
    model: LlamaForCausalLM, examples: Examples, held_out: np.ndarray, config: PretrainConfig
) -> dict[str, float]:
    """
    :param model: the trained model
    :param examples: the corpus
    :param held_out: lines of it that the model has not seen
    :param config: for the batch size
    :return: perplexity per prompt token and per completion token, and how often the likeliest first token of a
        completion is the right one
    """
    device, sums = model.device, np.zeros(5)
    by_length = held_out[np.argsort(examples.lengths()[held_out], kind="stable")]
    for start in range(0, len(by_length), 32):
        batch = by_length[start : start + 32]
        # Here the weights only tell prompt and completion apart.
        ids, targets, weights = (part.to(device) for part in collate(examples, batch, prompt_weight=0.5))
        logits = model(input_ids=ids, use_cache=False).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=NO_LOSS)
        first = (weights == 1.0).int().argmax(1)
        rows = torch.arange(len(batch), device=device)
        right = (logits[rows, first].argmax(-1) == targets[rows, first]).sum()
        completion, prompt = weights == 1.0, (weights > 0) & (weights < 1)
        sums += np.array(
            [losses[prompt].sum(), prompt.sum(), losses[completion].sum(), completion.sum(), right], dtype=np.float64
        )
    return {
        "prompt_perplexity": math.exp(sums[0] / sums[1]),
        "phrase_perplexity": math.exp(sums[2] / sums[3]),
        "first_token_accuracy": float(sums[4] / len(held_out)),
    }
