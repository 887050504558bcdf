"""The training loop of the embedded model: next-token prediction on the corpus, most of it on the phrases."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.pretrain.corpus import Line
from sb3_llm.pretrain.tokenizer import train_tokenizer
from sb3_llm.prompt import DEFAULT_TEMPLATE, SEPARATOR, Template

NO_LOSS = -100  # what functional.cross_entropy passes over


@dataclass(frozen=True)
class PretrainConfig:
    """How the embedded model is built and trained."""

    hidden_size: int = 160
    intermediate_size: int = 432
    layers: int = 6
    heads: int = 5
    vocab_size: int = 1024  # at most; a small corpus has fewer words to merge
    context: int = 1024  # tokens
    steps: int = 2400
    batch_lines: int = 48
    learning_rate: float = 2e-3  # peak; warmed up, then a cosine to a tenth
    warmup_steps: int = 100
    weight_decay: float = 0.01
    prompt_weight: float = 0.05  # of a prompt token's loss beside a phrase token's
    held_out_lines: int = 1000  # kept from training, to measure on
    save_every: int = 500  # steps between resumable states
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One line as token ids; the last ``n_phrase`` are the phrase and the newline that ends it."""

    ids: list[int]
    n_phrase: int


def encode_lines(lines: Sequence[Line], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """
    :param lines: (observation text, phrase) pairs
    :param tokenizer: the model's
    :return: prompt, separator, phrase and newline as ids, jointly encoded as the policy will score them
    """
    template = Template(DEFAULT_TEMPLATE, [])
    prompts = [template.prompt(text) for text, _ in lines]
    wholes = [f"{prompt}{SEPARATOR}{phrase}\n" for prompt, (_, phrase) in zip(prompts, lines, strict=True)]
    prompt_ids, whole_ids = tokenizer(prompts)["input_ids"], tokenizer(wholes)["input_ids"]
    return [Example(whole, len(whole) - len(prompt)) for prompt, whole in zip(prompt_ids, whole_ids, strict=True)]


def batches(examples: Sequence[Example], config: PretrainConfig) -> Iterator[list[Example]]:
    """Batches for ever, the same for the same seed: shuffled, with lines of like length side by side."""
    rng = np.random.default_rng(config.seed)
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order), 50 * config.batch_lines):
            block = sorted(order[start : start + 50 * config.batch_lines], key=lambda i: len(examples[i].ids))
            starts = rng.permutation(np.arange(0, len(block), config.batch_lines))
            for first in starts:
                yield [examples[i] for i in block[first : first + config.batch_lines]]


def collate(batch: Sequence[Example], prompt_weight: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:return: ids, targets and loss weights, each (B, S); right-padded, which causal attention never looks at."""
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    targets = torch.full((len(batch), width), NO_LOSS)
    weights = torch.zeros(len(batch), width)
    for row, example in enumerate(batch):
        n = len(example.ids)
        ids[row, :n] = torch.tensor(example.ids)
        targets[row, : n - 1] = ids[row, 1:n]
        weights[row, : n - 1] = prompt_weight
        weights[row, n - 1 - example.n_phrase : n - 1] = 1.0
    return ids, targets, weights


def token_losses(model: LlamaForCausalLM, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """:return: cross-entropy of every position, (B, S), zero where there is no target."""
    logits = model(input_ids=ids, use_cache=False).logits  # (B, S, V)
    return functional.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none", ignore_index=NO_LOSS)


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """:return: a Llama-shaped model with fresh weights."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def learning_rate(step: int, config: PretrainConfig) -> float:
    """:return: the rate at a step: a linear warm-up, then half a cosine down to a tenth of the peak."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return config.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * step / config.steps))


def pretrain(
    lines: Sequence[Line], config: PretrainConfig, folder: Path, device: str = "auto"
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, dict[str, Any]]:
    """
    Train a model on a corpus from scratch. Interrupted, it goes on from its last state in ``folder``.

    :param lines: the corpus
    :param config: shape and training of the model
    :param folder: where the resumable state is kept
    :param device: "cpu", "cuda" or "auto"
    :return: model, tokenizer, and a report: steps, tokens, seconds and held-out figures
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if not 0 < config.held_out_lines < len(lines):
        raise SetupError(
            f"a corpus of {len(lines)} lines with held_out_lines={config.held_out_lines}",
            "some lines to measure on, and others left over to train on",
            "tell a longer corpus, or hold out fewer lines",
        )
    order = np.random.default_rng(config.seed).permutation(len(lines))
    lines = [lines[i] for i in order]
    tokenizer = train_tokenizer(
        (f"{text}\nAction: {phrase}\n" for text, phrase in lines), config.vocab_size, config.context
    )
    examples = encode_lines(lines, tokenizer)
    held_out, examples = examples[: config.held_out_lines], examples[config.held_out_lines :]
    model = build_model(config, tokenizer)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps torch's signature
    run = _train(model, examples, config, folder / "state.pt", device)
    report = run | evaluate(model, held_out, config) | {"config": asdict(config), "device": device}
    model.cpu()
    return model, tokenizer, report


def _train(
    model: LlamaForCausalLM, examples: Sequence[Example], config: PretrainConfig, state_path: Path, device: str
) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=config.weight_decay)
    run = {"step": 0, "tokens": 0, "seconds": 0.0}
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = state["run"]
    start, first = time.monotonic() - run["seconds"], run["step"]
    progress = tqdm(range(config.steps), desc="pretraining", initial=first, unit="step")
    for step, batch in zip(range(config.steps), batches(examples, config), strict=False):
        if step < first:  # replay the data order up to where the run stopped
            continue
        ids, targets, weights = (part.to(device) for part in collate(batch, config.prompt_weight))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        losses = token_losses(model, ids, targets)
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        run = {"step": step + 1, "tokens": run["tokens"] + ids.numel(), "seconds": time.monotonic() - start}
        progress.update()
        if step % 20 == 0:
            phrase = weights == 1.0
            progress.set_postfix(loss=f"{loss.item():.3f}", phrase_loss=f"{losses[phrase].mean().item():.3f}")
        if (step + 1) % config.save_every == 0:
            _save_state(state_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": run})
    progress.close()
    return run


def _save_state(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)  # a kill while writing leaves the old state whole


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, examples: Sequence[Example], config: PretrainConfig) -> dict[str, float]:
    """
    :param model: the trained model
    :param examples: lines it has not seen
    :param config: for the batch size
    :return: perplexity per prompt token and per phrase token, and how often the likeliest first token is the expert's
    """
    device, sums = model.device, np.zeros(5)
    for start in range(0, len(examples), config.batch_lines):
        batch = examples[start : start + config.batch_lines]
        # Here the weights only tell prompt and phrase apart.
        ids, targets, weights = (part.to(device) for part in collate(batch, prompt_weight=0.5))
        logits = model(input_ids=ids, use_cache=False).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=NO_LOSS)
        first = torch.tensor([len(e.ids) - 1 - e.n_phrase for e in batch], device=device)
        rows = torch.arange(len(batch), device=device)
        right = (logits[rows, first].argmax(-1) == targets[rows, first]).sum()
        phrase, prompt = weights == 1.0, (weights > 0) & (weights < 1)
        sums += [losses[prompt].sum(), prompt.sum(), losses[phrase].sum(), phrase.sum(), right]
    return {
        "prompt_perplexity": math.exp(sums[0] / sums[1]),
        "phrase_perplexity": math.exp(sums[2] / sums[3]),
        "first_token_accuracy": sums[4] / len(examples),
    }
