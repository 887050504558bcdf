"""Cells run side by side: in processes of this machine, or on a Ray cluster."""

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sb3_llm.benchmarks.suite.config import Cell
from sb3_llm.benchmarks.suite.provenance import Provenance, here
from sb3_llm.benchmarks.suite.running import run_cell
from sb3_llm.benchmarks.suite.store import Store
from sb3_llm.benchmarks.suite.worker import pack, unpack_cell
from sb3_llm.errors import SetupError

POLL_SECONDS = 0.2
KNOCK_SECONDS = 10.0  # until a cluster that does not answer counts as out of reach
WORKER = "sb3_llm.benchmarks.suite.worker"
#: Called with each cell that ended, and what it died of, if it did.
Ended = Callable[[Cell, str | None], None]


@dataclass
class _Running:
    cell: Cell
    process: subprocess.Popen[str]
    errors: IO[str]


def run_locally(cells: Sequence[Cell], store: Store, work: Path, jobs: int, ended: Ended) -> None:
    """
    Run each cell in a process of its own, so that one that dies takes no other along, and its memory is its own.

    :param cells: in the order they are begun
    :param store: where results go
    :param work: folder for what several cells share
    :param jobs: how many at a time
    :param ended: told of each end
    """
    waiting = list(cells)
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_begin(waiting.pop(0), store, work))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _finish(one, store, ended)
            time.sleep(POLL_SECONDS)
    finally:
        for one in running:
            one.process.kill()
            one.process.wait()


def _begin(cell: Cell, store: Store, work: Path) -> _Running:
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed when the process has ended
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    process = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        env=os.environ | one_thread,
        start_new_session=True,  # Ctrl-C reaches us alone, and we end them
    )
    assert process.stdin is not None
    process.stdin.write(pack(cell, store.folder, work))
    process.stdin.close()
    return _Running(cell, process, errors)


def _finish(one: _Running, store: Store, ended: Ended) -> None:
    one.errors.seek(0)
    said = one.errors.read()
    one.errors.close()
    code = one.process.returncode
    why = None
    if code:
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        why = f"{how}: {last[0]}"
        store.fail(one.cell.key, f"{said[-5000:]}\n{why}")
    ended(one.cell, why)


def run_on_ray(cells: Sequence[Cell], store: Store, work: Path, address: str | None, ended: Ended) -> None:
    """
    Run each cell as a Ray task on one core, in a process of its own; this process writes the results.

    :param cells: in the order they are begun
    :param store: where results go, on this machine
    :param work: folder for what several cells share, on each machine
    :param address: of a cluster, such as "auto" or "ray://head:10001"; None starts one on this machine
    :param ended: told of each end
    :raises SetupError: if Ray is not installed, or there is no cluster at the address
    """
    ray = _connect(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0, max_calls=1)(_on_ray)
        pending = {remote.remote(asdict(cell), str(work)): cell for cell in cells}
        for reference, cell in _as_they_end(ray, pending):
            try:
                figures, provenance = ray.get(reference)
            except ray.exceptions.RayError as error:
                why = str(error).strip().splitlines()[-1]
                store.fail(cell.key, f"{error}\n{why}")
                ended(cell, why)
            else:
                store.save(cell, figures, Provenance(**provenance))
                ended(cell, None)
    finally:
        ray.shutdown()


def _on_ray(said: dict[str, Any], work: str) -> tuple[dict[str, Any], dict[str, Any]]:
    provenance = here()
    return run_cell(unpack_cell(said), Path(work)), asdict(provenance)


def _as_they_end(ray: Any, pending: dict[Any, Cell]) -> Iterator[tuple[Any, Cell]]:
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        yield ready[0], pending.pop(ready[0])


def _connect(address: str | None) -> Any:
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise SetupError(
            "--launcher ray, and Ray is not installed", "Ray", "pip install 'sb3_llm[benchmarks]', or --launcher local"
        ) from None
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise SetupError(
            f"--ray-address {address}: {str(error).splitlines()[0]}",
            "a Ray cluster that can be reached",
            "start one with `ray start --head`, leave --ray-address out for one on this machine, or add --fallback",
        ) from None
    return ray


def _knock(address: str | None) -> None:
    """Ray itself tries for minutes to reach a machine that does not answer, and then ends the process."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
