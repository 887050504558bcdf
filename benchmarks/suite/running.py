"""One cell from nothing to its figures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sb3_llm.benchmarks.suite.config import Cell
from sb3_llm.benchmarks.suite.costs import flops_per_decision, parameters, peak_memory
from sb3_llm.benchmarks.suite.curve import Curve, Stopwatch
from sb3_llm.benchmarks.suite.players import PLAYERS, LanguageModel, Player
from sb3_llm.fluency import STORIES, encode_texts, perplexity


def run_cell(cell: Cell, work: Path) -> dict[str, Any]:
    """
    Train and test, in this process, on one thread: cells run side by side.

    :param cell: what to run
    :param work: folder for what several cells share
    :return: curve, final figures, generalisation, fluency and costs, as JSON has them
    """
    torch.set_num_threads(1)
    player = PLAYERS[cell.method.player](cell, work)  # clones its network, which counts no more than pretraining does
    watch = Stopwatch()
    model = player.make()
    setup = watch.read()[0]
    fluency = _Fluency(model) if isinstance(player, LanguageModel) else None
    curve = Curve(lambda: player.test(model, cell.episodes, False), watch, cell.stop_at)
    if cell.method.trains and cell.steps:
        model.learn(cell.steps, callback=curve)
        if not curve.stopped:  # else nothing was learnt since the last look
            curve.look_now()
    watch.pause()
    episodes = cell.final_episodes
    return {
        "curve": [asdict(look) for look in curve.looks],
        "final": {how: asdict(player.test(model, episodes, how == "greedy")) for how in ("sampled", "greedy")},
        "generalisation": _generalise(player, model),
        "fluency": fluency.now() if fluency else None,
        "costs": {"setup_seconds": setup, "seconds": watch.read()[0]} | _costs(player, model),
    }


class _Fluency:
    """Perplexity on stories in the form of the embedded model's corpus, before and after training."""

    def __init__(self, model: Any) -> None:
        self.policy = model.policy
        self.parts = encode_texts(STORIES, self.policy.tokenizer, self.policy.lm)
        self.before = perplexity(self.policy.lm, self.parts)

    def now(self) -> dict[str, float]:
        return {"before": self.before, "after": perplexity(self.policy.lm, self.parts)}


def _generalise(player: Player, model: Any) -> dict[str, Any]:
    cell = player.cell
    found = {axis: player.generalise(model, axis, cell.episodes) for axis in cell.axes}
    return {axis: asdict(figures) for axis, figures in found.items() if figures is not None}


def _costs(player: Player, model: Any) -> dict[str, Any]:
    memory = {"peak_memory_mib": peak_memory()}
    if not hasattr(model, "policy"):
        return memory
    env = player.test_env(16)
    try:
        return parameters(model) | {"flops_per_decision": flops_per_decision(model, env)} | memory
    finally:
        env.close()
