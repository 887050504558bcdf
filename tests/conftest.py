"""Folders with tiny models that several test files share."""

from pathlib import Path

import pytest
import torch

from sb3_llm import make_env
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_lm
from tests.walks import wander

REAL_ENVIRONMENTS = ("MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToLocal-v0", "sb3_llm/Maze-v0")


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with learned positions and every dropout at 0.5: padding or dropout mistakes show at once."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = byte_level_tokenizer()
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    save_language_model(folder, tiny_lm("gpt2", len(tokenizer), torch.float32, **dropout), tokenizer)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = byte_level_tokenizer(bos=True)
    save_language_model(folder, tiny_lm("llama", len(tokenizer), torch.float32), tokenizer)
    return folder


@pytest.fixture(scope="session")
def real_texts() -> dict[str, tuple[list[str], list[str]]]:
    """Environment id to the distinct observation texts of a walk, about 50 in all, and the phrases."""
    found = {}
    for env_id in REAL_ENVIRONMENTS:
        env = make_env(env_id)
        texts = dict.fromkeys(env.observation_space.decode(obs) for obs in wander(env, 60))
        found[env_id] = (list(texts)[:17], list(env.phrases))
    return found
