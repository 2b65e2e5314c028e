"""A perceptron with torch's initial weights."""

from __future__ import annotations

from torch import nn


def mlp(features: int, classes: int, *, width: int, depth: int) -> nn.Sequential:
    """A perceptron with `depth` hidden layers of `width` units, for inputs of any shape with `features` numbers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(depth):
        layers += [nn.Linear(width if index else features, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))
