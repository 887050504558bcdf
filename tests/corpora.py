"""Small corpora of given lines, as :func:`sb3_llm.pretrain.corpus.write_corpus` would leave them."""

import json
from collections.abc import Sequence
from pathlib import Path

from sb3_llm.pretrain.corpus import FORMAT, as_text, digest
from sb3_llm.pretrain.stories import Line

#: The shape of a model that is trained in no time.
TINY: dict[str, int] = {"hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2, "vocab_size": 300}
#: The phrase follows from the wall's side, so there is something to learn; the first words are all different.
PHRASES = {"left": "turn right", "right": "go forward", "no": "pick up"}
LINES = [
    Line(f"Goal: go to the {color} {thing}. Ahead {steps} free, {side} wall.\nAction:", f" {phrase}\n")
    for color in ("red", "blue", "green")
    for thing in ("ball", "key", "box")
    for steps in range(5)
    for side, phrase in PHRASES.items()
]


def save_corpus(folder: Path, lines: Sequence[Line]) -> Path:
    """:return: the folder, which holds the lines as one part."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lines.jsonl").write_text("".join(f"{as_text(line)}\n" for line in lines), encoding="utf-8")
    entry = {"kind": "lines", "lines": len(lines), "sha256": digest(lines)}
    manifest = {"format": FORMAT, "seed": 0, "asked": len(lines), "lines": len(lines), "sha256": digest(lines)}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sources": [entry]}))
    return folder
