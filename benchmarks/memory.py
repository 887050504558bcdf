"""Peak memory, each figure in a process of its own: a process's peak only ever grows."""

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """
    :param prepare: makes what is measured; a function of a module, since it is sent to another process
    :param arguments: of ``prepare``
    :return: MiB that the work takes at most, above what was there before it
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(prepare, arguments, sender))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return float(found)


def _measure(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], sender: Connection) -> None:
    work = prepare(*arguments)
    with contextlib.suppress(OSError):  # Linux then counts the peak from here; where it may not, from the start
        Path("/proc/self/clear_refs").write_text("5")
    before = _high_water()
    work()
    sender.send((_high_water() - before) / 1024)


def _high_water() -> int:
    """KiB this process has held at most. Not ``ru_maxrss``: Linux hands a parent's down to its child."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
