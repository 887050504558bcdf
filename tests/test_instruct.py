"""Instructions: what is written is parsed as a person would, and writing inside the phrases never leaves them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from sb3_llm import LLMPolicy, TextObservation, make_vec_env
from sb3_llm.errors import SetupError
from sb3_llm.evaluation import evaluate
from sb3_llm.instruct import Parser, as_parsed, write
from sb3_llm.instruct.generating import Written
from sb3_llm.instruct.playing import Speaker

PHRASES = ["turn left", "turn right", "go forward", "pick up", "drop", "open"]
LEFT, RIGHT, FORWARD, PICK_UP, DROP, OPEN = range(6)


# --- parsing


@pytest.mark.parametrize(
    ("text", "how", "plan"),
    [
        ("turn left", "exact", (LEFT,)),
        ("Turn LEFT!", "normalised", (LEFT,)),
        ("  turn\tleft.  ", "normalised", (LEFT,)),
        ("please turn left", "normalised", (LEFT,)),
        ("Ｔｕｒｎ　ｌｅｆｔ", "normalised", (LEFT,)),  # noqa: RUF001  # full-width letters
        ("tu\u200brn le\x00ft", "normalised", (LEFT,)),
        ("\u202eturn left", "normalised", (LEFT,)),
        ("grab", "synonym", (PICK_UP,)),
        ("unlock", "synonym", (OPEN,)),
        ("向前走", "synonym", (FORWARD,)),
        ("打开门", "object", (OPEN,)),
        ("open the red door", "object", (OPEN,)),
        ("grab the key", "object", (PICK_UP,)),
        ("turn lft", "fuzzy", (LEFT,)),
        ("pik up", "fuzzy", (PICK_UP,)),
        ("open the red door, then go forward", "object", (OPEN, FORWARD)),
        ("go forward and then turn right; pick up the ball", "exact", (FORWARD, RIGHT, PICK_UP)),
        ("向前走，然后打开门", "synonym", (FORWARD, OPEN)),  # noqa: RUF001
        ("turn left, then dance, then drop", "exact", (LEFT,)),
        ("turn left\nturn right", "exact", (LEFT,)),
    ],
)
def test_understood(text: str, how: str, plan: tuple[int, ...]) -> None:
    found = Parser(PHRASES).parse(text)
    assert (found.how, found.plan, found.action) == (how, plan, plan[0])
    assert 0.8 <= found.confidence <= 1.0


NOISE = ["", " ", "\n", "turn", "don't turn left", "right", "Поверни налево", "🙂", "<|endoftext|>"]
LONG_NOISE = ["x" * 10_000, "opener", "dropped it", "\x00", "﷽" * 300]


@pytest.mark.parametrize("text", [*NOISE, *LONG_NOISE])
def test_not_understood(text: str) -> None:
    found = Parser(PHRASES).parse(text)
    assert (found.action, found.how, found.confidence, found.plan) == (None, "not understood", 0.0, ())


def test_ties_are_not_understood() -> None:
    """ "tirn reft" is as near to one as to the other; what two phrases mean is neither's synonym."""
    assert Parser(["turn left", "turn reft"]).parse("turn eft").action is None
    doubtful = Parser(["take", "grab"])  # each is in the tables as a word for the other's action
    assert doubtful.parse("take").action == 0
    assert doubtful.parse("lift").action is None


def test_synonyms_of_ones_own() -> None:
    parser = Parser(["north", "wait"], {"wait": ["rest", "do nothing"]})
    assert parser.parse("Do nothing").how == "synonym"
    assert parser.parse("go north").action == 0
    with pytest.raises(SetupError, match=r"synonyms of 'sleep'\. Expected: one of north, wait"):
        Parser(["north", "wait"], {"sleep": ["rest"]})


def test_the_end_of_a_very_long_text_is_not_read() -> None:
    assert Parser(PHRASES).parse("please " + "well " * 100 + "turn left").action is None
    assert Parser(PHRASES).parse("turn left " + "and on " * 5000).action == LEFT


# --- writing


@pytest.fixture(scope="module")
def policy() -> LLMPolicy:
    env = make_vec_env("MiniGrid-DoorKey-5x5-v0", 1, seed=0)
    return LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0)


@pytest.fixture(scope="module")
def observations() -> Any:
    env = make_vec_env("MiniGrid-DoorKey-5x5-v0", 6, seed=0)
    return env.reset()


def test_greedy_writing_says_the_likeliest_phrase(policy: LLMPolicy, observations: Any) -> None:
    likeliest = policy.action_log_probs(policy.render(observations)).argmax(1).tolist()
    for constrained in (False, True):
        found = policy.instruct(observations, greedy=True, constrained=constrained)
        assert [each.action for each in found] == likeliest
        assert [each.text for each in found] == [policy.phrases[action] for action in likeliest]


def test_a_batch_writes_what_each_would_alone(policy: LLMPolicy, observations: Any) -> None:
    """Prompts of several lengths side by side: padding must not be read."""
    assert len({len(policy.tokenizer(prompt)["input_ids"]) for prompt in policy.render(observations)}) > 1
    together = policy.instruct(observations, greedy=True)
    alone = [policy.instruct(observations[row : row + 1], greedy=True)[0] for row in range(len(observations))]
    assert [each.text for each in together] == [each.text for each in alone]
    np.testing.assert_allclose([each.log_prob for each in together], [each.log_prob for each in alone], atol=1e-4)


