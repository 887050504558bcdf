"""Whatever happens while a checkpoint is written or after, there is a whole one or one clear sentence."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from stable_baselines3 import PPO

from sb3_llm import folder as folder_module
from sb3_llm.errors import SetupError
from sb3_llm.training import Run, RunFolder, load_model, train

ROLLOUT = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "learning_rate": 1e-3}


def dies(do: Callable[[], Any]) -> None:
    """Run something in a process that dies in it."""
    child = os.fork()
    if child == 0:
        try:
            do()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


STEPS_OF_A_SAVE: dict[str, Callable[[pytest.MonkeyPatch, Callable[..., Any]], None]] = {
    "SB3's part": lambda patch, end: patch.setattr(PPO, "save", end),
    "within SB3's part": lambda patch, end: patch.setattr(torch, "save", end),
    "our part": lambda patch, end: patch.setattr(cloudpickle, "dumps", end),
    "to the disk": lambda patch, end: patch.setattr(os, "fsync", end),
    "rename": lambda patch, end: patch.setattr(os, "replace", end),
    "after the rename": lambda patch, end: patch.setattr(folder_module, "_sync_folder", end),
}


@pytest.mark.parametrize("how", ["error", "kill"])
@pytest.mark.parametrize("step", STEPS_OF_A_SAVE)
def test_a_save_that_stops_in_the_middle(step: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier checkpoint or the new one is there, whole; what is left over is cleared away."""
    run, folder = Run("CartPole-v1", policy="mlp", settings=ROLLOUT, n_envs=2), RunFolder(tmp_path)
    model, _ = train(run, 32, folder, progress_bar=False)
    before = folder.model.read_bytes()

    def end(*_: Any, **__: Any) -> None:
        if how == "kill":
            os._exit(9)
        raise OSError("no space left")

    def save() -> None:
        with pytest.MonkeyPatch.context() as patch:
            STEPS_OF_A_SAVE[step](patch, end)
            # Not run.json, which is written the same way: the steps of the model's save are to be met.
            patch.setattr(RunFolder, "begin", lambda *_: None)
            folder.save(run, model, [b"state"])

    if how == "kill":
        dies(save)
    else:
        with pytest.raises(OSError, match="no space left"):
            save()
    if step == "after the rename":
        assert folder.load_states() == [b"state"]
        return
    assert folder.model.read_bytes() == before
    train(run, 32, folder, resume=True, progress_bar=False)  # nothing is left to train, or to save
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.zip", "run.json"]
    train(run, 64, folder, resume=True, progress_bar=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.zip", "run.json"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_zip_is_one_sentence(share: float, tmp_path: Path) -> None:
    run, folder = Run("CartPole-v1", policy="mlp", settings=ROLLOUT, n_envs=2), RunFolder(tmp_path)
    train(run, 32, folder, progress_bar=False)
    whole = folder.model.read_bytes()
    folder.model.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SetupError, match=r"model\.zip, which can't be read as a model \("):
        train(run, 64, folder, resume=True, progress_bar=False)


def test_spoilt_compressed_and_encrypted_zips_are_one_sentence(tmp_path: Path) -> None:
    """SB3 compresses nothing, but who packs a zip anew may."""
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", "state " * 300)
        archive.writestr("policy.pth", bytes(range(256)) * 20)
    folder_module.check_zip(path)
    whole = path.read_bytes()
    stream = whole.index(b"policy.pth") + len(b"policy.pth")
    for place in range(stream, stream + 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(SetupError, match="can't be read as a model"):
            folder_module.check_zip(path)
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(SetupError, match="encrypted"):
        folder_module.check_zip(path)


def test_other_zips_are_one_sentence(tmp_path: Path) -> None:
    run, folder = Run("CartPole-v1", policy="mlp", settings=ROLLOUT, n_envs=2), RunFolder(tmp_path)
    train(run, 32, folder, progress_bar=False)
    whole = folder.model.read_bytes()
    spoilt = bytearray(whole)
    spoilt[whole.index(b"policy.pth") + 2000] ^= 0xFF
    folder.model.write_bytes(spoilt)
    with pytest.raises(SetupError, match=r"which can't be read as a model \(policy.pth\)"):
        train(run, 64, folder, resume=True, progress_bar=False)
    with zipfile.ZipFile(folder.model, "w") as archive:
        archive.writestr("letter.txt", "dear")
    with pytest.raises(SetupError, match="it holds no policy"):
        train(run, 64, folder, resume=True, progress_bar=False)
    folder.model.write_bytes(whole)
    with pytest.raises(SetupError, match=r"a model of ppo\. Expected: one of a2c"):
        load_model(folder.model, None, "a2c")
    folder.save(run, load_model(folder.model, None), [b"one", b"two"])
    with pytest.raises(SetupError, match="1 processes for a run of 2"):
        train(run, 64, folder, resume=True, progress_bar=False)
