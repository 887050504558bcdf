"""Explanations: they add up, are those of the policy that acts, and find what a decision was made to hang on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from sb3_llm import LLMPolicy, make_vec_env
from sb3_llm.errors import SetupError
from sb3_llm.explain import attribution, by_gradient, clauses, words
from sb3_llm.explain.parts import without
from sb3_llm.explain.window import Window
from sb3_llm.scoring import Row
from sb3_llm.scoring.reference import ReferenceScorer

OFF = ("deletion",)


def _policy(model: str = "embedded", env_id: str = "MiniGrid-DoorKey-5x5-v0", n: int = 3, **options: Any) -> Any:
    env = make_vec_env(env_id, n, seed=0, **options.pop("env", {}))
    return LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=model, **options), env.reset()


# --- parts


def test_clauses_make_up_the_text() -> None:
    text = "Facing east, carrying 0.5 of it. Ahead: wall; left: none!\nGoal: go.  你好，世界。再见"  # noqa: RUF001
    parts = [text[start:end] for start, end in clauses(text)]
    assert "".join(parts) == text
    assert parts[:4] == ["Facing east, ", "carrying 0.5 of it. ", "Ahead: wall; ", "left: none!\n"]
    assert parts[4:] == ["Goal: go.  ", "你好，", "世界。", "再见"]  # noqa: RUF001
    assert without(text, clauses(text)[1]).startswith("Facing east, Ahead")
    assert clauses("") == clauses(" \n ") == []


def test_words() -> None:
    text = "go 2 left,  向前走"
    assert [text[start:end] for start, end in words(text)] == ["go", "2", "left,", "向", "前", "走"]


# --- what is said


@pytest.mark.parametrize("normalization", ["sum", "token"])
def test_it_is_the_policy_that_acts(normalization: str) -> None:
    policy, obs = _policy(normalization=normalization, temperature=2.0)
    found = policy.explain(obs)
    log_policy = policy.action_log_probs(policy.render(obs)).detach()
    scores = policy.sequence_log_probs(policy.render(obs)).detach()
    for index, each in enumerate(found):
        assert each.prompt == policy.render(obs)[index]
        assert each.action == int(log_policy[index].argmax())
        probabilities = [phrase.probability for phrase in each.phrases]
        np.testing.assert_allclose(probabilities, log_policy[index].exp(), rtol=1e-5)
        assert [phrase.base_probability for phrase in each.phrases] == pytest.approx(probabilities, rel=1e-4)
        sums = [sum(score for _, score in phrase.tokens) for phrase in each.phrases]
        np.testing.assert_allclose(sums, scores[index], atol=1e-4)
        assert ["".join(token for token, _ in phrase.tokens).strip() for phrase in each.phrases] == policy.phrases
        value = policy.predict_values(torch.as_tensor(obs[index : index + 1])).item()
        assert each.value == pytest.approx(value, abs=1e-5)
        assert each.prompt[each.start :].startswith(each.text)


def test_the_base_model_stands_beside_the_tuned_one() -> None:
    policy, obs = _policy()
    with torch.no_grad():
        for parameter in policy.lm.parameters():
            parameter.mul_(1.05)
    found = policy.explain(obs, attribution=())
    untouched = _policy()[0].explain(obs, attribution=())
    for each, before in zip(found, untouched, strict=True):
        assert [p.base_probability for p in each.phrases] == pytest.approx([p.probability for p in before.phrases])
        assert [p.probability for p in each.phrases] != pytest.approx([p.probability for p in before.phrases], abs=1e-3)


def test_deletion_is_what_leaving_out_changes() -> None:
    policy, obs = _policy()
    each = policy.explain(obs, attribution=OFF)[1]
    assert not each.words
    before = np.log(each.phrases[each.action].probability)
    for part in each.clauses:
        assert each.text[slice(*part.span)] == part.text
        left = policy.explain([without(each.text, part.span)], actions=[each.action], attribution=())[0]
        after = np.log(left.phrases[each.action].probability)
        assert part.score == pytest.approx(before - after, abs=1e-4)


def test_many_texts_are_explained_like_each_alone() -> None:
    """They are sorted by what is left to score, and asked about in parts."""
    policy, obs = _policy(n=8)
    texts = policy._read(obs)
    together = policy.explain(texts, attribution=OFF)
    assert sum(len(each.clauses) for each in together) > attribution.TOGETHER
    for text, each in zip(texts, together, strict=True):
        policy.clear_memo()
        alone = policy.explain([text], attribution=OFF)[0]
        assert [part.span for part in each.clauses] == clauses(text)
        scores = [[part.score for part in found.clauses] for found in (each, alone)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_texts_with_a_clause_left_out_leave_no_keys_behind() -> None:
    policy, obs = _policy(n=3)
    policy.explain(obs, attribution=())
    store = policy._scorer.scorer.store
    held = set(store._places)
    policy.explain(obs, attribution=OFF)
    assert policy._scorer.scorer.store is store
    assert set(store._places) == held


@pytest.mark.parametrize("family", ["gpt2_folder", "llama_folder"])
@pytest.mark.parametrize("finetune", ["full", "lora", "top:1"])
@pytest.mark.parametrize("route", ["cache", "rows"])
def test_gradients_add_up(
    family: str, finetune: str, route: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To what the log-odds gain from mean embeddings to the prompt's; by either scorer, prompts of two lengths."""
    monkeypatch.setattr(attribution, "STEPS", 200)
    env = {"describe": lambda obs: "A wall.", "phrases": ["go", "wait"]}
    folder: Path = request.getfixturevalue(family)
    policy, _ = _policy(str(folder), "CartPole-v1", 2, env=env, dtype="float64", finetune=finetune)
    prompts = ["The door is open.\nAction:", "The red door is open, you see a grey box.\nAction:"]
    window = Window(policy)
    continuations = window.continuations(prompts, None)
    rows = window.rows(prompts, continuations)
    log_policy = window.log_policy(continuations, window.allowed(prompts, None, None))
    found = by_gradient(policy.lm, route, rows, [0, 1], log_policy)
    for row, scores, action in zip(rows, found, [0, 1], strict=True):
        assert len(scores) == len(row.prompt)
        gain = _odds(policy, row, action) - _odds(policy, row, action, blank=True)
        assert sum(scores) == pytest.approx(gain, rel=2e-2, abs=1e-3)


