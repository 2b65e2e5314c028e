"""Refusals: errors for models and weights that cannot be adapted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from modular_manifolds.adaptation.claims import Claim
from modular_manifolds.adaptation.known import ParameterFacts
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.nn.module import Module
from modular_manifolds.nn.sharded import local
from modular_manifolds.nn.sharing import overlaps_itself, refuse_shared
from modular_manifolds.nn.tracing import has_values

STEPPED_TYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPUTING_HOOKS: Final = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Torch's hooks that compute a weight from other parameters."""
MATRIX_MANIFOLDS: Final = (Stiefel, FixedGram, SpectralBall, SpectralSphere)
"""Manifolds for matrices only; on a vector they would be spheres."""


def check_model(model: Any) -> None:
    """Refuse an argument that is not a module, or is a network of this library.

    Raises:
        ArgumentError: in these cases.
        SharedWeightError: two parameters share memory.
    """
    if isinstance(model, type) or not isinstance(model, nn.Module):
        raise ArgumentError(
            "adapt(model)",
            "must be a torch.nn.Module",
            model.__name__ if isinstance(model, type) else type(model).__name__,
            "Pass the model itself, not its parameters or its class.",
        )
    if isinstance(model, Module):
        raise ArgumentError(
            "adapt(model)",
            "must be a model without geometry",
            f"{type(model).__name__}, whose weights already have geometries",
            "Pass it to mm.SteepestDescent directly.",
        )
    refuse_shared(model.named_parameters())


def check_storage(claim: Claim) -> None:
    """Refuse a weight that cannot be stepped in its own memory.

    That is one without values, one that is complex, sparse, quantised or in eight bits, or an input of a computed weight.

    Raises:
        ArgumentError: the message names the weight.
    """
    place = claim.places[0]
    parameter, where = place.parameter, f"the weight '{claim.name}'"
    if is_lazy(parameter) or not has_values(parameter):
        raise ArgumentError(
            where,
            "must have values",
            "none yet" if is_lazy(parameter) else f"a tensor on the device {parameter.device}",
            "Call model.to_empty(device=...) and initialise it, or run it once, before mm.adapt.",
        )
    if parameter.is_complex():
        raise ArgumentError(
            where,
            "must be real",
            parameter.dtype,
            "Store the real and the imaginary part as two weights, or add mm.Fallback.",
        )
    if parameter.layout != torch.strided:
        raise ArgumentError(where, "must be dense", parameter.layout, "Use mm.Fallback for it.")
    if parameter.dtype not in STEPPED_TYPES:
        raise ArgumentError(
            where,
            "must be in float16, bfloat16, float32 or float64",
            parameter.dtype,
            "Keep a weight to train in one of these, and cast it in the forward pass.",
        )
    if parameter.numel() == 0:
        raise ShapeError(
            where, "must have entries", tuple(parameter.shape), "Remove it, or add mm.Skip."
        )
    for each in claim.places:
        computed = _computing_mechanism(each.module, each.attribute, each.parents)
        if computed:
            raise ArgumentError(
                where,
                "must be the weight that the model uses",
                f"an input of a weight that {computed} computes",
                "Remove the parametrization or the pruning first, or add mm.Skip or mm.Fallback for it.",
            )


def check_memory(names: Iterable[str], parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights with two entries at one place in memory, such as an expanded tensor.

    Raises:
        ArgumentError: the message names the weight.
    """
    for name in dict.fromkeys(names):
        parameter = parameters[name]
        if overlaps_itself(local(parameter)):
            raise ArgumentError(
                f"the weight '{name}'",
                "must have a place in memory for each entry",
                f"strides {parameter.stride()} for shape {tuple(parameter.shape)}",
                "Store the small tensor as the parameter and expand it in the forward pass, or clone the expanded one.",
            )


def check_fit(
    manifold: Manifold, known: ParameterFacts, shape: tuple[int, ...], *, where: str, parameter: str
) -> None:
    """Refuse a matrix manifold for a vector, and a compact manifold for an embedding with fixed rows.

    Raises:
        ArgumentError: the message begins with `where`.
    """
    if known.role == "vector" and isinstance(manifold, MATRIX_MANIFOLDS):
        raise ShapeError(
            f"{where}: {manifold}",
            "needs a matrix",
            f"a vector of shape {shape}",
            "Match matrices only, such as '*.weight', or use Sphere or Euclidean for it.",
        )
    if known.fixed_rows and manifold.compact:
        raise ArgumentError(
            f"{where}: {manifold}",
            "would move a row that the embedding controls itself",
            known.fixed_rows,
            f"Use Euclidean for '{parameter}', or build the embedding without this setting.",
        )


def _computing_mechanism(module: nn.Module, attribute: str, parents: tuple[nn.Module, ...]) -> str:
    """The name of the mechanism that computes a weight from this parameter; empty if there is none."""
    if isinstance(module, parametrize.ParametrizationList) or any(
        isinstance(each, parametrize.ParametrizationList) for each in parents
    ):
        return "torch.nn.utils.parametrize"
    hooks = vars(module).get("_forward_pre_hooks", {})
    for hook in hooks.values():
        if isinstance(hook, COMPUTING_HOOKS):
            name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", "")
            if attribute.startswith(f"{name}_"):
                return type(hook).__name__
    return ""
