"""BALROG's five BabyAI tasks: the same worlds, cell by cell, as the fork of minigrid that it installs."""

import contextlib
import hashlib
import io
from typing import Any

import gymnasium
import pytest

from sb3_llm import make_env
from sb3_llm.demos.recording import expert_for
from sb3_llm.envs.balrog import LEFT_OUT, TASKS, BalrogEnv
from sb3_llm.errors import SetupError

#: What the class of BALROG's fork of minigrid (commit cf73dd1) draws for the seeds 0 to 39: task, distractors, digest.
DRAWN_BY_THE_FORK = {
    ("goto", 0): "a01416c69e5741be",
    ("pickup", 0): "cef26a08d7df96d1",
    ("open", 0): "3883064213544875",
    ("putnext", 0): "7acb56c2681ed97e",
    ("pick_up_seq_go_to", 0): "54d8bb3a621504c3",
    ("goto", 8): "b59f520cc43b29d1",
    ("pickup", 8): "c760cbc6da34d699",
    ("open", 8): "7d6f6068488f5199",
    ("putnext", 8): "0f0c9d0a380d0921",
    ("pick_up_seq_go_to", 8): "f08ab4c9f4015dbc",
}


def quiet_reset(env: Any, seed: int) -> str:
    with contextlib.redirect_stdout(io.StringIO()):
        return str(env.reset(seed=seed)[0]["mission"])


@pytest.mark.parametrize(("task", "num_dists"), DRAWN_BY_THE_FORK)
def test_worlds_are_those_of_balrogs_fork(task: str, num_dists: int) -> None:
    env, whole = BalrogEnv(task, num_dists=num_dists), hashlib.sha256()
    for seed in range(40):
        mission = quiet_reset(env, seed)
        pose = (*map(int, env.agent_pos), int(env.agent_dir))
        whole.update(env.grid.encode().tobytes())
        whole.update(repr((*pose, mission, int(env.max_steps))).encode())
        assert not any(words in mission for words in LEFT_OUT)
    assert whole.hexdigest()[:16] == DRAWN_BY_THE_FORK[task, num_dists]


@pytest.mark.parametrize(
    ("task", "rooms", "things", "limit"),
    [("goto", 1, 1, 64), ("pickup", 1, 1, 64), ("open", 2, 2, 128), ("putnext", 1, 2, 128)],
)
def test_balrogs_own_setting(task: str, rooms: int, things: int, limit: int) -> None:
    env = gymnasium.make("sb3_llm/Balrog-v0", task=task)
    quiet_reset(env, 0)
    inner: Any = env.unwrapped
    assert (inner.width, inner.height, inner.max_steps) == (7 * rooms + 1, 8, limit)
    assert sum(cell is not None and cell.type != "wall" for cell in inner.grid.grid) == things
    assert len(make_env("sb3_llm/Balrog-v0", task=task).phrases) == 6  # BALROG has no "done"


@pytest.mark.parametrize("task", TASKS)
def test_the_bot_solves_balrogs_tasks(task: str) -> None:
    env = make_env("sb3_llm/Balrog-v0", task=task)
    bot = expert_for(env, use_bot=True)
    for seed in range(3):
        env.reset(seed=seed)
        bot.begin(env)  # type: ignore[attr-defined]
        while not env.ended:
            info = env.step(bot(env))[-1]
        assert info["is_success"]


def test_an_unknown_task_of_balrog() -> None:
    with pytest.raises(SetupError, match="pick_up_seq_go_to"):
        BalrogEnv("unlock")
