"""What ships with a pretrained model: float16 weights, tokenizer, manifest, and a card that says what it read."""

import json
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sb3_llm.pretrain.sources import HELD_OUT

CARD = """# The embedded model of sb3_llm

A Llama-shaped causal language model of {parameters:,} parameters, trained from scratch, with its own byte-level BPE
of {vocab_size} tokens and a context of {context} tokens. Weights are stored in float16.

## What it read

{lines:,} lines that this project wrote: what an agent saw, and the phrase an expert chose. The expert is the BabyAI
bot that ships with minigrid in BabyAI levels, and the shortest path in mazes made by depth-first search (training
split only). In most stories some steps are random, and in `sb3_llm/Maze-v0` some wrong branches are searched, so that
odd states are told as well. `manifest.json` lists each source with its number of episodes and lines, a hash of the
lines, and the hash of every maze. To make it again:

    {command}

It took {tokens:,} tokens in {steps:,} steps and {minutes:.0f} minutes on {device}.

| source | lines |
|---|---|
{table}

## What it never saw

Every environment whose id starts with {held_out}; test-split mazes; mazes of the Wilson and Kruskal generators. The
corpus code refuses them, and a test checks the manifest.

Some sources are kin of held-out tasks: BabyAI's GoToDoor, GoToObj and PutNext of MiniGrid's GoToDoor, GoToObject and
PutNear; UnlockLocal, with key and door in one room, of DoorKey; mazes told in MiniGrid's way of SimpleCrossing.

## On {held_out_lines:,} lines kept from training

perplexity per prompt token {prompt_perplexity:.3f}, per phrase token {phrase_perplexity:.3f}; the likeliest first token
is the expert's in {first_token_accuracy:.1%}.

## What it is not

It knows the words of these small worlds and nothing else: no general English, no facts, no dialogue. It imitates
experts that see more than it does, so its zero-shot policy is a start for reinforcement learning, not a solution.
"""


def publish(
    folder: Path,
    lm: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    manifest: dict[str, Any],
    report: dict[str, Any],
) -> None:
    """
    Write the folder that the package ships, which is also a plain transformers folder.

    :param folder: where to
    :param lm: the trained model; its weights are rounded to float16 in place
    :param tokenizer: its tokenizer
    :param manifest: of the corpus
    :param report: of the training
    """
    lm.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    whole = {"training": report, "corpus": manifest}
    (folder / "manifest.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        model_card(lm.num_parameters(), len(tokenizer), manifest, report), encoding="utf-8"
    )


def model_card(parameters: int, vocab_size: int, manifest: dict[str, Any], report: dict[str, Any]) -> str:
    """:return: the card, in Markdown, from nothing but the manifest and the report."""
    config = report["config"]
    settings = f"--lines {manifest['asked']} --steps {config['steps']} --seed {config['seed']}"
    rows = [
        f"| {source['env_id']} {source['env_kwargs'] or ''} | {source['lines']:,} |" for source in manifest["sources"]
    ]
    return CARD.format(
        parameters=parameters,
        vocab_size=vocab_size,
        command=f"sb3-llm pretrain --out FOLDER {settings}",
        lines=manifest["lines"],
        minutes=report["seconds"] / 60,
        table="\n".join(rows),
        held_out=", ".join(f"`{name}`" for name in HELD_OUT),
        **{name: config[name] for name in ("context", "steps", "held_out_lines")},
        **{
            name: report[name]
            for name in ("tokens", "device", "prompt_perplexity", "phrase_perplexity", "first_token_accuracy")
        },
    )
