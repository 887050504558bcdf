"""Networks without words, cloned from the demonstrations by cross-entropy, the learning rate chosen for each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from sb3_llm.benchmarks.controls.networks import NETWORKS, Cnn, Mlp
from sb3_llm.benchmarks.controls.replay import Demonstrations, choices_digest, kept_demonstrations
from sb3_llm.errors import SetupError
from sb3_llm.folder import write_whole

HELD_OUT = 0.06  # of the stories, to choose learning rate and length of training on
BATCH = 256


@dataclass(frozen=True)
class Schedule:
    """How a network is cloned."""

    rates: tuple[float, ...] = (1e-3, 3e-4, 1e-4)  # of Adam, all of them tried
    epochs: int = 30  # at most
    patience: int = 3  # epochs without a better held-out loss, after which it stops
    seed: int = 0


def clone_network(
    name: str, kind: str, demonstrations: Demonstrations, schedule: Schedule
) -> tuple[nn.Module, dict[str, Any]]:
    """
    Clone with each learning rate, and keep the weights of the best epoch of all.

    :param name: "mlp" or "cnn"
    :param kind: of worlds
    :param demonstrations: of that kind
    :param schedule: how
    :return: the network, and a report: for each rate the best held-out loss with its accuracy and epoch
    """
    train, held_out = hold_out(demonstrations, schedule.seed)
    best_loss, best_weights, tried = float("inf"), None, []
    network = _fresh(name, kind, demonstrations, schedule.seed)
    for rate in schedule.rates:
        network = _fresh(name, kind, demonstrations, schedule.seed)
        found, weights = _train(network, demonstrations, train, held_out, rate, schedule, f"{kind} {name}, {rate:g}")
        tried.append({"learning_rate": rate} | found)
        if found["loss"] < best_loss:
            best_loss, best_weights = found["loss"], weights
    assert best_weights is not None
    network.load_state_dict(best_weights)
    parameters = sum(weight.numel() for weight in network.parameters())
    counts = {"trained_on": len(train), "held_out": len(held_out), "parameters": parameters}
    return network.eval(), counts | {"tried": tried}


def hold_out(demonstrations: Demonstrations, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    :param demonstrations: of some stories
    :param seed: of the choice
    :return: those to train on, and those of whole stories that are held out
    :raises SetupError: if there are too few stories
    """
    stories = np.unique(demonstrations.stories)
    kept = np.random.default_rng(seed).permutation(stories)[: max(1, round(HELD_OUT * len(stories)))]
    held_out = np.isin(demonstrations.stories, kept)
    if held_out.all():
        raise SetupError(
            f"{len(demonstrations)} demonstrations of {len(stories)} stories",
            "at least two stories, so that one can be held out",
            "replay more lines",
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _fresh(name: str, kind: str, demonstrations: Demonstrations, seed: int) -> Mlp | Cnn:
    torch.manual_seed(seed)
    return NETWORKS[name](kind, demonstrations.inputs.shape[1])


def _train(
    network: nn.Module,
    demonstrations: Demonstrations,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    rate: float,
    schedule: Schedule,
    title: str,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    optimizer, rng = torch.optim.Adam(network.parameters(), rate), np.random.default_rng(schedule.seed)
    found: dict[str, Any] = {"loss": float("inf")}
    weights: dict[str, torch.Tensor] = {}
    progress = tqdm(range(schedule.epochs), desc=title, unit="epoch")
    for epoch in progress:
        network.train()
        for batch in np.array_split(rng.permutation(train), max(1, len(train) // BATCH)):
            loss = functional.cross_entropy(network(_inputs(demonstrations, batch)), _actions(demonstrations, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_now, accuracy = examine(network, demonstrations, held_out)
        progress.set_postfix(held_out=f"{loss_now:.3f}", accuracy=f"{accuracy:.3f}")
        if loss_now < found["loss"]:
            found = {"loss": loss_now, "accuracy": accuracy, "epochs": epoch + 1}
            weights = {key: value.clone() for key, value in network.state_dict().items()}
        elif epoch + 1 >= found["epochs"] + schedule.patience:
            break
    progress.close()
    return found, weights


@torch.no_grad()
def examine(network: nn.Module, demonstrations: Demonstrations, rows: NDArray[np.int64]) -> tuple[float, float]:
    """:return: cross-entropy and accuracy on some of the demonstrations."""
    network.eval()
    loss, right = 0.0, 0
    for batch in np.array_split(rows, max(1, len(rows) // 1024)):
        logits, actions = network(_inputs(demonstrations, batch)), _actions(demonstrations, batch)
        loss += float(functional.cross_entropy(logits, actions, reduction="sum"))
        right += int((logits.argmax(1) == actions).sum())
    return loss / len(rows), right / len(rows)


def _inputs(demonstrations: Demonstrations, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(demonstrations.inputs[rows].astype(np.float32))


def _actions(demonstrations: Demonstrations, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(demonstrations.actions[rows].astype(np.int64))


def kept_network(
    folder: Path, name: str, kind: str, n_lines: int, schedule: Schedule | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """
    A cloned network, from disk if it was cloned in the same way before.

    :param folder: where demonstrations and networks are kept
    :param name: "mlp" or "cnn"
    :param kind: of worlds
    :param n_lines: of the corpus whose choices it learns
    :param schedule: how
    :return: the network, and its report
    """
    schedule = schedule or Schedule()
    path = folder / f"{name}-{kind}-{n_lines}.pt"
    made_from = json.dumps([choices_digest(), asdict(schedule)])
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["made_from"] == made_from:
            network = NETWORKS[name](kind, kept["n_inputs"])
            network.load_state_dict(kept["weights"])
            return network.eval(), kept["report"]
    demonstrations = kept_demonstrations(folder, kind, n_lines)
    cloned, report = clone_network(name, kind, demonstrations, schedule)
    kept = {"made_from": made_from, "n_inputs": demonstrations.inputs.shape[1], "report": report}
    write_whole(path, lambda file: torch.save(kept | {"weights": cloned.state_dict()}, file))
    return cloned, report
