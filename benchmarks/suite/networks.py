"""Small networks for reinforcement learning on the numbers of a world."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_llm.benchmarks.controls.networks import NETWORKS, Cnn, as_image
from sb3_llm.benchmarks.controls.numbers import CELLS, GRID, PLANES
from sb3_llm.errors import SetupError


class GridCnn(BaseFeaturesExtractor):
    """
    The network of torch-ac's starter files for MiniGrid: ids are embedded, then three convolutions and a pooling.

    Compass, mission and whatever else is told beside the view go through a layer of their own.

    :param observation_space: of :class:`sb3_llm.numeric.NumericObservation` around a MiniGrid world that shows 7 x 7
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=128)
        self.planes = PLANES[GRID]
        self.n_view = CELLS * sum(self.planes)
        size = observation_space.shape or (0,)
        if size[0] <= self.n_view:
            raise SetupError(
                f"observations of shape {size}", "a MiniGrid world's numbers, with a view of 7 x 7", "use the MLP there"
            )
        self.embed = nn.Conv2d(sum(self.planes), 24, 1)
        self.view = nn.Sequential(
            nn.Conv2d(24, 16, 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.rest = nn.Sequential(nn.Linear(size[0] - self.n_view, 64), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """:return: (B, 128) of inputs (B, N)."""
        image = as_image(inputs, self.planes)
        return torch.cat((self.view(self.embed(image)), self.rest(inputs[:, self.n_view :])), 1)


class ClonedTrunk(BaseFeaturesExtractor):
    """
    A cloned network without its last layer, which becomes the policy's.

    :param observation_space: of the numbers it was cloned on
    :param network: "mlp" or "cnn"
    :param kind: of worlds
    """

    def __init__(self, observation_space: spaces.Space[Any], network: str, kind: str) -> None:
        assert observation_space.shape is not None
        whole = NETWORKS[network](kind, observation_space.shape[0])
        last = last_layer(whole)
        super().__init__(observation_space, features_dim=last.in_features)
        if isinstance(whole, Cnn):
            whole.head = nn.Sequential(*list(whole.head.children())[:-1])
            self.trunk: nn.Module = whole
        else:
            self.trunk = nn.Sequential(
                *list(whole.children())[:-1]
            )  # a slice would call the class with other arguments

    def forward(self, inputs: Tensor) -> Tensor:
        """:return: (B, features) of inputs (B, N)."""
        return self.trunk(inputs)


def last_layer(network: nn.Module) -> nn.Linear:
    """:return: the layer that gives a cloned network's logits."""
    layers = network.head if isinstance(network, Cnn) else network
    last = layers[-1]  # type: ignore[index]
    assert isinstance(last, nn.Linear)
    return last


def take_over(policy: Any, network: nn.Module, offered: list[int]) -> None:
    """
    Give a policy over a :class:`ClonedTrunk` the weights of a cloned network.

    :param policy: SB3's, with nothing between features and actions
    :param network: the cloned one
    :param offered: which of its actions the world offers
    """
    last = last_layer(network)
    trunk = policy.features_extractor.trunk
    trunk.load_state_dict({name: value for name, value in network.state_dict().items() if name in trunk.state_dict()})
    with torch.no_grad():
        policy.action_net.weight.copy_(last.weight[offered])
        policy.action_net.bias.copy_(last.bias[offered])


EXTRACTORS = {"GridCnn": GridCnn}
