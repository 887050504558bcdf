"""The doctor: well on models that are, and planted faults found by the checks that are made for them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_llm import LLMPolicy, MaskableLLMPolicy, make_vec_env
from sb3_llm.doctor import CHECKS, Finding, as_json, as_table, examine, run
from sb3_llm.doctor.checks import PLAYING
from sb3_llm.doctor.report import MAKING
from sb3_llm.doctor.unchanged import weights
from sb3_llm.errors import SetupError
from sb3_llm.scoring import Scores
from tests.test_callbacks import paths_env
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm, unsplit_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:the policy starts out")

SETTINGS: dict[str, Any] = {"n_steps": 16, "seed": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Llama that is not sure of anything."""
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm("llama", len(tokenizer), torch.float32, std=0.1)
    return save_language_model(tmp_path_factory.mktemp("doctor"), lm, tokenizer)


def make(
    folder: str, policy: Any = LLMPolicy, algorithm: Any = PPO, env: dict[str, Any] | None = None, **options: Any
) -> Any:
    vec_env = make_vec_env("sb3_llm/Maze3x3-v0", 4, seed=0, **(env or {}))
    settings = SETTINGS | ({"batch_size": 32} if algorithm in (PPO, MaskablePPO) else {})
    return algorithm(policy, vec_env, policy_kwargs={"model": folder, **options}, **settings)


def failures(findings: list[Finding]) -> set[str]:
    return {each.name for each in findings if not each.passed}


# -- well --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetune", ["full", "lora", "top:1", "head"])
def test_a_sound_model_passes_and_is_as_it_was(folder: str, finetune: str) -> None:
    model = make(folder, finetune=finetune, lm_lr_scale=0.5, value_warmup=1)
    before = [tensor.clone() for _, tensor in weights(model.policy)]
    buffer, names = model.rollout_buffer, dict(vars(model))
    findings = examine(model)
    assert not failures(findings), as_json(findings)
    assert [each.name for each in findings] == list(CHECKS)
    assert all(torch.equal(tensor, old) for (_, tensor), old in zip(weights(model.policy), before, strict=True))
    assert not model.policy.optimizer.state
    assert model.rollout_buffer is buffer
    assert vars(model).keys() == names.keys()
    assert (model.num_timesteps, model.n_steps, model.batch_size) == (0, 16, 32)
    fresh = make(folder, finetune=finetune, lm_lr_scale=0.5, value_warmup=1)
    for each in (model, fresh):
        each.set_env(make_vec_env("sb3_llm/Maze3x3-v0", 4))
        each.set_random_seed(0)
        each.learn(64)
    mine, others = (dict(weights(each.policy)) for each in (model, fresh))
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, others[name], msg=name)


# TRPO differentiates twice, and takes a minute for it.
@pytest.mark.parametrize("algorithm", [A2C, pytest.param(TRPO, marks=pytest.mark.slow), MaskablePPO])
def test_other_algorithms(folder: str, algorithm: Any) -> None:
    if algorithm is MaskablePPO:
        env = DummyVecEnv([paths_env] * 4)  # its phrases come with each observation
        model = MaskablePPO(MaskableLLMPolicy, env, policy_kwargs={"model": folder}, batch_size=32, **SETTINGS)
    else:
        model = make(folder, algorithm=algorithm)
    findings = examine(model)
    assert not failures(findings), as_json(findings)


def test_numbers_told_as_numbers(folder: str) -> None:
    options = {"model": folder, "temperature": 20.0}  # "action 0" means nothing to this model
    findings = examine(PPO(LLMPolicy, "CartPole-v1", policy_kwargs=options, batch_size=16, **SETTINGS))
    assert not failures(findings), as_json(findings)


# -- planted faults ----------------------------------------------------------------------------------------------------


def dropout_comes_back(folder: str) -> Any:
    """As when a model is swapped in after the policy was made, or a config is loaded over it."""
    model = make(folder)
    for module in model.policy.lm.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.3
    return model


class ForgetsOne(LLMPolicy):
    """A weight that the optimizer does not have."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        del self.optimizer.param_groups[0]["params"][3]


class HoldsFrozen(LLMPolicy):
    """The usual ``optimizer(policy.lm.parameters())``: with weight decay, frozen weights would shrink."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        frozen = [each for each in self.lm.parameters() if not each.requires_grad]
        self.optimizer.param_groups[0]["params"].extend(frozen)