@torch.no_grad()
def _odds(policy: Any, row: Row, action: int, blank: bool = False) -> float:
    """By the definition, whole unpadded rows; with mean embeddings in place of the prompt's, if asked."""
    layer = policy.lm.get_input_embeddings()

    def watch(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, : len(row.prompt)] = layer.weight.mean(0)
        return output

    handle = layer.register_forward_hook(watch) if blank else None
    scores = ReferenceScorer(policy.lm).score([row]).log_probs[0]
    if handle:
        handle.remove()
    return float(scores[action] - scores[1 - action])


def test_phrases_that_come_with_each_observation() -> None:
    policy, obs = _policy(env_id="BabyAI-GoToLocal-v0", env={"wording": "held-out phrases"})
    found = policy.explain(obs)
    assert [tuple(phrase.text for phrase in each.phrases) for each in found] == policy.offered(obs)
    for each in found:
        assert sum(phrase.probability for phrase in each.phrases) == pytest.approx(1.0, abs=1e-5)
    what_if = policy.explain([found[0].text], phrases=[policy.offered(obs)[0]])[0]
    assert [phrase.probability for phrase in what_if.phrases] == pytest.approx(
        [phrase.probability for phrase in found[0].phrases], rel=1e-4
    )
    with pytest.raises(SetupError, match="phrases= of each prompt"):
        policy.explain([found[0].text])


def test_one_phrase_hangs_on_nothing() -> None:
    policy, _ = _policy(env_id="CartPole-v1", env={"describe": lambda obs: "A wall.", "phrases": {"go": 0}})
    each = policy.explain(["A wall. A door."])[0]
    assert {part.score for part in each.words} == {0.0}
    assert each.phrases[0].probability == 1.0


# --- masks and rules


