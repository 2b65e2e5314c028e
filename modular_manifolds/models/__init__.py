"""Complete networks, each composed in a few lines."""

from modular_manifolds.models.convnet import ConvNet as ConvNet
from modular_manifolds.models.gpt import GPT as GPT
from modular_manifolds.models.mlp import MLP as MLP
from modular_manifolds.models.residual_mlp import ResidualMLP as ResidualMLP
