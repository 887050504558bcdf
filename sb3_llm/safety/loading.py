"""Loading a trained policy without running anything that its file names."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from sb3_llm.errors import SetupError
from sb3_llm.folder import pickles_in
from sb3_llm.policy import LLMPolicy, MaskableLLMPolicy
from sb3_llm.settings import DEFAULTS

Policy = LLMPolicy | MaskableLLMPolicy


@dataclass(frozen=True)
class Saved:
    """
    What a zip tells of its policy without anything being unpickled.

    :param maskable: whether it takes action masks
    :param settings: the policy's keywords
    :param phrases: that it was trained with; None where they came with each observation, or it read numbers
    :param max_bytes: of its observation texts; None if it read numbers
    """

    maskable: bool
    settings: dict[str, Any]
    phrases: tuple[str, ...] | None
    max_bytes: int | None


def read_saved(path: Path | str) -> Saved:
    """
    :param path: of a zip that SB3 saved
    :return: what it tells
    :raises SetupError: if it can't be read, or holds no language model's policy
    """
    path = Path(path)
    classes = [name for each in pickles_in(path) if each.entry == "policy_class" for name in each.names]
    maskable = "sb3_llm.policy.MaskableLLMPolicy" in classes
    if not maskable and "sb3_llm.policy.LLMPolicy" not in classes:
        raise SetupError(
            f"{path}, a model whose policy is {', '.join(classes) or 'not told'}",
            "a zip of PPO, A2C, TRPO or MaskablePPO with a policy of this package",
            "load it with SB3's own load, if you trust where it comes from",
        )
    with zipfile.ZipFile(path) as archive:
        data: dict[str, Any] = json.loads(archive.read("data"))
    # Beside what SB3 pickles it writes the object's plain attributes, for people to read.
    kwargs = data.get("policy_kwargs") or {}
    settings = {name: value for name, value in kwargs.items() if name in DEFAULTS}
    phrases = data["action_space"].get("phrases")
    texts = "TextSpace" in str(data["observation_space"].get(":type:"))
    shape = data["observation_space"].get("_shape") if texts else None
    return Saved(maskable, settings, None if phrases is None else tuple(phrases), shape[0] if shape else None)


def load_policy(path: Path | str, env: VecEnv | gymnasium.Env[Any, Any], device: str = "auto") -> Policy:
    """
    Load the policy of a zip that SB3 saved: weights and settings, and nothing that has to be unpickled.

    Spaces are the environment's. What the zip tells of the algorithm, such as its schedules, is left there: the policy
    plays and explains itself, and does not go on training.

    :param path: of the zip
    :param env: what it will play in
    :param device: "auto", "cpu", "cuda"
    :return: the policy, ready to act: ``policy.predict(obs)``
    :raises SetupError: if the zip can't be read, holds no language model's policy, belongs to another base model, or
        was trained with other phrases
    """
    saved = read_saved(path)
    own = getattr(env.action_space, "phrases", None)
    if saved.phrases is not None and own is not None and tuple(own) != saved.phrases:
        mend = f"make the environment with phrases={list(saved.phrases)}"
        raise SetupError(f"{path}, trained with {list(saved.phrases)}, for {list(own)}", "the same phrases", mend)
    kind = MaskableLLMPolicy if saved.maskable else LLMPolicy
    policy = kind(env.observation_space, env.action_space, lambda _: 0.0, **saved.settings)
    with zipfile.ZipFile(path) as archive, archive.open("policy.pth") as file:
        policy.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    policy.to(get_device(device))
    policy.set_training_mode(False)
    return policy
