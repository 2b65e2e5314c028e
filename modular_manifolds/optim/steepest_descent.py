"""Steepest descent in the modular norm on the product manifold, as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.nn.module import Module
from modular_manifolds.optim.groups import groups_of, weights_of
from modular_manifolds.optim.settings import check_settings
from modular_manifolds.optim.step import all_finite, decay, take
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Status


@dataclass(frozen=True)
class Diagnosis:
    """How one weight's last solve ended. `gap` is its relative duality gap, of each matrix of a stack, still on the device."""

    iterations: int
    gap: Tensor
    worst: Status
    tolerance: float | None

    @property
    def status(self) -> Status:
        """This weight's own status, of its worst matrix; it may have converged where another of its batch did not."""
        if self.tolerance is not None and float(self.gap.max()) <= self.tolerance:
            return Status.CONVERGED
        return self.worst


class SteepestDescent(Optimizer):
    """Every weight steps `lr · share` along the steepest tangent direction, then back onto its manifold.

    `W ← retract(W, −lr · share · A)`, where `−A` is steepest for the momentum
    `B ← μ B + (1 − μ) G` (Nesterov: `μ B + (1 − μ) G` after the update). Momentum lives in the ambient
    space, as in Muon; `tangent_momentum=True` projects it to the tangent space at the new point after
    every step. The step of the whole network has modular norm `lr`.

    One parameter group a weight: `lr` is the network's learning rate, `share` the weight's part of it,
    `name` its path. Any `torch.optim.lr_scheduler` works, and a share may be overwritten. Weights below
    float32 keep a float32 master copy in the state.

    Args:
        net: a module of this library, all of whose parameters have a manifold.
        lr: the network's learning rate, finite and at least 0.
        momentum: μ in [0, 1).
        nesterov: needs momentum.
        tangent_momentum: keep the momentum tangent.
        weight_decay: λ of `W ← (1 − lr · share · λ) W`; refused where points have a fixed size.
        solver: `"auto"`, or a solver's name or `Solver` that is listed for every weight's pair.
        on_nonfinite: `"raise"`, or `"skip"` to leave out the whole step and count it in `skipped`.

    Raises:
        ArgumentError: an argument is out of range. UnconstrainedParameterError: a parameter has no
        manifold. `step` raises NonFiniteError for a NaN or infinite gradient, before any weight moves.
    """

    def __init__(
        self,
        net: Module,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        tangent_momentum: bool = False,
        weight_decay: float = 0.0,
        solver: str | Solver = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        self._geometries = weights_of(net)
        check_settings(
            self._geometries,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            solver=solver,
            on_nonfinite=on_nonfinite,
        )
        self._solver = solver
        self._on_nonfinite = on_nonfinite
        self.skipped = 0
        self.diagnoses: dict[str, Diagnosis] = {}
        """How the last solve of each weight ended, by path."""
        groups = groups_of(net)
        if not groups:
            raise ArgumentError(
                "SteepestDescent(net)",
                "must have a weight",
                "none",
                "Add an atom such as mm.Linear.",
            )
        super().__init__(
            groups,
            {
                "lr": float(lr),
                "share": 0.0,
                "name": "",
                "momentum": float(momentum),
                "nesterov": bool(nesterov),
                "tangent_momentum": bool(tangent_momentum),
                "weight_decay": float(weight_decay),
            },
        )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure`, as in torch, computes the loss and its gradients again.

        Raises:
            NonFiniteError: a gradient holds NaN or infinity and `on_nonfinite="raise"`. No weight, no
            momentum and no dual has changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(g, p) for g, p in self._weights() if p.grad is not None and g["share"] > 0]
        if moving and self._all_finite(moving):
            for bucket in self._buckets(moving):
                self._step_bucket(bucket)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, for the weights of the network only.

        Raises:
            ArgumentError: the group does not name a weight of the network, so it has no manifold.
        """
        if param_group.get("name") not in self._geometries:
            raise ArgumentError(
                "add_param_group(param_group)",
                f"must name one of {', '.join(self._geometries)}",
                repr(param_group.get("name")),
                "Declare the weight in the network and build the optimizer on the whole of it.",
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        # torch's own keeps three fields by name, and a copy would have no geometry.
        own = ("_geometries", "_solver", "_on_nonfinite", "skipped", "diagnoses")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and exact: state keeps its own dtype, also where the weights are in bfloat16.

        Raises:
            ArgumentError: the state belongs to a network with other weights.
        """
        given = [group.get("name") for group in state_dict["param_groups"]]
        names = [group["name"] for group in self.param_groups]
        if given != names:
            raise ArgumentError(
                "load_state_dict(state_dict)",
                f"must be for the weights {', '.join(names)}",
                ", ".join(str(name) for name in given),
                "Build the optimizer on the network that the state was saved from.",
            )
        super().load_state_dict(state_dict)
        # torch casts state to the parameter's dtype, which would round a master copy to bfloat16.
        for index, (_, p) in enumerate(self._weights()):
            saved = state_dict["state"].get(index, {})
            for key, value in saved.items():
                self.state[p][key] = (
                    value.to(p.device, copy=True) if isinstance(value, Tensor) else value
                )

    def _weights(self) -> Iterable[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            yield group, group["params"][0]

    def _all_finite(self, moving: list[tuple[dict[str, Any], Tensor]]) -> bool:
        gradients = [p.grad for _, p in moving if p.grad is not None]
        finite = all_finite(gradients)
        if all(finite):
            return True
        if self._on_nonfinite == "skip":
            self.skipped += 1
            return False
        group, p = moving[finite.index(False)]
        assert p.grad is not None
        seen = "NaN" if bool(torch.isnan(p.grad).any()) else "infinity"
        raise NonFiniteError(
            f"the gradient of '{group['name']}'",
            "must be finite",
            seen,
            "Lower lr, look at the loss, or pass on_nonfinite='skip' to leave such steps out.",
        )

    def _buckets(
        self, moving: list[tuple[dict[str, Any], Tensor]]
    ) -> list[list[tuple[dict[str, Any], Tensor]]]:
        """Weights that one batched call can step: same geometry, shape, dtype, device and settings."""
        buckets: dict[Hashable, list[tuple[dict[str, Any], Tensor]]] = {}
        for group, p in moving:
            settings = (group["momentum"], group["nesterov"], group["tangent_momentum"])
            warm = "dual" in self.state[p]
            key = (self._geometries[group["name"]], p.shape, p.dtype, p.device, settings, warm)
            buckets.setdefault(key, []).append((group, p))
        return list(buckets.values())

    def _step_bucket(self, bucket: list[tuple[dict[str, Any], Tensor]]) -> None:
        group = bucket[0][0]
        geometry = self._geometries[group["name"]]
        point = _stacked([self._in_full(p) for _, p in bucket])
        gradient = _stacked([self._descended(g, p) for g, p in bucket]).to(point.dtype)
        lengths = [g["lr"] * g["share"] for g, _ in bucket]
        if any(g["weight_decay"] for g, _ in bucket):
            rates = [
                length * g["weight_decay"] for length, (g, _) in zip(lengths, bucket, strict=True)
            ]
            point = decay(point, _numbers(rates, point))
        duals = [self.state[p].get("dual") for _, p in bucket]
        dual = _stacked([d for d in duals if d is not None]) if duals[0] is not None else None
        as_vectors = bucket[0][1].dim() == 1  # a stack of vectors: each is a matrix of one column
        if as_vectors:
            point, gradient = point.unsqueeze(-1), gradient.unsqueeze(-1)
        length = _numbers(lengths, point)
        step = take(geometry, point, gradient, length, solver=self._solver, dual=dual)
        landed = step.point.squeeze(-1) if as_vectors else step.point
        found = step.solution
        points, gaps = _unstacked(landed, len(bucket)), _unstacked(found.gap, len(bucket))
        # Kept to start from, in the weight's precision: the memory of one n×n matrix.
        kept = None if found.dual is None else _unstacked(found.dual.to(landed.dtype), len(bucket))
        for i, (g, p) in enumerate(bucket):
            state = self.state[p]
            if kept is not None:
                state["dual"] = kept[i]
            if p.dtype != landed.dtype:
                state["master"] = points[i]
            p.copy_(points[i])
            if g["tangent_momentum"] and "momentum" in state:
                state["momentum"] = geometry.manifold.tangent(
                    points[i], state["momentum"].to(landed.dtype)
                )
            self.diagnoses[g["name"]] = Diagnosis(
                found.iterations, gaps[i], found.status, found.tolerance
            )

    def _in_full(self, p: Tensor) -> Tensor:
        """The weight in at least float32: its master copy, but for entries that somebody has changed since."""
        full = at_least_float32(p)
        master = self.state[p].get("master")
        return full if master is None else torch.where(master.to(p.dtype) == p, master, full)

    def _descended(self, group: dict[str, Any], p: Tensor) -> Tensor:
        """What the solver descends: the gradient, or its momentum. The state's buffer is updated."""
        assert p.grad is not None
        mu = group["momentum"]
        gradient = at_least_float32(p.grad)
        if mu == 0:
            return gradient
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - mu)
        return gradient.lerp(state["momentum"], mu) if group["nesterov"] else state["momentum"]


def _stacked(tensors: list[Tensor]) -> Tensor:
    """One tensor with a batch dimension, or the tensor itself where there is but one."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors)


def _numbers(numbers: list[float], like: Tensor) -> Tensor | float:
    """One number for each tensor of a stack, or the number itself where there is but one."""
    return numbers[0] if len(numbers) == 1 else like.new_tensor(numbers)


def _unstacked(tensor: Tensor, count: int) -> list[Tensor]:
    """The parts of a `_stacked` tensor, each in memory of its own."""
    return [tensor] if count == 1 else [each.clone() for each in tensor]
