"""Whole networks, each a few lines of the algebra that show its architecture."""

from modular_manifolds.models.convnet import ConvNet as ConvNet
from modular_manifolds.models.gpt import GPT as GPT
from modular_manifolds.models.mlp import MLP as MLP
from modular_manifolds.models.residual_mlp import ResidualMLP as ResidualMLP
