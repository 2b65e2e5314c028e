"""Whole networks, each a few lines of the algebra that show its architecture."""

from modular_manifolds.models.convnet import ConvNet as ConvNet
