"""Scoring on a GPU: decisions per second of a model of 0.5 B parameters, and how busy they keep it."""

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from transformers import PreTrainedModel

from sb3_llm.benchmarks.peers import PromptOnly
from sb3_llm.benchmarks.shapes import Setting, half_billion_lm, random_rows
from sb3_llm.errors import SetupError
from sb3_llm.scoring import PackedScorer


def on_gpu(batch: int, repeats: int) -> None:
    """
    Print decisions per second and the share of the GPU's own matrix-multiply rate.

    :param batch: prompts in a batch
    :param repeats: timed runs, alternating with the prompts alone
    :raises SetupError: without a GPU
    """
    if not torch.cuda.is_available():
        raise SetupError("--device cuda on a machine without a GPU", "a CUDA device", "leave --device out")
    lm = half_billion_lm().cuda()
    rows = random_rows(Setting("6M", 151936, 7, batch))
    ours, bound = PackedScorer(lm), PromptOnly(lm)
    seconds: dict[str, list[float]] = {"ours": [], "prompt only": []}
    with torch.no_grad():
        for _ in range(repeats + 1):
            ours.forget()  # the shared start is computed each time, as after an update
            seconds["ours"].append(_timed(lambda: ours.score(rows)))
            seconds["prompt only"].append(_timed(lambda: bound.score(rows)))
        rate = _matmul_rate()
    mine, alone = (statistics.median(times[1:]) for times in seconds.values())
    weights = sum(parameter.numel() for parameter in lm.model.layers.parameters())
    columns = _columns(lm, lambda: (ours.forget(), ours.score(rows)))
    share = 2 * weights * columns / mine / rate
    Console().print(
        f"{torch.cuda.get_device_name()}: {batch / mine:,.0f} decisions per second, {mine / alone:.2f} of the prompts "
        f"alone, {share:.0%} of the measured matrix-multiply rate ({rate / 1e12:.0f} TFLOP/s in bfloat16); Qwen2 shape "
        f"of 0.5 B random parameters, 7 phrases, batch of {batch}, {repeats} repeats"
    )


def _columns(lm: PreTrainedModel, run: Callable[[], object]) -> int:
    """Columns that a run feeds to the model, padding included."""
    fed: list[int] = []
    handle = lm.register_forward_pre_hook(
        lambda _, args, named: fed.append(named["input_ids"].numel()), with_kwargs=True
    )
    with torch.no_grad():
        run()
    handle.remove()
    return sum(fed)


def _timed(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _matmul_rate(size: int = 8192, repeats: int = 20) -> float:
    """Operations per second of one large bfloat16 matrix product."""
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    _timed(lambda: left @ right)
    return 2 * size**3 * repeats / _timed(lambda: [left @ right for _ in range(repeats)])