def test_log_probs_of_whole_phrases_are_their_scores(policy: LLMPolicy, observations: Any) -> None:
    found = policy.instruct(observations, greedy=True, constrained=True)
    scores = policy.sequence_log_probs(policy.render(observations))
    chosen = [
        float(row[each.action].detach()) for row, each in zip(scores, found, strict=True) if each.action is not None
    ]
    np.testing.assert_allclose([each.log_prob for each in found], chosen, atol=1e-4)


def test_sampling_follows_the_model(policy: LLMPolicy, observations: Any) -> None:
    torch.manual_seed(0)
    many = observations[2:3].repeat(64, 0)
    drawn = Counter(each.action for _ in range(8) for each in policy.instruct(many))
    likely = policy.action_log_probs(policy.render(many[:1]))[0].exp().tolist()
    for action, share in enumerate(likely):
        assert drawn[action] / 512 == pytest.approx(share, abs=0.06)


def test_only_so_many_tokens(policy: LLMPolicy, observations: Any) -> None:
    assert all(each.tokens == 1 for each in policy.instruct(observations, max_tokens=1))
    short = policy.instruct(observations, constrained=True, max_tokens=1, greedy=True)
    assert {each.how for each in short} <= {"constrained", "not understood"}
    with pytest.raises(SetupError, match="max_tokens=0"):
        policy.instruct(observations, max_tokens=0)
    with pytest.raises(SetupError, match="at most 1024 together"):
        policy.instruct(observations, max_tokens=1024)


@pytest.mark.parametrize("family", ["gpt2_folder", "llama_folder"])
def test_a_model_that_knows_nothing_stays_inside(family: str, request: pytest.FixtureRequest) -> None:
    """Random weights write noise, and inside the phrases nothing but phrases; two of them begin alike."""
    folder: Path = request.getfixturevalue(family)
    phrases = ["go", "go left", "go left twice", "stop"]
    env = make_vec_env(
        "CartPole-v1", 5, seed=0, describe=lambda obs: f"At {obs[0]:.2f}.", phrases={p: 0 for p in phrases}
    )
    speaker = LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=str(folder))
    torch.manual_seed(0)
    texts = Counter()
    for _ in range(40):
        for each in speaker.instruct(env.reset(), constrained=True, temperature=5.0):
            assert each.action is not None
            texts[phrases[each.action]] += 1
    assert set(texts) == set(phrases)
    assert all(each.tokens <= 8 for each in speaker.instruct(env.reset(), max_tokens=8))


def test_training_mode_is_left_as_it_was(policy: LLMPolicy, observations: Any) -> None:
    for mode in (True, False):
        policy.set_training_mode(mode)
        policy.instruct(observations, max_tokens=2)
        assert policy.training is policy.lm.training is mode


def test_phrases_that_come_with_each_observation() -> None:
    env = make_vec_env("BabyAI-GoToLocal-v0", 3, seed=0, wording="held-out phrases")
    speaker = LLMPolicy(env.observation_space, env.action_space, lambda _: 0.0)
    observations = env.reset()
    offered = speaker.offered(observations)
    assert len(set(offered)) > 1
    for each, own in zip(speaker.instruct(observations, constrained=True), offered, strict=True):
        assert each.action is not None
        assert each.text == own[each.action]


def test_nothing_to_write(policy: LLMPolicy) -> None:
    assert write(policy.lm, policy.tokenizer, []) == []


# --- playing


def test_episodes_by_what_is_written(policy: LLMPolicy) -> None:
    env = make_vec_env("MiniGrid-DoorKey-5x5-v0", 4, seed=5)
    speaker = Speaker(policy)
    found = evaluate(speaker, env, 4, greedy=True)  # type: ignore[arg-type]
    assert found.success == 1.0
    assert speaker.not_understood == 0.0
    assert set(speaker.understood) == {"exact"}
    assert 1.0 <= speaker.fluency(policy.base_lm()) < 1.5


def test_what_is_not_understood_is_a_random_action(policy: LLMPolicy, observations: Any) -> None:
    class Mumbling:
        """Says nothing that can be understood."""

        render, allowed = policy.render, policy.allowed

        def instruct(self, obs: Any, **_: Any) -> list[Any]:
            return [as_parsed(Written((), "mumble", 0.0), PHRASES) for _ in obs]

    speaker = Speaker(Mumbling(), seed=0)
    actions = np.concatenate([speaker.predict(observations)[0] for _ in range(100)])
    assert set(actions.tolist()) == set(range(6))
    assert speaker.not_understood == 1.0


def test_a_tuned_policy_writes_too() -> None:
    """Rollout, update, then writing: the memo of scores and the cache of writing don't meet."""
    env = make_vec_env("MiniGrid-DoorKey-5x5-v0", 4, seed=0)
    model = PPO(LLMPolicy, env, n_steps=8, batch_size=32, n_epochs=1, learning_rate=1e-3, seed=0)
    model.learn(64)
    policy: Any = model.policy
    observations = env.reset()
    likeliest = policy.action_log_probs(policy.render(observations)).argmax(1).tolist()
    assert [each.action for each in policy.instruct(observations, greedy=True, constrained=True)] == likeliest
    assert isinstance(env.envs[0].unwrapped.spec.id, str)  # type: ignore[attr-defined]
    assert TextObservation.__name__ == "TextObservation"
