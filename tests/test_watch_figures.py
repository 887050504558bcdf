"""PolicyWatch: figures that agree with plain computations, and when it looks."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, TextObservation
from sb3_llm.callbacks import PolicyWatch
from sb3_llm.decisions import Decisions, entropy
from sb3_llm.errors import SetupError
from sb3_llm.fluency import encode_texts, perplexity
from sb3_llm.language_model import load_language_model
from sb3_llm.probes import LABEL, labels
from tests.test_policy import Follow, follow_env, say
from tests.tiny import byte_level_tokenizer, tiny_lm
from tests.watching import (
    ALWAYS,
    BEFORE_AN_UPDATE,
    TEXTS,
    Plainly,
    forced_env,
    paths_env,
    scale,
    train,
)

pytestmark = pytest.mark.filterwarnings(r"ignore:after \d+ steps")  # where a test is about something else

# --- figures


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (PPO, follow_env),
        (A2C, follow_env),
        (TRPO, follow_env),
        (MaskablePPO, follow_env),
        (MaskablePPO, forced_env),
        (MaskablePPO, paths_env),
    ],
)
def test_figures_agree_with_plain_ones_and_are_logged(
    algorithm: Any, env: Callable[[], gym.Env[Any, Any]], gpt2_folder: Path, tmp_path: Path
) -> None:
    """The policy differs from its base model from the start, so that no figure is trivially zero."""
    watch = PolicyWatch(every=1, probes=2, texts=TEXTS, max_kl=math.inf, max_perplexity=math.inf)
    first: dict[str, float] = {}

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            first.update(watch.values if not first else {})

    kind = MaskableLLMPolicy if algorithm is MaskablePPO else LLMPolicy
    vec_env = DummyVecEnv([env])
    base = kind(vec_env.observation_space, vec_env.action_space, lambda _: 0.0, model=str(gpt2_folder))
    plainly = Plainly(base)
    trained = train(
        gpt2_folder, watch, Keep(), plainly, algorithm=algorithm, env=env, change=scale(0.5), logged=tmp_path, steps=64
    )
    assert plainly.found["train/kl_to_base"] > 0.01
    assert {name: first[name] for name in plainly.found} == pytest.approx(plainly.found, rel=1e-4)
    assert first["watch/first_epoch_ratio_error"] <= 1e-5
    assert first["watch/perplexity_base"] == pytest.approx(
        perplexity(base.lm, encode_texts(TEXTS, base.tokenizer, base.lm))
    )
    assert first["watch/perplexity"] != pytest.approx(first["watch/perplexity_base"], rel=0.01)
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert len(rows) == 3, "two rollouts, and what the last update has done"
    assert {name: rows[0][name] for name in first} == pytest.approx(first)
    assert set(first) >= ALWAYS | BEFORE_AN_UPDATE
    assert {name: rows[-1][name] for name in watch.values} == pytest.approx(watch.values)
    assert set(watch.values) >= ALWAYS
    assert watch.values["watch/entropy"] != first["watch/entropy"]
    assert {name.split("/")[1] for name in first if name.startswith("probe/")} == {"0", "1"}
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert set(first) <= set(header)
    assert "kl_to_base" in (tmp_path / "log.txt").read_text()
    assert trained.policy.scoring_route == "packed"


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_the_ratio_is_computed_as_the_update_does(algorithm: Any, gpt2_folder: Path) -> None:
    calls: list[tuple[bool, bool, int]] = []

    def spy(policy: Any) -> None:
        evaluate = policy.evaluate_actions

        def evaluate_actions(obs: torch.Tensor, actions: torch.Tensor, **masks: Any) -> Any:
            calls.append((torch.is_grad_enabled(), policy.training, len(actions)))
            assert not policy._scorer.memo._answers
            return evaluate(obs, actions, **masks)

        policy.evaluate_actions = evaluate_actions

    train(gpt2_folder, PolicyWatch(texts=TEXTS, samples=24), algorithm=algorithm, change=spy)
    sizes = [24] if algorithm is A2C else [16, 8]
    assert calls[: len(sizes)] == [(True, True, size) for size in sizes]


def test_entropy_of_known_distributions() -> None:
    """Three decisions between three of four actions, evenly; one that is sure; one that has no choice."""
    even, none = math.log(1 / 3), -math.inf
    log_probs = torch.tensor([[even, even, even, none], [0.0, -1e4, none, none], [none, 0.0, none, none]]).double()
    counts = {("a", None, None): 3, ("b", None, None): 1, ("c", None, None): 1}
    found = entropy([Decisions(counts, Counter(), log_probs)])
    assert found["watch/entropy"] == pytest.approx(3 * math.log(3) / 5)
    assert found["watch/entropy_share"] == pytest.approx(3 * math.log(3) / (3 * math.log(3) + math.log(2)))
    alone = Decisions({("c", None, None): 7}, Counter(), log_probs[2:])
    assert entropy([alone]) == {"watch/entropy": 0.0}


def test_the_base_model_is_asked_about_some_prompts(gpt2_folder: Path) -> None:
    asked: list[int] = []

    def spy(policy: Any) -> None:
        ask_base = policy.base_log_probs
        policy.base_log_probs = lambda prompts, phrases: asked.append(len(prompts)) or ask_base(prompts, phrases)
        scale(0.5)(policy)

    watches = [PolicyWatch(texts=TEXTS, compared=most) for most in (8, 128)]
    train(gpt2_folder, *watches, change=spy)
    assert (asked[0], asked[2]) == (8, 8)
    assert 8 < asked[1] <= 32
    few, all_of_them = (watch.values["train/kl_to_base"] for watch in watches)
    assert few == pytest.approx(all_of_them, rel=0.5)
    assert few != all_of_them


def test_perplexity_is_that_of_transformers(llama_folder: Path) -> None:
    lm, tokenizer = load_language_model(str(llama_folder))
    losses, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        losses += lm(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert perplexity(lm, encode_texts(TEXTS, tokenizer, lm)) == pytest.approx(math.exp(losses / tokens), rel=1e-5)


def test_long_texts_are_cut_to_the_context() -> None:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm("gpt2", len(tokenizer), n_positions=16)
    parts = encode_texts([TEXTS[1] * 3, "A wall."], tokenizer, lm)
    assert max(map(len, parts)) == 16
    assert list(chain(*parts[:-1])) == tokenizer(TEXTS[1] * 3)["input_ids"]
    with pytest.raises(SetupError, match="two tokens or more"):
        encode_texts(["A", ""], tokenizer, lm)


def test_probes(gpt2_folder: Path, tmp_path: Path) -> None:
    given = PolicyWatch(probes=["Do: drop.\nAction:"])
    taken = PolicyWatch(probes=2)
    model = train(gpt2_folder, given, taken, logged=tmp_path)
    assert given.probes == [("Do: drop.\nAction:", None, None)]
    assert len({prompt for prompt, *_ in taken.probes}) == 2
    with torch.no_grad():
        for watch in (given, taken):
            expected = model.policy.action_log_probs([prompt for prompt, *_ in watch.probes]).exp()
            for place, row in enumerate(expected.tolist()):
                found = {phrase: watch.values[f"probe/{place}/{phrase}"] for phrase in Follow.phrases}
                assert found == pytest.approx(dict(zip(Follow.phrases, row, strict=True)), rel=1e-5)
    assert "Do: " in json.loads((tmp_path / "progress.json").read_text().splitlines()[0])["probe/0"]


def test_names_of_probes_suit_tables_and_csv() -> None:
    long = "take the golden key from the wooden "
    phrases = ["turn left", f"{long}chest", f"{long}box", "say, \"hi\"/\n'bye'", "a b", "a  b"]
    names = labels(phrases)
    assert names[0] == "turn left"
    assert len(set(names)) == len(names)
    assert not any(set(name) & set(',"/\n') or len(name) > LABEL for name in names)


def test_many_long_phrases_do_not_break_the_table(gpt2_folder: Path, tmp_path: Path) -> None:
    class Many(Follow):
        def offer(self, obs: np.ndarray, info: dict[str, Any]) -> dict[str, int]:
            return {f"take the very same golden key from the big chest number {n}": n % 3 for n in range(9)}

    def env() -> gym.Env[Any, Any]:
        return TextObservation(env := Many(), describe=say, candidates=env.offer, slots=9)

    watch = PolicyWatch(texts=TEXTS)
    train(gpt2_folder, watch, env=env, logged=tmp_path)
    assert sum(name.startswith("probe/") for name in watch.values) == 27
    assert "probe" not in (tmp_path / "log.txt").read_text()


# --- when it looks


def test_looks_as_often_as_asked(gpt2_folder: Path) -> None:
    class Count(PolicyWatch):
        def _report(self, values: dict[str, float], ended: bool = False) -> None:
            super()._report(values, ended)
            looks.append(self.num_timesteps)

    looks: list[int] = []
    train(gpt2_folder, Count(texts=TEXTS, every=2), steps=128)
    assert looks == [32, 96, 128]
    looks.clear()
    train(gpt2_folder, Count(texts=TEXTS), algorithm=A2C, n_steps=4, steps=600)  # 8 decisions in a rollout
    assert looks == [8, 520, 600]


def test_small_rollouts_count_together(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS, every=1)
    train(gpt2_folder, watch, algorithm=A2C, n_steps=5, steps=100)
    assert sum(map(len, watch._window)) == 40
    assert len(watch._window) == 4


def test_another_callback_may_have_read_the_buffer(gpt2_folder: Path) -> None:
    """RolloutBuffer.get flattens its arrays for good."""

    class Read(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            state = np.random.get_state()
            next(self.model.rollout_buffer.get(7))
            np.random.set_state(state)

    before, after = PolicyWatch(texts=TEXTS), PolicyWatch(texts=TEXTS)
    train(gpt2_folder, before, Read(), after)
    assert before.values == after.values
