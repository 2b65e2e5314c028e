"""The door: any PyTorch model, with rules or without, becomes a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modular_manifolds.adapt.assign import assign
from modular_manifolds.adapt.plan import ModelPlan
from modular_manifolds.adapt.progress import Progress
from modular_manifolds.adapt.rules import AnyRule
from modular_manifolds.adapt.shares import By
from modular_manifolds.adapt.start import check_finite, keep, project_
from modular_manifolds.errors import ArgumentError
from modular_manifolds.wrappers import unwrapped

Start = Literal["project", "keep"]


def adapt(
    model: nn.Module,
    rules: Sequence[AnyRule] | None = None,
    *,
    example_inputs: Any = None,
    start: Start = "project",
    by: By | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    probes: int = 16,
    seed: int = 0,
    force: bool = False,
    progress: bool | Progress = True,
) -> ModelPlan:
    """Decide a geometry for every trainable weight of a model; `print` the plan to read it.

    The model keeps its class, its forward pass, its parameter objects and the keys of its state dict, and nothing is hung on
    its modules or tensors. Its weights move only if `start="project"` puts them onto their manifolds.

    Args:
        model: any `torch.nn.Module`; wrappers such as `torch.compile` and DDP are looked through.
        rules: `mm.Rule`, `mm.Skip` and `mm.Fallback` in order; the first match wins. None for the defaults, and
            `mm.Rule("*")` at the end for the defaults of whatever is left.
        example_inputs: a batch, on which the responses of the outputs are measured.
        start: `"project"` puts fresh weights onto their manifolds and refuses trained ones; `"keep"` changes no bit, and lets
            manifolds go through the weights as they are. With `"keep"`, hidden matrices get a `SpectralBall` of today's
            `σ_max` by default, and a `SpectralBall`, `SpectralSphere` or `Sphere` of radius 1 in a rule takes the radius of
            the weight.
        by: how the learning rate is split: by `"measured"` responses, the default with example inputs, or by `"mass"`.
        loss: the loss of what the model returns, for measuring; see `ModelPlan.measure`.
        probes: the number of random backward passes that measure.
        seed: the seed of random points and probes.
        force: project trained weights all the same.
        progress: whether measuring draws a bar on a terminal, or a function `(done, total, words)` to call instead.

    Raises:
        ArgumentError: the model, a rule or a weight breaks a rule; the message is one line with the
            remedy.
        UnconstrainedParameterError: no rule claims a trainable weight.
        NonFiniteError: a weight holds NaN or infinity.
    """
    network = unwrapped(model)
    split = _check_by(by, example_inputs)
    if start not in ("project", "keep"):
        raise ArgumentError(
            "adapt(start)",
            "must be 'project' or 'keep'",
            repr(start),
            "Use 'project' for a fresh model and 'keep' for a trained one.",
        )
    assignment = assign(network, rules)
    parameters: dict[str, nn.Parameter] = dict(network.named_parameters())
    rows = assignment.rows
    # Points that are drawn in inference mode could not be written to weights outside of it.
    with torch.inference_mode(False), torch.no_grad():
        check_finite(rows, parameters)
        if start == "project":
            rows = project_(rows, parameters, seed=seed, force=force)
        else:
            rows = keep(rows, parameters, given=assignment.given)
    plan = ModelPlan(network, rows, assignment.fallbacks, assignment.skipped, "mass", start)
    if split == "mass":
        return plan
    return plan.measure(example_inputs, loss=loss, probes=probes, seed=seed, progress=progress)


def _check_by(by: Any, example_inputs: Any) -> By:
    if by is None:
        return "mass" if example_inputs is None else "measured"
    if by == "bound":
        raise ArgumentError(
            "adapt(by)",
            "must be 'mass' or 'measured' for a model that was not declared",
            "'bound'",
            "Bounds follow from a composition: declare the network with mm.Linear, mm.ReLU and >>.",
        )
    if by not in ("mass", "measured"):
        raise ArgumentError(
            "adapt(by)", "must be 'mass' or 'measured'", repr(by), "Leave it out for the default."
        )
    if by == "measured" and example_inputs is None:
        raise ArgumentError(
            "adapt(by)",
            "needs a batch to measure on",
            "'measured' without example_inputs",
            "Pass example_inputs=batch, or by='mass'.",
        )
    return by
