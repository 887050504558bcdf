"""Zips of strangers: what they would run is told, and a policy is loaded from them without running it."""

import base64
import json
import pickle
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from typer.testing import CliRunner

from sb3_llm import LLMPolicy, MaskableLLMPolicy, load_policy, make_vec_env
from sb3_llm.cli import app
from sb3_llm.errors import SetupError
from sb3_llm.folder import load_model
from sb3_llm.pickles import names_in
from sb3_llm.safety import pickles_in

ENV = "sb3_llm/Maze-v0"
RAN: list[str] = []


class Trap:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> Any:
        return note, ()


def note() -> None:
    RAN.append("ran")


def spring(zipped: Path, into: Path, entry: str) -> Path:
    """A copy of a zip in which an entry runs code when it is unpickled."""
    with zipfile.ZipFile(zipped) as old, zipfile.ZipFile(into, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                data = json.loads(content)
                packed = {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(Trap())).decode()}
                data[entry] = {**data[entry], **packed} if isinstance(data.get(entry), dict) else packed
                content = json.dumps(data).encode()
            new.writestr(name, content)
    return into


@pytest.fixture(scope="module")
def env() -> Any:
    return make_vec_env(ENV, 2, seed=0)


@pytest.fixture(scope="module")
def saved(env: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = PPO(LLMPolicy, env, n_steps=8, batch_size=16, n_epochs=1, learning_rate=1e-3, seed=0)
    model.learn(16)
    path = tmp_path_factory.mktemp("zip") / "model.zip"
    model.save(path)
    return path


def test_the_same_policy_as_by_ppo(saved: Path, env: Any) -> None:
    whole, policy = PPO.load(saved, env=env), load_policy(saved, env)
    obs = env.reset()
    ours, theirs = policy.render(obs), whole.policy.render(obs)  # type: ignore[operator]
    assert ours == theirs
    assert (policy.action_log_probs(ours) - whole.policy.action_log_probs(theirs)).abs().max() < 1e-6  # type: ignore[operator]
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], whole.predict(obs, deterministic=True)[0])
    assert not policy.training


@pytest.mark.parametrize("entry", ["lr_schedule", "policy_class", "observation_space", "ep_info_buffer"])
def test_nothing_is_run(saved: Path, env: Any, tmp_path: Path, entry: str) -> None:
    RAN.clear()
    path = spring(saved, tmp_path / "trap.zip", entry)
    foreign = {each.entry: each.foreign for each in pickles_in(path) if each.foreign}
    assert list(foreign) == [entry]
    if entry == "policy_class":  # whose name is lost with it
        with pytest.raises(SetupError, match="a model whose policy is"):
            load_policy(path, env)
    else:
        load_policy(path, env)
    assert RAN == []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with suppress(Exception):  # a trap is no schedule; but it has run
            load_model(path, env)
    assert [each for each in told if "runs code that it brings or names itself" in str(each.message)]
    assert RAN  # so the traps do work


def test_own_zips_name_nothing_foreign(saved: Path, recwarn: pytest.WarningsRecorder) -> None:
    found = pickles_in(saved)
    assert {"policy_class", "observation_space", "action_space"} <= {each.entry for each in found}
    assert [each.foreign for each in found if each.foreign] == []
    load_model(saved, None)
    assert not [each for each in recwarn if "runs code" in str(each.message)]


@pytest.mark.parametrize("kind", ["a2c", "lora", "masked"])
def test_other_algorithms_and_settings(kind: str, env: Any, tmp_path: Path) -> None:
    """A2C puts its optimizer's class among the policy's keywords, so that SB3 pickles the lot."""
    kwargs = {"finetune": "lora", "temperature": 2.0} if kind == "lora" else {"forbid": ["south"]}
    made = {"a2c": A2C, "lora": PPO, "masked": MaskablePPO}[kind]
    model: Any = made(MaskableLLMPolicy if kind == "masked" else LLMPolicy, env, policy_kwargs=dict(kwargs), seed=0)
    model.save(tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip", env)
    assert isinstance(policy, MaskableLLMPolicy if kind == "masked" else LLMPolicy)
    assert all(policy._settings[name] == value for name, value in kwargs.items())
    obs = env.reset()
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_what_can_not_be_loaded(env: Any, tmp_path: Path, saved: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8).save(tmp_path / "mlp.zip")
    with pytest.raises(SetupError, match=r"whose policy is .*ActorCriticPolicy.*if you trust"):
        load_policy(tmp_path / "mlp.zip", env)
    with pytest.raises(SetupError, match="a zip file that exists"):
        load_policy(tmp_path / "none.zip", env)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(SetupError, match="can't be read"):
        load_policy(tmp_path / "text.zip", env)
    other = make_vec_env(ENV, 1, phrases=["left", "right", "go", "stop"][: env.action_space.n])
    with pytest.raises(SetupError, match=r"trained with .*the same phrases"):
        load_policy(saved, other)


def test_names_are_found_however_they_are_pickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert any(name.endswith("test_safe_loading.note") for name in names_in(pickle.dumps(Trap(), protocol)))
        twice = pickle.dumps([np.float32(1.0), np.float32(2.0), np.dtype("int8")], protocol)
        assert all(name != "?" for name in names_in(twice)), names_in(twice)
    assert names_in(b"no pickle") == ("?",)


def test_from_the_command_line(saved: Path) -> None:
    found = CliRunner().invoke(app, ["evaluate", str(saved), ENV, "--episodes", "2", "--safe", "--json"])
    assert found.exit_code == 0, found.output
    plain = CliRunner().invoke(app, ["evaluate", str(saved), ENV, "--episodes", "2", "--json"])
    assert json.loads(found.stdout)["evaluations"] == json.loads(plain.stdout)["evaluations"]
