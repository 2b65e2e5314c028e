"""Projection of weights onto their manifolds, mainly of averaged weights, which lie off their manifolds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import Adapted, Weighted
from modular_manifolds.nn.network import check_network
from modular_manifolds.nn.sharded import (
    is_sharded,
    refuse_flat,
    refuse_flat_tensors,
    whole,
    write_whole_,
)
from modular_manifolds.wrappers import unwrapped


@torch.no_grad()
def project_(net: Weighted, averaged: nn.Module | Mapping[str, Tensor] | None = None) -> None:
    """Move weights to the nearest points of their manifolds, in place.

    Averages of weights, such as those of `torch.optim.swa_utils.AveragedModel`, lie off their manifolds. Weights on
    unbounded manifolds are not changed. A sharded weight is gathered for the moment, so all its processes must call this.

    Args:
        net: a declared network, or the plan of an adapted model; it gives the manifolds.
        averaged: a copy of the network or of the model that holds the averages, inside torch's wrappers or not, or a
            state dict. None for the weights of `net` itself.

    Raises:
        ArgumentError: `net` has no geometry, or the copy lacks one of its weights, or has it in another shape.
    """
    network = check_network(net, argument="project_(net)")
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    target = parameters if averaged is None else _tensors(averaged)
    refuse_flat(network, argument="project_(net)")
    refuse_flat_tensors(target.items(), argument="project_(averaged)")
    pieces = network.pieces() if isinstance(network, Adapted) else {}
    geometries = dict(network.geometries())
    for path in geometries:
        _check(pieces[path][0] if path in pieces else path, target, parameters)
    for path, geometry in geometries.items():
        if not geometry.manifold.compact:
            continue
        name, piece = pieces.get(path, (path, None))
        stored = target[name].detach()
        point = whole(stored)
        if piece is None:
            write_whole_(stored, geometry.manifold.project(point))
            continue
        piece.write_(point, geometry.manifold.project(piece.read(point)))
        if is_sharded(stored):
            write_whole_(stored, point)


def _tensors(averaged: object) -> dict[str, Tensor]:
    inner = unwrapped(averaged)
    if isinstance(inner, nn.Module):
        # Both a plan and this copy name a tied weight by its first name.
        return dict(inner.named_parameters())
    if isinstance(inner, Mapping):
        return {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    raise ArgumentError(
        "project_(averaged)",
        "must be a module or a state dict",
        type(inner).__name__,
        "Pass the averaged copy of the model, such as torch.optim.swa_utils.AveragedModel.",
    )


def _check(name: str, target: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    tensor, parameter = target.get(name), parameters[name]
    if tensor is None or tensor.shape != parameter.shape:
        raise ArgumentError(
            "project_(averaged)",
            f"must have the weight '{name}' of shape {tuple(parameter.shape)}",
            "none" if tensor is None else f"shape {tuple(tensor.shape)}",
            "Pass a copy of the same model.",
        )