class SavesTooLittle(LLMPolicy):
    """A weight that is trained and not saved."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        return {name: each for name, each in state.items() if "layers.1.mlp.up_proj" not in name}


class SavesEverything(LLMPolicy):
    """Frozen weights in every checkpoint."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().state_dict(*args, **kwargs) | {"all of it": torch.zeros(2**20)}


class LowPrecision(LLMPolicy):
    """Log-probabilities rounded to bfloat16, as autocast around a policy does."""

    def evaluate_actions(self, *args: Any, **kwargs: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(*args, **kwargs)
        return values, log_prob.bfloat16(), entropy


def built(change: Callable[[Any], None]) -> type[LLMPolicy]:
    """A policy class with a fault in how its policies are built, so that a loaded one has it too."""

    class Faulty(LLMPolicy):
        def _build(self, lr_schedule: Any) -> None:
            super()._build(lr_schedule)
            change(self)

    return Faulty


def misread(change: Callable[[Scores, int], Scores]) -> Callable[[str], Any]:
    """A route whose answers are changed."""

    def plant(policy: Any) -> None:
        scorer = policy._scorer.scorer
        right = scorer.score
        scorer.score = lambda rows: change(right(rows), len(rows))

    return lambda folder: make(folder, built(plant))


def by_place(scores: Scores, rows: int) -> Scores:
    """A wrong mask: each action is off by a little, always the same."""
    wrong = 0.01 * torch.arange(scores.log_probs.shape[1], device=scores.log_probs.device)
    return scores._replace(log_probs=scores.log_probs + wrong)


def by_batch(scores: Scores, rows: int) -> Scores:
    """Padding that counts: a row's score depends on how many others are asked along."""
    tilted = scores.log_probs.clone()
    tilted[:, 0] += 0.01 * rows
    return scores._replace(log_probs=tilted)


def detached(scores: Scores, rows: int) -> Scores:
    """A prefix that is computed without gradients, at its worst."""
    return Scores(scores.log_probs.detach(), scores.features.detach())


def without_end_marks(policy: Any) -> None:
    """One phrase begins another, and nothing keeps them apart."""
    texts = tuple(text.rstrip("\n") for text in policy._fixed.texts)
    policy._fixed = policy._fixed._replace(texts=texts, ids=policy._scorer.tokens._joint.of(texts))


def tokenised_apart(policy: Any) -> None:
    """Phrases by themselves: a word at the start of a text has other tokens than within it."""
    ids = policy.tokenizer(list(policy.phrases))["input_ids"]
    policy._fixed = policy._fixed._replace(ids=tuple(map(tuple, ids)))


COLLIDING = {"phrases": ["go", "go on", "left", "right"]}


def sure_of_itself(folder: str) -> Any:
    """A prior that knows one phrase alone."""
    model = make(folder)
    with torch.no_grad():
        model.policy.lm.get_output_embeddings().weight.mul_(100)
    return model


def hooks_are_gone(folder: str) -> Any:
    """As in a copy of the optimizer, whose hooks torch drops: the language model learns at ten times its rate."""
    model = make(folder, lm_lr_scale=0.1)
    optimizer = model.policy.optimizer
    optimizer._optimizer_step_pre_hooks.clear()
    optimizer._optimizer_step_post_hooks.clear()
    return model


def nothing_moves(folder: str) -> Any:
    model = make(folder)
    model.lr_schedule = lambda left: 0.0
    return model


def frozen_weights_move(folder: str) -> Any:
    """Something outside of the optimizer writes into weights, as a moving average or a batch norm does."""
    model = make(folder, finetune="top:1")
    embeddings = model.policy.lm.get_input_embeddings().weight
    model.policy.optimizer.register_step_post_hook(lambda *_: embeddings.data.mul_(0.999))
    return model


def one_text_for_all(folder: str) -> Any:
    """A describer that says nothing."""
    return make(folder, env={"describe": lambda obs: "You are in a maze.", "history": 0})


PLANTED: dict[str, tuple[Callable[[str], Any], set[str]]] = {
    "dropout on after loading": (dropout_comes_back, {"dropout", "ratio before an update"}),
    "a weight absent from the optimizer": (lambda f: make(f, ForgetsOne), {"optimizer", "update"}),
    "frozen weights in the optimizer": (lambda f: make(f, HoldsFrozen, finetune="top:1"), {"optimizer"}),
    "a wrong mask": (misread(by_place), {"reference scorer"}),
    "padding that counts": (
        misread(by_batch),
        {"reference scorer", "batch and padding", "ratio before an update"},
    ),
    "no gradients": (misread(detached), {"reference scorer", "update"}),
    "log-probabilities in bfloat16": (lambda f: make(f, LowPrecision), {"dtype", "ratio before an update"}),
    "steps lost in bfloat16": (lambda f: make(f, dtype="bfloat16"), {"dtype", "update"}),
    "phrases that collide": (
        lambda f: make(f, built(without_end_marks), env=COLLIDING, temperature=10.0),
        {"phrases"},
    ),
    "phrases tokenised apart": (lambda f: make(f, built(tokenised_apart)), {"tokens at the join"}),
    "a deterministic prior": (sure_of_itself, {"initial policy"}),
    "a weight that is not saved": (lambda f: make(f, SavesTooLittle), {"saving and loading"}),
    "a zip with everything in it": (lambda f: make(f, SavesEverything), {"size of a zip"}),
    "an optimizer without its hooks": (hooks_are_gone, {"optimizer"}),
    "a learning rate of 0": (nothing_moves, {"update"}),
    "frozen weights that move": (frozen_weights_move, {"update", "saving and loading"}),
    "one text for all states": (one_text_for_all, {"observation text"}),
}


@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.filterwarnings("ignore:bfloat16 weights")
def test_a_planted_fault_is_found(folder: str, fault: str) -> None:
    plant, expected = PLANTED[fault]
    findings = examine(plant(folder))
    assert failures(findings) == expected, as_json(findings)
    assert all(each.mend for each in findings if not each.passed)


def test_a_check_that_raises_fails_and_the_others_run(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "phrases", lambda patient: 1 / 0)
    findings = examine(make(folder))
    assert failures(findings) == {"phrases"}
    assert "ZeroDivisionError: division by zero" in as_json(findings)
    assert len(findings) == len(CHECKS)


# -- what can't even be played -----------------------------------------------------------------------------------------


def test_prompts_beyond_the_context(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    short = tiny_lm("llama", len(tokenizer), torch.float32, max_position_embeddings=64)
    (finding,) = examine(make(save_language_model(tmp_path, short, tokenizer)))
    assert (finding.name, finding.passed) == (PLAYING, False)
    assert "at most 64 tokens together" in finding.figure
    assert "longer context" in finding.mend


def test_a_tokenizer_that_merges_over_the_join(tmp_path: Path) -> None:
    tokenizer = unsplit_tokenizer()
    lm = tiny_lm("llama", len(tokenizer), torch.float32)
    (finding,) = run("sb3_llm/Maze3x3-v0", save_language_model(tmp_path, lm, tokenizer))
    assert (finding.name, finding.passed) == (MAKING, False)
    assert finding.mend


def test_what_can_not_be_made_is_one_row() -> None:
    (finding,) = run("No-Such-v0")
    assert (finding.name, finding.passed) == (MAKING, False)
    (finding,) = run("sb3_llm/Maze3x3-v0", finetune="some")
    assert "finetune='some'" in finding.figure


def test_other_policies_and_no_environment(folder: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="PPO with a ActorCriticPolicy"):
        examine(PPO("MlpPolicy", "CartPole-v1"))
    make(folder).save(tmp_path / "model.zip")
    with pytest.raises(SetupError, match="without an environment"):
        examine(PPO.load(tmp_path / "model.zip"))


# -- the report --------------------------------------------------------------------------------------------------------


def test_run_and_its_table(folder: str) -> None:
    findings = run("sb3_llm/Maze3x3-v0", folder, finetune="top:1", env_kwargs={"split": "test"})
    assert not failures(findings), as_json(findings)
    findings.append(Finding("a [red] check", False, "[1, 2] measured", "[/] mend"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(as_table(findings, "doctor"))
    told = console.export_text()
    assert all(word in told for word in (*CHECKS, "a [red] check", "[1, 2] measured", "FAIL", "[/] mend"))
    assert json.loads(as_json(findings))[-1]["passed"] is False
