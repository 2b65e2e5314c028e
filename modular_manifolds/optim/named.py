"""Known methods under their own names, with the arguments of `torch.optim.Muon`. Each is one row of the table of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.nn.sharded import whole, write_whole_
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.frobenius import Frobenius
from modular_manifolds.norms.max import Max
from modular_manifolds.norms.spectral import Spectral
from modular_manifolds.optim.groups import is_fallback
from modular_manifolds.optim.steepest_descent import SteepestDescent
from modular_manifolds.optim.torch_params import as_groups, names_and_tensors

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
ManifoldOf = Callable[[Tensor], Manifold]


class Muon(SteepestDescent):
    """Muon: `W ← W − lr · c · msign(B)`, with the same step lengths as `torch.optim.Muon`.

    Args:
        params: matrices, with or without names, or groups of them; other weights go into a group with `optimizer="adamw"`.
        lr: the learning rate.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
        weight_decay: as in `SteepestDescent`.
        adjust_lr_fn: c for a matrix of shape (m, n), as in torch: `"original"` is √max(1, m/n), and `"match_rms_adamw"`
            is 0.2 √max(m, n). Both count rows as outputs. Matrices with one c form one parameter group, whose `weight_decay`
            is λ/c, because torch decays by `lr · λ`.

    Raises:
        ShapeError: a parameter is not a matrix.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original",
        **options: Any,
    ) -> None:
        if adjust_lr_fn not in SCALES:
            raise ArgumentError(
                "Muon(adjust_lr_fn)",
                f"must be one of {', '.join(map(repr, SCALES))}",
                repr(adjust_lr_fn),
                "Leave it at 'original'.",
            )
        scale = SCALES[adjust_lr_fn]
        groups = _groups(
            "Muon", params, lambda _: Euclidean(), Spectral(), scale=scale, decay=weight_decay
        )
        options.update(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(groups, lr, **options)


class ManifoldMuon(SteepestDescent):
    """Manifold Muon: the steepest tangent direction in the spectral norm on the Stiefel manifold.

    All singular values of a weight stay at `radius`. The constructor moves each weight to the nearest such matrix. Use
    it for freshly initialised matrices: this move would destroy trained ones.

    Args:
        params: matrices, as in `Muon`.
        lr: how far a step moves a weight in the spectral norm.
        radius: the singular value of all weights.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 0.02,
        *,
        radius: float = 1.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        **options: Any,
    ) -> None:
        manifold = Stiefel(radius)
        groups = _groups("ManifoldMuon", params, lambda _: manifold, Spectral(), project=True)
        super().__init__(groups, lr, momentum=momentum, nesterov=nesterov, **options)


class MuonSphere(SteepestDescent):
    """Muon on the sphere of the weight's own Frobenius norm, with the exact tangent direction.

    MuonH in public ablations uses the same sphere without the tangent direction. MuonSphere in arXiv 2601.08393 is
    another method, on the spectral sphere.

    Args:
        params: nonzero matrices, as in `Muon`.
        lr: how far a step moves a weight in the spectral norm.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 0.02,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        **options: Any,
    ) -> None:
        groups = _groups("MuonSphere", params, _own_sphere, Spectral())
        super().__init__(groups, lr, momentum=momentum, nesterov=nesterov, **options)


class HypersphericalDescent(SteepestDescent):
    """Riemannian gradient descent on the sphere of the weight's own length, with steps of length `lr`.

    Args:
        params: nonzero vectors or matrices; groups as in `Muon`.
        lr: how far a step moves a weight, in the Frobenius norm.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 0.02,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Any,
    ) -> None:
        groups = _groups(
            "HypersphericalDescent", params, _own_sphere, Frobenius(), matrices_only=False
        )
        super().__init__(groups, lr, momentum=momentum, nesterov=nesterov, **options)


class NormalizedSGD(SteepestDescent):
    """Gradient descent, in which each parameter's step has length `lr` in the Frobenius norm.

    Args:
        params: vectors or matrices; groups as in `Muon`.
        lr: as in `SteepestDescent`.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
        weight_decay: as in `SteepestDescent`.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 0.02,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        groups = _groups(
            "NormalizedSGD", params, lambda _: Euclidean(), Frobenius(), matrices_only=False
        )
        options.update(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(groups, lr, **options)


class SignDescent(SteepestDescent):
    """Sign descent: every entry moves by `lr` (signSGD; Signum with momentum).

    Args:
        params: vectors or matrices; groups as in `Muon`.
        lr: as in `SteepestDescent`.
        momentum: μ in [0, 1), the part of the old momentum that a step keeps.
        nesterov: whether the direction looks one step ahead; needs momentum.
        weight_decay: as in `SteepestDescent`.
    """

    def __init__(
        self,
        params: Params,
        lr: Tensor | float = 1e-3,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        groups = _groups("SignDescent", params, lambda _: Euclidean(), Max(), matrices_only=False)
        options.update(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(groups, lr, **options)


SCALES: Final[dict[str, Callable[[int, int], float]]] = {
    "original": lambda m, n: math.sqrt(max(1.0, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}
"""The factors c of torch's Muon for matrices of shape (m, n), by their names in torch."""


def _own_sphere(weight: Tensor) -> Manifold:
    return Sphere(float(torch.linalg.vector_norm(weight.detach().double())))


def _groups(
    method: str,
    params: Params,
    manifold_of: ManifoldOf,
    norm: Norm,
    *,
    scale: Callable[[int, int], float] = lambda *_: 1.0,
    decay: float = 0.0,
    matrices_only: bool = True,
    project: bool = False,
) -> list[dict[str, Any]]:
    """The caller's groups with a geometry. A group is divided if its parameters have several manifolds or scales.

    A group that already has a geometry, or AdamW, keeps it.
    """
    complete: list[dict[str, Any]] = []
    for index, group in enumerate(as_groups(params, argument=f"{method}(params)")):
        if is_fallback(group) or "manifold" in group:
            complete.append(group)
            continue
        where = f"{method}(params): group {index}"
        names, tensors = names_and_tensors(
            group.pop("params", None), group.pop("param_names", None), index, where
        )
        alike: dict[tuple[Manifold, float], list[tuple[str, Tensor]]] = {}
        for name, tensor in zip(names, tensors, strict=True):
            if tensor.dim() > 2 or (matrices_only and tensor.dim() != 2):
                _refuse_shape(f"{where}: '{name}'", tensor, matrices_only=matrices_only)
            point = whole(tensor.detach())
            manifold = manifold_of(point)
            if project:
                with torch.no_grad():
                    write_whole_(tensor, manifold.project(point))
            factor = 1.0 if tensor.dim() < 2 else scale(*tensor.shape)
            alike.setdefault((manifold, factor), []).append((name, tensor))
        for (manifold, factor), members in alike.items():
            own = {**group, "params": members, "manifold": manifold, "norm": norm}
            own["share"] = factor * group.get("share", 1.0)
            if decay or "weight_decay" in group:
                own["weight_decay"] = group.get("weight_decay", decay) / factor
            complete.append(own)
    return complete


def _refuse_shape(where: str, tensor: Tensor, *, matrices_only: bool) -> None:
    raise ShapeError(
        where,
        "must be a matrix" if matrices_only else "must be a vector or a matrix",
        tuple(tensor.shape),
        "Put it into a group with 'optimizer': 'adamw' and an lr of its own, or call mm.adapt(model), which covers every weight.",
    )
