"""The model card: what a model read, what it never saw, how well it does. All numbers are the manifest's."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sb3_llm.pretrain.corrections import SURE
from sb3_llm.pretrain.drills import MAX_DRILLS
from sb3_llm.pretrain.lists import MAX_THINGS
from sb3_llm.pretrain.samples import WORLD
from sb3_llm.pretrain.sayings import CHINESE_LISTS, CHINESE_SHARE, DETOUR
from sb3_llm.pretrain.settings import config_for
from sb3_llm.pretrain.sources import HELD_OUT, MAX_MAZE
from sb3_llm.pretrain.stories import DRILL_SHARE, PLAN_SHARE, QUESTION_SHARE, SUMMARY_SHARE, TELLINGS
from sb3_llm.words.languages import AXES

CARD = """# The embedded model of sb3_llm

A Llama-shaped causal language model of {parameters:,} parameters, trained from scratch, with its own byte-level BPE
of {vocabulary:,} tokens and a context of {context:,} tokens. {size:.1f} MB on disk, in float16. Before any training,
its weights were laid out so that it soon learns to look things up: heads that look a few tokens back, heads that say
again what stood next the last time, and layers in which like looks for like (`sb3_llm/pretrain/initial.py`). The first
{practice:.0%} of the steps were on lists and orders, the next {reworded:.0%} on reworded lists as well.{corrections}

## What it read

{lines:,} lines that this project wrote, told with seed {seed}: {stories:,} of stories, in which an agent says what it
sees and an expert what it does next, and {sayings:,} of sayings: {kinds}.

Who told the stories. In mazes, an expert that tries the most promising cell seen and not walked; in MiniGrid and
BabyAI worlds, a planner. Both know no more than the agent: what it has seen in this episode. {bot:.0%} of the lines are
told by the BabyAI bot that ships with minigrid, which knows the whole level. {episodes:,} episodes; {dropped:,} more
were dropped, because the expert failed or thought for too long. As in DAgger, some steps of most stories are random
(a chance of {detours}, drawn for each story), and the phrase is always what the expert would do: so odd states are told
as well.

How they are told. {tellings}, in shares of the stories. Drawn words are other names, phrases, sentences and invented
words. {summary:.0%} of the stories tell a summary of what the agent saw and did before, the others only its last
actions. {plans:.0%} of a story's steps also say what they are for, and {questions:.0%} also ask about the view. In
rooms, {drills:.0%} of the summaries are followed by drills: up to {max_drills} other missions, each with what the
planner would do for it in the same moment. The lists are invented moments of no world, with up to {max_things} things
in the words of a summary, a mission for each and what to do for it; the reworded ones are the same in other words,
{chinese_lists:.0%} of them Chinese. A text in which the actions have other phrases begins with what they mean; the
orders are such beginnings, mostly of invented words, and what to say for an action that is asked for. Of the other
sayings {chinese:.0%} are Chinese. The talks are moments of
`sb3_llm/Dialogue-v0` after acts of its expert, {detour:.0%} of them random, each with the expert's next act: so
success there is no transfer.

The text's summary holds the first move and the length of ways to what was seen, found by breadth-first search over
what the agent itself saw. So part of the navigation is the describer's, and not the model's.

| source | lines told by planner | by bot | share |
|---|---:|---:|---:|
{table}

`manifest.json` has each source's episodes, a sha256 of its lines, and the hash of every maze. To make it again:

    {command}

It took {tokens:,} tokens in {steps:,} steps and {minutes:.0f} minutes on {device}.{settings}

## What it never saw

Every environment whose id starts with {held_out}. Test-split mazes, mazes of the Wilson and Kruskal generators, and
mazes of more than {max_maze} cells a side. The words that `make_env(wording="held-out ...")` says, of {axes}: none
stands in the corpus in its role. The corpus code refuses these environments, and tests check manifest and lines.

What is kin to them, and was read. `sb3_llm/Rooms-v0` makes worlds under MiniGrid's rules that teach what the held-out
ids need, in other layouts and sizes: rooms, gaps, lava, keys, locked and blocked doors, boxes, things to fetch, to put
down and to say "done" at. Two skills have no kin in them: to compare things as in Memory, and to dodge what moves as in
Dynamic-Obstacles. The missions of MiniGrid's own sentences occur there, word for word. No world of it is one that a
MiniGrid or BabyAI id makes. BALROG's BabyAI tasks are of families that are in the corpus (go to, pick up, open, put
next to: GoToLocal, PickupLoc, OpenDoor, PutNextLocal and others), so success there is no transfer to a new family; its
two-part task, pick up and then go to, is one of the kinds of `sb3_llm/Rooms-v0`.

## On {held_out_lines:,} lines kept from training

| perplexity per prompt token | per phrase token | likeliest first token is the expert's |
|---:|---:|---:|
| {prompt_perplexity:.3f} | {phrase_perplexity:.3f} | {first_token_accuracy:.1%} |

These lines are of the same sources, so they measure what was learnt, not how far it carries. The phrase column counts
whatever completes a line: phrases, plans, answers, the last turn of a dialogue, statements.

## What it says

The likeliest words, token by token, to the end of the line, by the weights as they are stored. The world is one of
`{world}` that no story has. Where the expert or the corpus would say something else, that stands behind it.
{samples}
## What it is not

