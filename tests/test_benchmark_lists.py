"""What the embedded model answers to lists told anew, and that a wrong answer counts as one."""

import json

import numpy as np
import torch

from sb3_llm.benchmarks.lists import RESULTS, SEED, right_answers, tellings
from sb3_llm.language_model import load_language_model
from sb3_llm.pretrain.stories import Exchange, Line
from sb3_llm.words.languages import LANGUAGES

torch.set_num_threads(1)


def test_right_and_wrong_answers_are_counted() -> None:
    lm, tokenizer = load_language_model("embedded")
    rng = np.random.default_rng(SEED)
    right = [tellings("en")["canonical"](rng) for _ in range(4)]
    assert right_answers(lm, tokenizer, right) == 1.0
    wrong = [Line(line.prompt, " go back\n") for line in right]
    assert right_answers(lm, tokenizer, wrong) == 0.0
    one = Line(right[0].prompt, right[0].completion, (Exchange(right[1].exchanges()[-1].prompt, " go back\n"),))
    assert right_answers(lm, tokenizer, [one]) == 0.5


def test_its_table_has_every_language_and_wording() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["right"]
    assert {language: list(row) for language, row in found.items()} == {
        name: list(tellings(name)) for name in LANGUAGES
    }
