"""Steepest descent in the modular norm on the product manifold, as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim.capture import is_capturing
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.groups import is_fallback, own_values
from modular_manifolds.optim.loading import checked_and_in_place
from modular_manifolds.optim.overlapping import passes_of
from modular_manifolds.optim.params import groups_from_params, later_group
from modular_manifolds.optim.placement import Placement
from modular_manifolds.optim.processes import steps_for
from modular_manifolds.optim.rates import rate_or_default, rates_on_device_
from modular_manifolds.optim.settings import check_choices, check_groups, check_settings
from modular_manifolds.optim.unclaimed import Unclaimed
from modular_manifolds.optim.whole import WholeSteps
from modular_manifolds.solvers.base import Solver

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from modular_manifolds.optim.processes import Steps
    from modular_manifolds.optim.sharded.placement import ShardedPlacement


class SteepestDescent(Optimizer):
    """Every weight steps `lr · share` along the steepest tangent direction, then back onto its manifold.

    `W ← retract(W, −lr · share · A)`, in which `−A` is steepest for the momentum
    `B ← μ B + (1 − μ) G` (Nesterov: `μ B + (1 − μ) G` after the update). Momentum lives in the ambient
    space, as in Muon; `tangent_momentum=True` projects it to the tangent space at the new point after
    every step. The step of the whole network has modular norm `lr`, or less with `noise_damping`. A unit of
    a weight (see `Geometry.coupled_dims`) does not move if its gradient is zero.

    Each geometry has one parameter group: `lr` is the network's learning rate, `shares` the weights' fractions of it,
    `param_names` their paths. Any `torch.optim.lr_scheduler` works, and a share may be overwritten. Weights below
    float32 keep a float32 master copy in the state.

    On an accelerator a step never waits for the device. A gradient with NaN or infinity cancels the whole step there,
    and the next step or `check()` raises the error.

    Sharded weights, the DTensors of FSDP2 and tensor parallelism, are stepped in their shards, or by one process each.

    Args:
        params: a network of this library, a plan of `mm.adapt`, or torch's forms: parameters, named parameters, or groups
            of them. A group has a `manifold` and a `norm`, and optionally `share` (the step's length is `lr · share`;
            default 1), `split`, `lr` and the settings below. Or it has `optimizer="adamw"` and an `lr` of its own, with
            AdamW's `betas`, `eps` and `weight_decay`.
        lr: the network's learning rate, at least 0: a number, or a tensor without dimensions, which every compiled or
            captured step reads again; by default a plan's `default_lr`. `print(mm.budget(net, lr))` shows how far a step
            may move the output, and whether `lr` bounds that change.
        momentum: μ in [0, 1).
        nesterov: needs momentum.
        tangent_momentum: keep the momentum tangent.
        noise_damping: scale the step of each unit by the signal in its gradients; needs momentum.
        weight_decay: λ of `W ← (1 − lr · share · λ) W`; refused on manifolds whose points have a fixed size.
        solver: `"auto"`, or the name of a solver or a `Solver` that is listed for every weight's pair.
        on_nonfinite: `"raise"`, or `"skip"` to cancel the whole step and count it in `skipped`.
        capturable: allow `torch.cuda.CUDAGraph` to capture `step()`; `lr` becomes a tensor.
        owner: the process that solves a weight, if `DistributedDataParallel` wraps the network: `"auto"` deals the weights
            out, so that each is solved once, and `"replicate"` solves every weight in every process. Pass the process group
            if the wrapper cannot be seen, as for bare parameters. If weights are sharded, `"gather"` lets one process gather
            each matrix, `"rows"` lets all processes step tall ones together, each its rows, and `"auto"` compares the
            costs. `print(opt.placement)` shows the choice.
        overlap: send the gradients of sharded weights to their owners while the backward pass goes on, and not in the
            step. Pass the number of backward passes if a step has several. Gradients must then stay as they are until the
            step: clipping them in between is an error.

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
        lr: Tensor | float | None = None,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        tangent_momentum: bool = False,
        noise_damping: bool = False,
        weight_decay: float = 0.0,
        solver: str | Solver = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
        capturable: bool = False,
        owner: Literal["auto", "replicate", "rows", "gather"] | ProcessGroup = "auto",
        overlap: bool | int = False,
    ) -> None:
        resolved = groups_from_params(params)
        self._geometries, groups = resolved.geometries, resolved.groups
        lr = rate_or_default(lr, params)
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
        self._shares = {
            name: share
            for group in groups
            if not is_fallback(group)
            for name, share in zip(group["param_names"], group["shares"], strict=True)
        }
        self._first_rate = float(lr)
        self._solver = solver
        self._on_nonfinite = on_nonfinite
        self._capturable = bool(capturable)
        self.skipped: int = 0
        self.diagnoses: Diagnoses = Diagnoses(list(self._geometries))
        """The outcome of each weight's last solve, by path; a weight that has not moved yet has none."""
        if capturable and not isinstance(lr, Tensor):
            rates_on_device_(settings, groups)
        super().__init__(groups, settings)
        check_groups(self.param_groups, self._geometries)
        self._unclaimed = Unclaimed(params)
        self._unclaimed.refresh(self.param_groups)
        self._steps = self._new_steps(params, owner, passes_of(overlap, capturable=capturable))
        with torch.inference_mode(False), torch.no_grad():
            self._steps.prepare_(self.param_groups, self.state)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure`, as in torch, computes the loss and its gradients again.

        Raises:
            NonFiniteError: a gradient holds NaN or infinity and `on_nonfinite="raise"`; on an accelerator, a gradient
                of the previous step. It has changed no weight, no momentum and no dual.
            UnconstrainedParameterError: a weight of an adapted model has a gradient, but the plan does not claim it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Tensors made in inference mode cannot be written to outside it.
        with torch.inference_mode(False), torch.no_grad():
            self._step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in torch. Gradients that `overlap` has sent are given up, so between a backward pass and its step call this in
        every process or in none.
        """
        super().zero_grad(set_to_none)
        self._steps.give_up()

    def check(self) -> None:
        """Wait for the device, and raise the errors of earlier steps that the next step would raise.

        A captured or compiled step cannot raise: call this regularly, such as at the end of an epoch.

        Raises:
            NonFiniteError: a gradient held NaN or infinity and `on_nonfinite="raise"`.
            ArgumentError: an `lr` tensor was larger than the plans allow.
        """
        self._raise_failures(wait=True)

    def _step(self) -> None:
        captured, compiled = is_capturing(), torch.compiler.is_compiling()
        groups = self.param_groups
        if not compiled and not captured:
            self._raise_failures()
            self._unclaimed.check(groups)
        check_groups(groups, self._geometries)
        changed = self._steps.follow(groups, captured=captured, capturable=self._capturable)
        if changed and not compiled:
            self._unclaimed.refresh(groups)
            self._unclaimed.check(groups)
        error = self._steps.step(groups, self.state, self.diagnoses, captured=captured)
        if error is not None:
            self._raise_or_skip(error, 1)

    def _raise_failures(self, *, wait: bool | None = None) -> None:
        """Read the devices' reports of earlier steps; raise their error, or count the cancelled steps."""
        failures = self._steps.failures(self.param_groups, wait=wait)
        if failures is not None:
            self._raise_or_skip(*failures)

    def _raise_or_skip(self, error: ArgumentError, steps: int) -> None:
        if self._on_nonfinite == "raise" or not isinstance(error, NonFiniteError):
            raise error
        self.skipped += steps

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch. A group has its own geometry, or AdamW, or it names weights of the network.

        Raises:
            ArgumentError: the group has no geometry, or names no weight of the network.
        """
        if is_fallback(param_group) and "shapes" in param_group:
            super().add_param_group(param_group)
            return
        group, new_geometries = later_group(
            param_group, self._geometries, self._shares, index=len(self.param_groups)
        )
        self._geometries.update(new_geometries)
        super().add_param_group(group)
        if not new_geometries and not is_fallback(group):
            return
        if any(map(is_sharded, group["params"])) and isinstance(self._steps, WholeSteps):
            self._steps = self._new_steps(None, "auto")
        else:
            self._steps.rebuild(self.param_groups)

    def __getstate__(self) -> dict[str, Any]:
        # torch's method saves three named fields only, so a copy would lose its geometries.
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
        if "_steps" not in self.__dict__:
            self._steps = self._new_steps(None, "auto")

    def _new_steps(self, params: Any, owner: Any, passes: int = 0) -> Steps:
        return steps_for(
            params,
            owner,
            self.param_groups,
            self._geometries,
            solver=self._solver,
            first_rate=self._first_rate,
            passes=passes,
        )

    @property
    def placement(self) -> Placement | ShardedPlacement:
        """The process that solves each weight; `print` it to read it with its cost."""
        return self._steps.placement(self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with copies of the groups' names, shapes, shares and geometries.

        `torch.distributed.checkpoint` writes what it loads into the state dict that it is given. Without copies it would
        write the geometries of a checkpoint over those of this optimiser before `load_state_dict` compares them.
        """
        state = super().state_dict()
        state["param_groups"] = [own_values(group) for group in state["param_groups"]]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but state keeps its own dtype, also if the weights are in bfloat16.

        State is written into the existing tensors if shapes, dtypes and devices agree. State dicts of earlier versions,
        with one group for each weight, are accepted. Load hooks work as in torch: a pre-hook may change the loaded state,
        and a post-hook sees the result.

        Raises:
            ArgumentError: the state is not for these weights, or holds a setting that a step would refuse. Then
                nothing has changed.
        """
        with checked_and_in_place(self, self._geometries, self._solver):
            super().load_state_dict(state_dict)
        self._first_rate = max([self._first_rate, *(float(g["lr"]) for g in self.param_groups)])
        self._steps.allow_rate(self._first_rate)
        with torch.inference_mode(False), torch.no_grad():
            self._steps.prepare_(self.param_groups, self.state)
