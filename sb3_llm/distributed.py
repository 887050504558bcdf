"""Several processes train one policy: each steps its own environments, and gradients are averaged. For torchrun."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable
from torch.optim import Optimizer

from sb3_llm.errors import SetupError
from sb3_llm.runs import Run

#: How long a process waits for the others. They differ by the time that their environments take, and by a save, which
#: rank 0 does alone; a process that dies is noticed at once, by its closed connection or by torchrun.
TIMEOUT = timedelta(minutes=15)
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class RanksApart(RuntimeError):
    """The processes can't go on together."""


@dataclass(frozen=True)
class Ranks:
    """
    The processes of a run, seen from one of them.

    :param rank: this one's number
    :param size: how many there are
    :param local_rank: this one's number on its machine
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """:return: what torchrun's environment variables say; without them there is only this process."""
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            return cls()
        return cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def chief(self) -> bool:
        """:return: whether this process logs and saves."""
        return self.rank == 0

    @property
    def quiet(self) -> dict[str, Any]:
        """:return: keywords for an algorithm whose logs nobody reads."""
        return {} if self.chief else {"verbose": 0, "tensorboard_log": None}

    @property
    def device(self) -> str:
        """:return: a GPU of its own for each process of a machine, as far as there are enough."""
        if self.size == 1 or not torch.cuda.is_available():
            return "auto"
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    def own(self, run: Run) -> Run:
        """
        A process's part of a run. PPO's preset of ``target_kl`` is left out in several: they would stop apart.

        :param run: as it was asked for
        :return: the run with this process's seed: environments are seeded as those of one process that has all
        """
        alone = {"target_kl": None} if self.size > 1 and "target_kl" in run.hyperparameters else {}
        return replace(run, seed=run.seed + self.rank * run.n_envs, settings=run.settings | alone)

    def share(self, timesteps: int) -> int:
        """:return: this process's part of the environment steps."""
        return -(-timesteps // self.size)

    def check(self, algorithm: str, settings: Mapping[str, Any], run: str) -> None:
        """
        :param algorithm: of the run
        :param settings: of the algorithm, as far as they were asked for
        :param run: all of the run, which has to be the same in all processes
        :raises SetupError: for what several processes can't do
        """
        if self.size == 1:
            return
        if algorithm == "trpo":
            given = "trpo in several processes, whose actor steps go past the optimizer, where gradients are averaged"
            raise SetupError(given, "ppo, a2c or maskable_ppo", "pass --algorithm ppo, or train in one process")
        if settings.get("target_kl") is not None:
            given = f"target_kl={settings['target_kl']} in several processes, which would stop apart"
            raise SetupError(given, "no target_kl", "leave target_kl out, or train in one process")
        runs: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(runs, run)
        if run != runs[0]:
            raise SetupError(f"{run} in process {self.rank}", runs[0], "start all processes with the same arguments")

    def gather(self, state: bytes) -> list[bytes] | None:
        """:return: what every process gave, in rank 0; None in the others."""
        if self.size == 1:
            return [state]
        states: list[Any] | None = [None] * self.size if self.chief else None
        with _together():
            dist.gather_object(state, states)
        return states

    def tie(self, policy: Any) -> None:
        """
        Give every process rank 0's weights, and keep them the same in all.

        :param policy: with an ``optimizer``, as all of SB3's on-policy algorithms have
        """
        if self.size == 1:
            return
        with torch.no_grad(), _together():
            for tensor in (*policy.parameters(), *policy.buffers()):
                # As bytes, for not every backend knows every dtype.
                copy = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
                dist.broadcast(copy.view(torch.uint8), 0)
                tensor.copy_(copy.view_as(tensor))
        if hasattr(policy, "clear_memo"):
            policy.clear_memo()
        AveragedGradients(policy.optimizer, self.size)


class AveragedGradients:
    """
    Averages gradients over the processes at the end of every backward pass.

    That is before SB3 clips their norm, so that clipping acts on the average, as it would in one process that has all
    the data. Every process makes one collective call for each optimizer step, whatever got a gradient in it.

    :param optimizer: its parameters' gradients are averaged
    :param size: how many processes there are
    """

    def __init__(self, optimizer: Optimizer, size: int) -> None:
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._size = size
        self._queued = self._averaged = False
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)
        optimizer.register_step_pre_hook(lambda *_: self._before_step())
        optimizer.register_step_post_hook(lambda *_: self._after_step())

    def _arrived(self, _: Tensor) -> None:
        """Have the engine call back when the whole backward pass is done, as torch's own DDP does."""
        if not self._queued:
            self._queued = True
            Variable._execution_engine.queue_callback(self._average)

    def _before_step(self) -> None:
        if not self._averaged:  # nothing got a gradient here, and others wait
            self._average()
        self._averaged = False

    def _after_step(self) -> None:
        """Weights that differ would go on differing, and train something that no process has."""
        sums = [torch.zeros(1, dtype=torch.int64) for _ in range(self._size)]
        own = checksum(self._parameters)
        with _together():
            dist.all_gather(sums, own)
        if any(each != own for each in sums):
            raise RanksApart(f"the processes hold different weights: checksums {[int(each) for each in sums]}")

    @torch.no_grad()
    def _average(self) -> None:
        self._queued, self._averaged = False, True
        parts = [_numbers(each.grad, each) for each in self._parameters]
        # Who got a gradient at all travels along: a zero is not the same as none to Adam, which would count a step.
        known = torch.tensor([each.grad is not None for each in self._parameters], device=parts[0].device)
        flat = torch.cat([*parts, known.to(parts[0].dtype)])
        with _together():
            dist.all_reduce(flat)
        *sums, counts = flat.split([*map(len, parts), len(parts)])
        for parameter, total, count in zip(self._parameters, sums, counts.tolist(), strict=True):
            if count:
                mean = (total / self._size).view_as(parameter).to(parameter.dtype)
                parameter.grad = mean if parameter.grad is None else parameter.grad.copy_(mean)


def _numbers(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """Flat, at least in float32, in which sums of bfloat16 lose nothing."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    if gradient is None:
        return torch.zeros(parameter.numel(), dtype=dtype, device=parameter.device)
    return gradient.flatten().to(dtype)


def checksum(parameters: list[nn.Parameter]) -> Tensor:
    """:return: int64 of shape (1,), the same for the same bits, in any order of summing."""
    total = torch.zeros(1, dtype=torch.int64)
    for place, parameter in enumerate(parameters, 1):
        bits = parameter.detach().contiguous().view(BITS[parameter.element_size()])
        total += place * bits.sum(dtype=torch.int64).cpu()
    return total


@contextmanager
def _together() -> Iterator[None]:
    """What torch raises when another process is gone says little; say it in words."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        minutes = int(TIMEOUT.total_seconds() / 60)
        raise RanksApart(f"another process is gone, or did not answer for {minutes} minutes ({reason})") from error


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """
    Meet the other processes, if there are any.

    :return: a context in which they can be talked to
    """
    ranks = Ranks.from_environment()
    if ranks.size == 1:
        yield ranks
        return
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.device)
    with _together():
        dist.init_process_group("cpu:gloo,cuda:nccl" if enough else "gloo", timeout=TIMEOUT)
    with _told_to_end():
        yield ranks
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone


@contextmanager
def _told_to_end() -> Iterator[None]:
    """When a process dies, torchrun sends SIGTERM to the others; they should say what happened."""

    def stop(*_: Any) -> None:
        raise RanksApart("this process was told to end (SIGTERM), most likely because another one is gone")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's could come before the error has been told
        raise
    signal.signal(signal.SIGTERM, before)