@pytest.mark.parametrize("finetune", ["full", "top:1"])
def test_masks(finetune: str) -> None:
    """Two of six actions are left: all that is said is about these two."""
    policy, obs = _policy(n=2, finetune=finetune)
    masks = np.array([[True, False, True, False, False, False], [False, True, False, False, True, False]])
    found = policy.explain(obs, action_masks=masks)
    free = policy.explain(obs)
    for each, mask, other in zip(found, masks, free, strict=True):
        likely = np.array([phrase.probability for phrase in each.phrases])
        base = np.array([phrase.base_probability for phrase in each.phrases])
        expected = np.where(mask, [phrase.probability for phrase in other.phrases], 0.0)
        assert (likely[~mask] == 0).all()
        np.testing.assert_allclose(likely, expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(base, likely, rtol=1e-3)
        assert each.action == int(expected.argmax())
        assert [phrase.tokens for phrase in each.phrases] == [phrase.tokens for phrase in other.phrases]
    texts = [without(found[0].text, part.span) for part in found[0].clauses]
    left = policy.explain(texts, [found[0].action] * len(texts), (), action_masks=[masks[0]] * len(texts))
    for part, less in zip(found[0].clauses, left, strict=True):
        now, then = (each.phrases[found[0].action].probability for each in (less, found[0]))
        assert part.score == pytest.approx(np.log(then / now), abs=1e-3)


def test_a_masked_gradient_is_that_of_two_phrases(llama_folder: Path) -> None:
    """A mask, a rule, and an environment that has no other phrases say the same."""
    text = "The red door is open, you see a grey box."
    few = {"describe": lambda obs: "A wall.", "phrases": {"go": 0, "wait": 1}}
    more = {"describe": lambda obs: "A wall.", "phrases": {"go": 0, "dig": 1, "wait": 1}}

    def words_of(env: dict[str, Any], masks: Any = None, **options: Any) -> list[float]:
        policy, _ = _policy(str(llama_folder), "CartPole-v1", 2, env=env, dtype="float64", **options)
        (each,) = policy.explain([text], [0], ("gradient",), action_masks=masks)
        return [part.score for part in each.words]

    expected = words_of(few)
    assert words_of(more, [[True, False, True]]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert words_of(more, forbid=["dig"]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert words_of(more) != pytest.approx(expected, rel=1e-2)


def test_masks_that_can_not_be() -> None:
    policy, obs = _policy(n=2)
    with pytest.raises(SetupError, match="no valid action"):
        policy.explain(obs, action_masks=np.zeros((2, 6), dtype=bool))
    with pytest.raises(SetupError, match=r"shape \(2, 5\) for 2 observations\. Expected: shape \(2, 6\)"):
        policy.explain(obs, action_masks=np.ones((2, 5), dtype=bool))
    with pytest.raises(SetupError, match=r"action 0, 'turn left', which forbid= or the action mask forbids here"):
        policy.explain(obs, [0, 1], action_masks=[[False] + [True] * 5] * 2)


# --- bad input


def test_what_can_not_be_explained() -> None:
    policy, obs = _policy(n=1)
    with pytest.raises(SetupError, match="attribution='lime'"):
        policy.explain(obs, attribution=("lime",))
    with pytest.raises(SetupError, match=r"action 6\. Expected: 0 to 5"):
        policy.explain(obs, actions=[6])
    with pytest.raises(SetupError, match="at most 1024 tokens together, the model's context"):
        policy.explain(["A wall. " * 1000])
    with torch.inference_mode(), pytest.raises(SetupError, match=r"inside torch\.inference_mode"):
        policy.explain(obs)
    with torch.inference_mode():
        assert policy.explain(obs, attribution=OFF)[0].clauses
    assert policy.explain([""])[0].clauses == ()


# --- a planted case

COLORS = ("red", "green", "blue", "grey")
THINGS = ("lamp", "cat", "sky", "door", "ball")


def _planted(rng: np.random.Generator) -> tuple[str, int, int]:
    """A text of five clauses in any order, the action it asks for, and the clause that decides: the lamp's."""
    order = rng.permutation(len(THINGS))
    colors = [str(rng.choice(COLORS[:2])) for _ in THINGS]
    text = ". ".join(f"The {THINGS[thing]} is {colors[thing]}" for thing in order) + "."
    return text, COLORS.index(colors[0]), int(np.flatnonzero(order == 0)[0])


@pytest.fixture(scope="module")
def pupil() -> Any:
    """The embedded model, taught to go where the lamp is green and to wait where it is red, whatever else is."""
    env = {"describe": lambda obs: "The lamp is red.", "phrases": ["wait", "go"]}
    policy, _ = _policy("embedded", "CartPole-v1", 1, env=env)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(policy.lm.parameters(), 5e-4)
    for _ in range(120):
        batch = [_planted(rng) for _ in range(32)]
        prompts = [f"{text}\nAction:" for text, _, _ in batch]
        loss = cross_entropy(policy.action_log_probs(prompts), torch.tensor([action for _, action, _ in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def test_the_decisive_clause_is_found(pupil: Any) -> None:
    rng = np.random.default_rng(1)
    cases = [_planted(rng) for _ in range(100)]
    found = pupil.explain([text for text, _, _ in cases])
    right = [each.action == action for each, (_, action, _) in zip(found, cases, strict=True)]
    assert np.mean(right) >= 0.98
    deletion = [int(np.argmax([part.score for part in each.clauses])) for each in found]
    gradient = [int(np.argmax(_by_clause(each))) for each in found]
    decisive = [clause for _, _, clause in cases]
    assert np.mean(np.equal(deletion, decisive)) >= 0.95
    assert np.mean(np.equal(gradient, decisive)) >= 0.80


def _by_clause(each: Any) -> list[float]:
    """The words' scores, added up over each clause; the text begins the prompt."""
    return [
        sum(word.score for word in each.words if start <= word.span[0] < end)
        for start, end in (part.span for part in each.clauses)
    ]
