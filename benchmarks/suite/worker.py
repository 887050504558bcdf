"""A process for one cell: ``python -m sb3_llm.benchmarks.suite.worker``, the job as JSON on its standard input."""

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sb3_llm.benchmarks.suite.config import Cell, Method, Task
from sb3_llm.benchmarks.suite.provenance import here
from sb3_llm.benchmarks.suite.running import run_cell
from sb3_llm.benchmarks.suite.store import Store


def pack(cell: Cell, out: Path, work: Path) -> str:
    """:return: a job for a worker."""
    return json.dumps({"cell": asdict(cell), "out": str(out), "work": str(work)})


def unpack_cell(said: dict[str, Any]) -> Cell:
    """:return: the cell of which ``asdict`` made this, on this or another machine."""
    parts = {"task": Task(**said["task"]), "method": Method(**said["method"]), "axes": tuple(said["axes"])}
    return Cell(**(said | parts))


def end_with(parent: int) -> None:
    """End this process when the one that began it is gone: killed, it can't end its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Run a job and write its results."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    job = json.load(sys.stdin)
    cell = unpack_cell(job["cell"])
    provenance = here()  # of the code as it was imported
    Store(Path(job["out"])).save(cell, run_cell(cell, Path(job["work"])), provenance)


if __name__ == "__main__":
    main()
