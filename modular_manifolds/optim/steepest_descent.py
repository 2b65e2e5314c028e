"""Steepest descent in the modular norm on the product manifold, as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.nn.module import Module
from modular_manifolds.optim.damping import prepare_damping_
from modular_manifolds.optim.diagnosis import Diagnosis
from modular_manifolds.optim.gradients import (
    Gradient,
    gradient_of,
    host_sums,
    is_finite,
    reached_units,
)
from modular_manifolds.optim.groups import groups_of, weights_of
from modular_manifolds.optim.loading import LATER, by_weight, check_state, dual_shape
from modular_manifolds.optim.settings import FLAGS, check_choices, check_groups, check_settings
from modular_manifolds.optim.stacks import factors, spread, stacked, unstacked
from modular_manifolds.optim.state import at_rest, descended, has_dual, in_full, prepare_
from modular_manifolds.optim.step import decay, take
from modular_manifolds.solvers.base import Solver


class SteepestDescent(Optimizer):
    """Every weight steps `lr · share` along the steepest tangent direction, then back onto its manifold.

    `W ← retract(W, −lr · share · A)`, where `−A` is steepest for the momentum
    `B ← μ B + (1 − μ) G` (Nesterov: `μ B + (1 − μ) G` after the update). Momentum lives in the ambient
    space, as in Muon; `tangent_momentum=True` projects it to the tangent space at the new point after
    every step. The step of the whole network has modular norm `lr`, or less with `noise_damping`. A unit of a weight that
    no gradient reaches rests; see `Geometry.coupled_dims` for units.

    One parameter group a weight: `lr` is the network's learning rate, `share` the weight's part of it,
    `name` its path. Any `torch.optim.lr_scheduler` works, and a share may be overwritten. Weights below
    float32 keep a float32 master copy in the state.

    Args:
        net: a module of this library, all of whose parameters have a manifold.
        lr: the network's learning rate, finite and at least 0. `print(mm.budget(net, lr))` says how far a step may move
            the output, and whether `lr` bounds that change.
        momentum: μ in [0, 1).
        nesterov: needs momentum.
        tangent_momentum: keep the momentum tangent.
        noise_damping: step each unit of a weight by the part of its gradients that is signal; needs momentum.
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
        noise_damping: bool = False,
        weight_decay: float = 0.0,
        solver: str | Solver = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        self._geometries = weights_of(net)
        settings: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": bool(nesterov),
            "tangent_momentum": bool(tangent_momentum),
            "noise_damping": bool(noise_damping),
            "weight_decay": weight_decay,
        }
        check_choices(self._geometries, solver=solver, on_nonfinite=on_nonfinite)
        check_settings(settings, self._geometries)
        self._solver = solver
        self._on_nonfinite = on_nonfinite
        self.skipped = 0
        self.diagnoses: dict[str, Diagnosis] = {}
        """How the last solve of each weight ended, by path; a weight that has not moved yet has none."""
        groups = groups_of(net)
        if not groups:
            raise ArgumentError(
                "SteepestDescent(net)",
                "must have a weight",
                "none",
                "Add an atom such as mm.Linear.",
            )
        super().__init__(groups, {**settings, "share": 0.0, "name": "", "shape": []})
        check_groups(self.param_groups, self._geometries)
        self._dual_shapes = {
            group["name"]: dual_shape(weight, self._geometries[group["name"]], solver)
            for group, weight in self._weights()
        }
        self._prepare()

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
        # State that is made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        check_groups(self.param_groups, self._geometries)
        gradients = [
            gradient_of(group, weight, self._geometries[group["name"]])
            for group, weight in self._weights()
            if weight.grad is not None and group["share"] > 0
        ]
        if not gradients:
            return
        with full_precision(gradients[0].weight.device.type):
            sums = host_sums(gradients)
            if not self._all_finite(gradients, sums):
                return
            self._prepare()
            moving = [self._with_units(*each) for each in zip(gradients, sums, strict=True)]
            for bucket in self._buckets([each for each in moving if each is not None]):
                self._step_bucket(bucket)

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
        own = ("_geometries", "_dual_shapes", "_solver", "_on_nonfinite", "skipped", "diagnoses")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and exact: state keeps its own dtype, also if the weights are in bfloat16.

        Load hooks work as torch's: one that runs before may change what is loaded, one that runs after sees it.

        Raises:
            ArgumentError: the state is not for these weights, or holds a setting that a step would refuse. Nothing
            has changed then.
        """
        given: list[dict[str, Any]] = []

        def check(_: Optimizer, state: dict[str, Any]) -> None:
            check_state(state, self.param_groups, self._geometries, self._dual_shapes)
            given.append(state)

        def keep_dtypes(_: Optimizer) -> None:
            # torch casts state to the parameter's dtype, which would round a master copy to bfloat16.
            for weight, entries in by_weight(given[0], self.param_groups).items():
                for key, value in entries.items():
                    if isinstance(value, Tensor):
                        self.state[weight][key] = value.to(weight.device, copy=True)

        # After the hooks that change what is loaded, and before those that look at the result.
        handles = (
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(keep_dtypes, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()
        for group, weight in self._weights():
            for name, value in {"shape": list(weight.shape), **LATER}.items():
                group.setdefault(name, value)
        self._prepare()

    def _weights(self) -> Iterable[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            yield group, group["params"][0]

    def _prepare(self) -> None:
        """Make the state of every weight, also of those that have no gradient yet: checkpoints of all ranks agree."""
        for group, weight in self._weights():
            if weight.is_floating_point():
                dual = self._dual_shapes[group["name"]]
                prepare_(self.state[weight], weight, momentum=group["momentum"], dual_shape=dual)
                if group["noise_damping"]:
                    prepare_damping_(self.state[weight], weight, self._geometries[group["name"]])

    def _all_finite(self, gradients: list[Gradient], sums: list[list[float]]) -> bool:
        for gradient, own in zip(gradients, sums, strict=True):
            if is_finite(gradient, own):
                continue
            if self._on_nonfinite == "skip":
                self.skipped += 1
                return False
            seen = "NaN" if bool(torch.isnan(gradient.value).any()) else "infinity"
            raise NonFiniteError(
                f"the gradient of '{gradient.group['name']}'",
                "must be finite",
                seen,
                "Lower lr, look at the loss, or pass on_nonfinite='skip' to leave such steps out.",
            )
        return True

    def _with_units(self, gradient: Gradient, sums: list[float]) -> Gradient | None:
        """The gradient with the units that it reaches; None if the weight is to be left as it is."""
        reached = reached_units(gradient, sums)
        if reached is None:
            return gradient
        partly = replace(gradient, reached=reached)
        if reached.is_cpu and not bool(reached.any()) and not gradient.group["weight_decay"]:
            # Nothing moves, so no solver is asked. The averages decay all the same.
            descended(self.state[gradient.weight], partly)
            return None
        return partly

    def _buckets(self, moving: list[Gradient]) -> list[list[Gradient]]:
        """Weights that one batched call can step: same geometry, shape, dtype, device and settings."""
        buckets: dict[Hashable, list[Gradient]] = {}
        for each in moving:
            group, weight = each.group, each.weight
            settings = tuple(group[name] for name in ("momentum", *FLAGS))
            warm = has_dual(self.state[weight])
            key = (each.geometry, weight.shape, weight.dtype, weight.device, settings, warm)
            buckets.setdefault(key, []).append(each)
        return list(buckets.values())

    def _step_bucket(self, bucket: list[Gradient]) -> None:
        geometry = bucket[0].geometry
        groups = [each.group for each in bucket]
        states = [self.state[each.weight] for each in bucket]
        starts = [in_full(s, each.weight) for s, each in zip(states, bucket, strict=True)]
        point = stacked(starts)
        descents = [descended(s, each) for s, each in zip(states, bucket, strict=True)]
        gradient = stacked([each for each, _ in descents]).to(point.dtype)
        signals = [each for _, each in descents if each is not None]
        lengths = [group["lr"] * group["share"] for group in groups]
        if any(group["weight_decay"] for group in groups):
            rates = [a * g["weight_decay"] for a, g in zip(lengths, groups, strict=True)]
            point = decay(point, factors(rates, point))
            starts = unstacked(point, len(bucket))
        dual = stacked([s["dual"] for s in states]) if has_dual(states[0]) else None
        # In a stack of vectors each is a matrix of one column.
        as_vectors = bucket[0].weight.dim() == 1
        if as_vectors:
            point, gradient = point.unsqueeze(-1), gradient.unsqueeze(-1)
        length = factors(lengths, point)
        if signals:
            parts = stacked(signals).unsqueeze(-1) if as_vectors else stacked(signals)
            length = spread(length, parts) * parts
        step = take(geometry, point, gradient, length, solver=self._solver, dual=dual)
        landed = step.point.squeeze(-1) if as_vectors else step.point
        found = step.solution
        points, gaps = unstacked(landed, len(bucket)), unstacked(found.gap, len(bucket))
        duals = None if found.dual is None else unstacked(found.dual, len(bucket))
        for i, (each, state, group) in enumerate(zip(bucket, states, groups, strict=True)):
            weight = each.weight
            new = points[i]
            if each.reached is not None:
                new = at_rest(starts[i], new, each.reached)
            if duals is not None and "dual" in state:
                # In the weight's precision: the memory of one n×n matrix.
                state["dual"] = duals[i].to(landed.dtype)
            if "master" in state:
                state["master"] = new
            weight.copy_(new)
            if group["tangent_momentum"] and "momentum" in state:
                state["momentum"] = geometry.manifold.tangent(new, state["momentum"])
            self.diagnoses[group["name"]] = Diagnosis(
                found.iterations, gaps[i], found.tolerance, found.shortfall
            )
