"""An MLP and a CNN over the numbers of a world, as large as the embedded model or larger where that helps them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sb3_llm.benchmarks.controls.numbers import ACTIONS, CELLS, PLANES

WIDTH = 640  # with it the MLP has as many weights as the embedded model
CHANNELS = 64


class Mlp(nn.Sequential):
    """
    Three hidden layers over all numbers.

    :param kind: of worlds
    :param n_inputs: numbers of an observation
    """

    def __init__(self, kind: str, n_inputs: int) -> None:
        widths = (n_inputs, WIDTH, WIDTH, WIDTH)
        hidden: list[nn.Module] = []
        for before, after in pairwise(widths):
            hidden += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        super().__init__(*hidden, nn.Linear(WIDTH, len(ACTIONS[kind])))


class Cnn(nn.Module):
    """
    Convolutions over the one-hot 7 x 7 view, steered by all other numbers (FiLM, as in BabyAI, arXiv 1810.08272).

    :param kind: of worlds
    :param n_inputs: numbers of an observation
    """

    def __init__(self, kind: str, n_inputs: int) -> None:
        super().__init__()
        self.planes = PLANES[kind]
        self.n_view = CELLS * sum(self.planes)
        self.rest = nn.Sequential(
            nn.Linear(n_inputs - self.n_view, 256), nn.LayerNorm(256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
        )
        self.first = nn.Conv2d(sum(self.planes), CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(Film(256) for _ in range(2))
        self.squeeze = nn.Conv2d(CHANNELS, 32, 1)
        self.head = nn.Sequential(nn.Linear(32 * CELLS + 256, 256), nn.ReLU(), nn.Linear(256, len(ACTIONS[kind])))

    def forward(self, inputs: Tensor) -> Tensor:
        """:return: logits (B, actions) of inputs (B, N)."""
        rest = self.rest(inputs[:, self.n_view :])
        hidden = self.first(as_image(inputs, self.planes)).relu()
        for block in self.blocks:
            hidden = block(hidden, rest)
        return self.head(torch.cat((self.squeeze(hidden).relu().flatten(1), rest), 1))


def as_image(inputs: Tensor, planes: Sequence[int]) -> Tensor:
    """
    :param inputs: (B, N), which begin with the view: each part of it, of all cells
    :param planes: how many numbers each part has for a cell
    :return: the view, (B, planes, 7, 7): of each cell its one-hot parts
    """
    parts = inputs[:, : CELLS * sum(planes)].split([CELLS * n for n in planes], 1)
    cells = [part.reshape(len(inputs), 7, 7, n) for part, n in zip(parts, planes, strict=True)]
    return torch.cat(cells, 3).permute(0, 3, 1, 2)


class Film(nn.Module):
    """
    A residual block whose channels are scaled and shifted by a vector.

    :param n_steering: length of the vector
    """

    def __init__(self, n_steering: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm = nn.GroupNorm(8, CHANNELS, affine=False)
        self.steer = nn.Linear(n_steering, 2 * CHANNELS)

    def forward(self, hidden: Tensor, steering: Tensor) -> Tensor:
        """:return: (B, channels, 7, 7), as ``hidden``; ``steering`` is (B, N)."""
        scale, shift = self.steer(steering)[:, :, None, None].chunk(2, 1)
        return hidden + (self.norm(self.conv(hidden)) * (1 + scale) + shift).relu()


NETWORKS: dict[str, type[Mlp] | type[Cnn]] = {"mlp": Mlp, "cnn": Cnn}
