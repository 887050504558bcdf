"""PolicyWatch: warnings on planted faults alone, and the end of training."""

import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm import TextObservation
from sb3_llm.alarms import Limits, complaints
from sb3_llm.callbacks import PolicyWatch
from sb3_llm.fluency import perplexity
from tests.test_policy import Follow, say
from tests.watching import (
    TEXTS,
    drop,
    scale,
    train,
)

pytestmark = pytest.mark.filterwarnings(r"ignore:after \d+ steps")  # where a test is about something else

# --- warnings

LEVELS = Limits(0.05, 0.5, 0.95, 3.0, 1.5, None)
GOOD = {
    "watch/entropy_share": 0.4,
    "watch/top_action_share": 0.95,
    "train/kl_to_base": 3.0,
    "watch/perplexity": 14.9,
    "watch/perplexity_base": 10.0,
    "watch/first_epoch_ratio_error": 1e-3,
}


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("entropy", {"watch/entropy_share": 0.049}, "entropy is 0.049 of its maximum, below the limit of 0.05"),
        ("entropy", {"watch/entropy_share": 0.19}, "entropy fell by 52% between two looks, from 0.4 to 0.19"),
        ("entropy", {"watch/entropy_share": math.nan}, "entropy is nan"),
        ("top_action", {"watch/top_action_share": 0.96}, "one action is 0.96 of all choices, above the limit of 0.95"),
        ("kl", {"train/kl_to_base": 3.1}, "3.1 nats from the base model, above the limit of 3"),
        ("kl", {"train/kl_to_base": math.inf}, "inf nats"),
        ("perplexity", {"watch/perplexity": 15.1}, "1.51 times the base model's, above the limit of 1.5"),
        ("ratio", {"watch/first_epoch_ratio_error": 2e-3}, "0.002 off 1, above the limit of 0.001"),
        ("non_finite", {"probe/0/drop": math.nan}, "probe/0/drop came out as nan"),
    ],
)
def test_levels(kind: str, change: dict[str, float], told: str) -> None:
    def judge(values: dict[str, float], dtype: torch.dtype = torch.float32) -> dict[str, str | None]:
        return dict(complaints(values, LEVELS, dtype, share_before=0.4))

    kinds = {"entropy", "top_action", "kl", "perplexity", "ratio", "non_finite"}
    assert judge(GOOD) == dict.fromkeys(kinds)
    found = judge(GOOD | change)
    assert told in (found[kind] or "")
    finite = all(map(math.isfinite, change.values()))
    assert {each for each in found if found[each]} == ({kind} if finite else {kind, "non_finite"})
    if kind == "entropy" and told.endswith("of 0.05"):
        assert dict(complaints(GOOD | change, LEVELS, torch.float32, None, share_base=0.08))["entropy"] is None
        assert dict(complaints(GOOD | change, LEVELS, torch.float32, None, share_base=0.12))["entropy"]
    if kind == "ratio":
        assert judge(GOOD | change, torch.bfloat16)["ratio"] is None


def watched(*args: Any, **settings: Any) -> dict[str, str]:
    """Train, and return the texts of PolicyWatch's warnings by kind, after checking that each was said once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(*args, **settings)
    bad: dict[str, str] = args[1].bad
    said = [str(each.message) for each in caught]
    for text in bad.values():
        assert len([each for each in said if each.startswith(text)]) == 1
    assert bool(bad) == any("Likely cause" in each for each in said)
    return bad


def test_a_healthy_run_is_not_warned_of(llama_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    policy_kwargs = {"normalization": "token"}
    assert watched(llama_folder, watch, steps=320, learning_rate=3e-4, n_steps=80, policy_kwargs=policy_kwargs) == {}
    assert watch.values["train/kl_to_base"] > 1e-4


def test_too_high_a_learning_rate_is_seen(gpt2_folder: Path) -> None:
    bad = watched(gpt2_folder, PolicyWatch(texts=TEXTS, max_kl=1.0), steps=96, learning_rate=0.1)
    assert {"entropy", "kl", "perplexity"} <= set(bad)
    for kind in ("entropy", "kl", "perplexity"):
        assert "learning rate is too high" in bad[kind]
        assert "lm_lr_scale" in bad[kind]
        assert "prior_kl=True" in bad[kind]


def test_one_action_alone_is_seen(gpt2_folder: Path) -> None:
    class Always(BaseCallback):
        """The same action wherever it was allowed, as a policy would after a collapse."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.rollout_buffer.actions[:] = 2

    watch = PolicyWatch(texts=TEXTS, max_ratio_error=math.inf)
    with pytest.warns(UserWarning, match="one action is 1 of all choices, above the limit of 0.95"):
        train(gpt2_folder, Always(), watch)