It knows the words of these small worlds and nothing else: no general English or Chinese, no facts, no dialogue beyond
the patterns it read. It imitates experts of limited sight, so its zero-shot policy is a start for reinforcement
learning, not a solution.
"""

OPTIONS = {"steps": "steps", "hidden_size": "hidden", "layers": "layers", "heads": "heads", "vocab_size": "vocab"}
LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}


def model_card(parameters: int, vocabulary: int, size: int, whole: dict[str, Any]) -> str:
    """
    :param parameters: of the model
    :param vocabulary: tokens of its tokenizer
    :param size: of its weights, in bytes
    :param whole: the published manifest: "corpus", "training" and "samples"
    :return: the card, in Markdown
    """
    corpus, report = whole["corpus"], whole["training"]
    figures = ("tokens", "device", "prompt_perplexity", "phrase_perplexity", "first_token_accuracy")
    return CARD.format(
        parameters=parameters,
        vocabulary=vocabulary,
        size=size / 1e6,
        minutes=report["seconds"] / 60,
        samples=_samples(whole["samples"]),
        world=_named(*WORLD),
        **_told(corpus),
        **_recipe(),
        corrections=_corrections(report),
        **_training(corpus, report["config"]),
        **{name: report[name] for name in figures},
    )


def _corrections(report: dict[str, Any]) -> str:
    """What it learnt by playing itself; nothing, where it did not."""
    found, config = report.get("corrections"), report["config"]
    if not found:
        return ""
    lines, steps = (sum(each[name] for each in found) for name in ("lines", "step"))
    share = config["correction_share"]
    return (
        f" Then it played itself\nin the worlds of the table that a planner tells of, in {len(found)} rounds, and "
        f"{lines:,} lines say what the planner would\nhave done there (DAgger): mostly where the model gave that less "
        f"than {SURE:.0%}. It was trained for {steps:,} more steps,\n{share:.0%} of them on these lines."
    )


def _told(corpus: dict[str, Any]) -> dict[str, Any]:
    """What the corpus's manifest says."""
    stories = [entry for entry in corpus["sources"] if "env_id" in entry]
    sayings = [entry for entry in corpus["sources"] if "kind" in entry]
    detours = sorted({detour for entry in stories for detour in entry["detours"]})
    return {
        "lines": corpus["lines"],
        "seed": corpus["seed"],
        "stories": _lines(stories),
        "sayings": _lines(sayings),
        "kinds": ", ".join(f"{entry['lines']:,} {entry['kind']}" for entry in sayings),
        "bot": _lines(entry for entry in stories if entry["use_bot"]) / corpus["lines"],
        "episodes": sum(entry["episodes"] for entry in stories),
        "dropped": sum(entry["dropped"] for entry in stories),
        "detours": ", ".join(f"{detour:.0%}" for detour in detours),
        "table": "\n".join(_rows(stories, corpus["lines"])),
    }


def _recipe() -> dict[str, Any]:
    """What holds for every corpus of this version."""
    told = [f"{share:.0%} {wording} {LANGUAGE_NAMES[language]}" for (language, wording), share in TELLINGS.items()]
    return {
        "tellings": ", ".join(told),
        "summary": SUMMARY_SHARE,
        "plans": PLAN_SHARE,
        "questions": QUESTION_SHARE,
        "drills": DRILL_SHARE,
        "max_drills": MAX_DRILLS,
        "chinese": CHINESE_SHARE,
        "chinese_lists": CHINESE_LISTS,
        "detour": DETOUR,
        "max_things": MAX_THINGS,
        "held_out": ", ".join(f"`{name}`" for name in HELD_OUT),
        "max_maze": MAX_MAZE,
        "axes": ", ".join(AXES),
    }


def _training(corpus: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The command that makes the model again, and what no option of it says."""
    options = {option: config[name] for name, option in OPTIONS.items()}
    asked = asdict(config_for(corpus["asked"], seed=config["seed"], precision=config["precision"], **options))
    plain = asdict(config_for(corpus["asked"]))
    named = [f"--{option} {config[name]}" for name, option in OPTIONS.items() if config[name] != plain[name]]
    named += [f"--precision {config['precision']}"] if config["precision"] != plain["precision"] else []
    others = {name: value for name, value in config.items() if asked.get(name) != value}
    command = ["sb3-llm pretrain --out FOLDER", f"--lines {corpus['asked']}", f"--seed {config['seed']}", *named]
    told = ", ".join(f"{name}={value}" for name, value in others.items())
    return {
        "command": " ".join(command),
        "settings": f" Settings that no option of the command has: {told}." if others else "",
        "practice": config["practice_share"],
        "reworded": config["reworded_share"],
        **{name: config[name] for name in ("context", "steps", "held_out_lines")},
    }


def _rows(stories: list[dict[str, Any]], n_lines: int) -> Iterable[str]:
    told: dict[str, list[int]] = {}
    for entry in stories:
        counts = told.setdefault(_named(entry["env_id"], entry["env_kwargs"]), [0, 0])
        counts[entry["use_bot"]] += entry["lines"]
    for name, (planner, bot) in told.items():
        yield f"| {name} | {planner:,} | {bot:,} | {(planner + bot) / n_lines:.1%} |"


def _samples(samples: list[dict[str, Any]]) -> str:
    """A block for each language and text; below the text what is asked, and what the model says."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for each in samples:
        right = f"   (expected: {each['expected']})" if each["expected"] not in ("", each["said"]) else ""
        told = f"{each['asked'].rstrip()} → {each['said']}{right}"
        blocks.setdefault((each["language"], each["text"]), []).append(told)
    fenced = ("\n".join([text, *told] if text else told) for (_, text), told in blocks.items())
    return "".join(f"\n```text\n{block}\n```\n" for block in fenced)


def _named(env_id: str, env_kwargs: dict[str, Any]) -> str:
    return " ".join([env_id, *(f"{name}={value}" for name, value in env_kwargs.items())])


def _lines(entries: Iterable[dict[str, Any]]) -> int:
    return sum(entry["lines"] for entry in entries)
