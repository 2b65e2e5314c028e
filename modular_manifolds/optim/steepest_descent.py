"""Steepest descent in the modular norm on the product manifold, as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.optim.bucket import too_long
from modular_manifolds.optim.capture import capturing, check_capture
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.doors import added, opened
from modular_manifolds.optim.gradients import NONFINITE_REMEDY
from modular_manifolds.optim.groups import is_other
from modular_manifolds.optim.loading import by_weight, checked_state, keep_places_, keep_rates_
from modular_manifolds.optim.on_device import step_on_device
from modular_manifolds.optim.on_host import step_on_host
from modular_manifolds.optim.roster import Roster
from modular_manifolds.optim.settings import check_choices, check_groups, check_settings
from modular_manifolds.optim.unclaimed import Unclaimed
from modular_manifolds.solvers.base import Solver


class SteepestDescent(Optimizer):
    """Every weight steps `lr · share` along the steepest tangent direction, then back onto its manifold.

    `W ← retract(W, −lr · share · A)`, in which `−A` is steepest for the momentum
    `B ← μ B + (1 − μ) G` (Nesterov: `μ B + (1 − μ) G` after the update). Momentum lives in the ambient
    space, as in Muon; `tangent_momentum=True` projects it to the tangent space at the new point after
    every step. The step of the whole network has modular norm `lr`, or less with `noise_damping`. A unit of a weight that
    no gradient reaches rests; see `Geometry.coupled_dims` for units.

    One parameter group a geometry: `lr` is the network's learning rate, `shares` the weights' parts of it,
    `param_names` their paths. Any `torch.optim.lr_scheduler` works, and a share may be overwritten. Weights below
    float32 keep a float32 master copy in the state.

    On an accelerator a step reads no number, so the host never waits for it. A gradient that is not finite leaves out
    the whole step there, and the error comes with the next step or from `check()`.

    Args:
        params: a network of this library, a plan of `mm.adapt`, or what other optimisers of torch take: parameters, named
            parameters, or groups of them. A group has a `manifold` and a `norm`, and, if wanted, `share` (a step is
            `lr · share` long, 1 by default), `split`, `lr` and the settings below; or it has `optimizer="adamw"` and an
            `lr` of its own, with AdamW's `betas`, `eps` and `weight_decay`.
        lr: the network's learning rate, finite and at least 0: a number, or a tensor without dimensions, which compiled
            and captured steps read anew each time. `print(mm.budget(net, lr))` says how far a step may move the output,
            and whether `lr` bounds that change.
        momentum: μ in [0, 1).
        nesterov: needs momentum.
        tangent_momentum: keep the momentum tangent.
        noise_damping: step each unit of a weight by the part of its gradients that is signal; needs momentum.
        weight_decay: λ of `W ← (1 − lr · share · λ) W`; refused if points have a fixed size.
        solver: `"auto"`, or a solver's name or `Solver` that is listed for every weight's pair.
        on_nonfinite: `"raise"`, or `"skip"` to leave out the whole step and count it in `skipped`.
        capturable: allow `torch.cuda.CUDAGraph` to capture `step()`; `lr` becomes a tensor.

    Raises:
        ArgumentError: an argument is out of range.
        UnconstrainedParameterError: a parameter has no manifold. `step` raises NonFiniteError for a
            NaN or infinite gradient, before any weight moves.
    """

    def __init__(
        self,
        params: Weighted
        | Iterable[Tensor]
        | Iterable[tuple[str, Tensor]]
        | Iterable[dict[str, Any]],
        lr: Tensor | float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        tangent_momentum: bool = False,
        noise_damping: bool = False,
        weight_decay: float = 0.0,
        solver: str | Solver = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
        capturable: bool = False,
    ) -> None:
        found = opened(params)
        self._geometries = found.geometries
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
        groups = found.groups
        self._shares = {
            name: share
            for group in groups
            if not is_other(group)
            for name, share in zip(group["param_names"], group["shares"], strict=True)
        }
        self._first_rate = float(lr)
        self._solver = solver
        self._on_nonfinite = on_nonfinite
        self._capturable = bool(capturable)
        self.skipped: int = 0
        self.diagnoses: Diagnoses = Diagnoses(list(self._geometries))
        """How the last solve of each weight ended, by path; a weight that has not moved yet has none."""
        if capturable and not isinstance(lr, Tensor):
            device = groups[0]["params"][0].device
            settings["lr"] = _rate_on(device, self._first_rate)
            for group in groups:
                if "lr" in group and not isinstance(group["lr"], Tensor):
                    group["lr"] = _rate_on(device, group["lr"])
        super().__init__(groups, settings)
        check_groups(self.param_groups, self._geometries)
        self._unclaimed = Unclaimed(params)
        self._unclaimed.look_again(self.param_groups)
        self._roster = self._new_roster()
        with torch.inference_mode(False), torch.no_grad():
            self._roster.prepare_(self.param_groups, self.state)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure`, as in torch, computes the loss and its gradients again.

        Raises:
            NonFiniteError: a gradient holds NaN or infinity and `on_nonfinite="raise"`; on an
                accelerator, a gradient of the step before. No weight, no momentum and no dual has
                changed by it.
            UnconstrainedParameterError: a weight of an adapted model has a gradient, and the plan
                has not claimed it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # State that is made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._step()
        return loss

    def check(self) -> None:
        """Raise what the next step would raise for the steps before it, and wait for the device to know it.

        A captured or compiled step cannot raise: call this after some of them, such as at the end of an epoch.

        Raises:
            NonFiniteError: a gradient held NaN or infinity and `on_nonfinite="raise"`.
            ArgumentError: a rate that is a tensor was larger than the plans allow.
        """
        self._hear(wait=True)

    def _step(self) -> None:
        captured = capturing()
        if not torch.compiler.is_compiling() and not captured:
            self._hear(wait=self._roster.was_captured)
            self._unclaimed.check(self.param_groups)
        check_groups(self.param_groups, self._geometries)
        if captured:
            check_capture(self._capturable, self._roster, self.param_groups)
            self._roster.was_captured = True
        elif not self._roster.holds(self.param_groups):
            self._roster.gather(self.param_groups)
            if not torch.compiler.is_compiling():
                self._unclaimed.look_again(self.param_groups)
                self._unclaimed.check(self.param_groups)
        roster = self._roster
        moving = [each.parameters[0] for each in roster.buckets]
        moving += [each.parameter for each in roster.plain]
        if not moving:
            return
        roster.prepare_(self.param_groups, self.state)
        groups = self.param_groups
        with full_precision(moving[0].device.type):
            if all(map(readable, moving)):
                for bucket in roster.buckets:
                    bucket.check_rate(groups[bucket.group]["lr"])
                error = step_on_host(
                    roster.buckets, roster.plain, groups, self.state, self.diagnoses
                )
                if error is not None:
                    self._leave_out(error, 1)
                return
            step_on_device(roster.reports, groups, self.state, self.diagnoses)
            roster.unread = True
            if not captured and not torch.compiler.is_compiling():
                for report in roster.reports:
                    report.post()

    def _hear(self, *, wait: bool) -> None:
        """Take the news of earlier steps from the devices."""
        if not self._roster.unread:
            return
        news = [each.hear(wait=wait) for each in self._roster.reports]
        heard = [each for each in news if each is not None]
        if not heard:
            return
        names = [name for each in heard for name in each.nonfinite]
        if any(each.too_long for each in heard):
            bucket = self._roster.buckets[0]
            lr = self.param_groups[bucket.group]["lr"]
            raise too_long(
                bucket.names[0],
                bucket.largest_rate(lr),
                seen="another value in an earlier step, which moved nothing",
            )
        error = NonFiniteError(
            f"the gradient of '{names[0]}'",
            "must be finite",
            "NaN or infinity in an earlier step, which moved nothing",
            NONFINITE_REMEDY,
        )
        self._leave_out(error, max(each.left_out for each in heard))

    def _leave_out(self, error: NonFiniteError, steps: int) -> None:
        if self._on_nonfinite == "raise":
            raise error
        self.skipped += steps

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's. A group brings its geometry, or AdamW, or it names weights of the network, which have one.

        Raises:
            ArgumentError: the group has no geometry, or names no weight of the network.
        """
        if is_other(param_group) and "shapes" in param_group:
            super().add_param_group(param_group)
            return
        group, found = added(
            param_group, self._geometries, self._shares, index=len(self.param_groups)
        )
        self._geometries.update(found)
        super().add_param_group(group)
        if found or is_other(group):
            self._roster.gather(self.param_groups, only_with_gradient=False)

    def __getstate__(self) -> dict[str, Any]:
        # torch's own keeps three fields by name, and a copy would have no geometry.
        own = (
            "_geometries",
            "_shares",
            "_unclaimed",
            "_first_rate",
            "_solver",
            "_on_nonfinite",
            "_capturable",
            "skipped",
            "diagnoses",
        )
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_roster" not in self.__dict__:
            self._roster = self._new_roster()

    def _new_roster(self) -> Roster:
        return Roster(self._geometries, solver=self._solver, first_rate=self._first_rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and exact: state keeps its own dtype, also if the weights are in bfloat16.

        State is written into the tensors that hold it now, if their shapes, dtypes and devices agree. State dicts with
        one group a weight, from earlier versions, are read as well.
        Load hooks work as torch's: one that runs before may change what is loaded, one that runs after sees it.

        Raises:
            ArgumentError: the state is not for these weights, or holds a setting that a step would
                refuse. Nothing has changed then.
        """
        given: list[dict[str, Any]] = []
        before = {weight: dict(entries) for weight, entries in self.state.items()}
        rates = [group["lr"] for group in self.param_groups]

        def check(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
            checked = checked_state(state, self.param_groups, self._geometries, self._solver)
            given.append(checked)
            return checked

        @torch.no_grad()
        def keep(_: Optimizer) -> None:
            keep_places_(self.state, before, by_weight(given[0], self.param_groups))
            keep_rates_(self.param_groups, rates)

        # After the hooks that change what is loaded, and before those that look at the result.
        handles = (
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(keep, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()
        self._first_rate = max([self._first_rate, *(float(g["lr"]) for g in self.param_groups)])
        self._roster.allow_rate(self._first_rate)
        with torch.inference_mode(False), torch.no_grad():
            self._roster.prepare_(self.param_groups, self.state)


def _rate_on(device: torch.device, rate: float) -> Tensor:
    """A rate that captured steps read anew each time."""
    return torch.full((), float(rate), dtype=torch.float64, device=device)