def test_dropout_is_seen(gpt2_folder: Path) -> None:
    watch = PolicyWatch(texts=TEXTS)
    with pytest.warns(UserWarning, match=r"ratios of new to old probabilities are .* off 1.*dropout"):
        model = train(gpt2_folder, watch, change=drop)
    assert set(watch.bad) >= {"ratio"}
    model.policy.set_training_mode(False)
    still = perplexity(model.policy.lm, watch._token_ids)
    assert watch.values["watch/perplexity"] == pytest.approx(still), "dropout is off where it only measures"


def test_weights_changed_during_a_rollout_are_seen(gpt2_folder: Path) -> None:
    class Change(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 8:
                scale(1.1)(self.model.policy)
            return True

    bad = watched(gpt2_folder, watch := PolicyWatch(texts=TEXTS, every=1), Change())
    assert "ratio" in bad
    assert watch.stopped_by is None


def test_is_said_once_until_it_is_well_again() -> None:
    watch = PolicyWatch()
    said = []
    for wrong in ("bad", "bad", None, None, "bad"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch._complain("kl", wrong)
        said.append(len(caught))
    assert said == [1, 0, 0, 0, 1]


# --- ending training


def test_stop_ends_training_and_training_can_go_on(gpt2_folder: Path) -> None:
    watch = PolicyWatch(every=1, texts=TEXTS, max_kl=1.0, stop=["kl"])
    with pytest.warns(UserWarning, match=r"nats from the base model.*Training ends here, as stop= asks"):
        model = train(gpt2_folder, watch, steps=3200, learning_rate=0.1)
    assert watch.stopped_by == "kl"
    stopped_at = model.num_timesteps
    assert stopped_at in (66, 98), "one step into the rollout after the look"
    watch.stop = frozenset()
    model.learn(64, callback=watch, reset_num_timesteps=False)
    assert model.num_timesteps >= stopped_at + 64
    assert watch.stopped_by is None


class Broken(Follow):
    """Pays infinitely once, after the first rollout."""

    paid = 0

    def step(self, action: int) -> Any:
        Broken.paid += 1
        obs, reward, *rest = super().step(action)
        return obs, math.inf if Broken.paid == 50 else reward, *rest


def test_a_broken_reward_stops_before_it_gets_into_the_weights(gpt2_folder: Path) -> None:
    def env() -> gym.Env[Any, Any]:
        return TextObservation(Broken(), describe=say)

    Broken.paid = 0
    watch = PolicyWatch(texts=TEXTS, stop=True, min_entropy_share=0, max_entropy_fall=1, max_top_action=1)
    with pytest.warns(UserWarning, match="the rewards of a step are .*inf"):
        model = train(gpt2_folder, watch, steps=320, env=env)
    assert (watch.stopped_by, model.num_timesteps) == ("non_finite", 50)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    model.learn(64, callback=watch, reset_num_timesteps=False)
    assert (watch.stopped_by, watch.bad) == (None, {})


def test_broken_weights_at_the_end_are_told_and_not_raised(gpt2_folder: Path) -> None:
    class Break(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            scale(math.nan)(self.model.policy)

    with pytest.warns(UserWarning, match=r"the score of .* is nan.*Likely cause"):
        train(gpt2_folder, Break(), watch := PolicyWatch(texts=TEXTS))
    assert set(watch.bad) >= {"non_finite"}
