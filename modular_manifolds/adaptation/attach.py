"""`mm.adapt`: a plan for any PyTorch model, with or without rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.assign import assign
from modular_manifolds.adaptation.plan import ModelPlan
from modular_manifolds.adaptation.progress import Progress
from modular_manifolds.adaptation.refusals import check_memory
from modular_manifolds.adaptation.rules import AnyRule
from modular_manifolds.adaptation.shares import By
from modular_manifolds.adaptation.start import check_finite, fit_manifolds, project_
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.sharded import refuse_flat
from modular_manifolds.wrappers import replicas_of, unwrapped

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

    The model keeps its class, its forward pass, its parameter objects and its state-dict keys, and gets no attributes or
    hooks. Its weights move only with `start="project"`, which puts them onto their manifolds.

    Args:
        model: any `torch.nn.Module`, also inside wrappers such as `torch.compile` and DDP.
        rules: `mm.Rule`, `mm.Skip` and `mm.Fallback` in order; the first match wins. None for the defaults; a last
            `mm.Rule("*")` gives defaults to all other weights.
        example_inputs: a batch for measuring the responses of the outputs.
        start: `"project"` moves fresh weights onto their manifolds, and refuses trained ones. `"keep"` changes no weight,
            and chooses manifolds that contain the weights: hidden matrices get a `SpectralBall` of radius `σ_max` by
            default, and a `FixedGram`, `SpectralBall`, `SpectralSphere` or `Sphere` of radius 1 in a rule takes the weight's
            radius.
        by: the split of the learning rate: by `"measured"` responses, the default with example inputs, or by `"mass"`.
        loss: maps the model's result to the loss, for measuring; see `ModelPlan.measure`.
        probes: the number of random backward passes for measuring.
        seed: the seed of random points and probes.
        force: project trained weights as well.
        progress: whether to show a progress bar on a terminal, or a function `(done, total, words)` to call instead.

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
    refuse_flat(network, argument="adapt(model)")
    assignment = assign(network, rules)
    parameters: dict[str, nn.Parameter] = dict(network.named_parameters())
    rows = assignment.rows
    check_memory((row.parameter for row in rows), parameters)
    # Tensors made in inference mode cannot be written to outside it.
    with torch.inference_mode(False), torch.no_grad():
        check_finite(rows, parameters)
        if start == "project":
            rows = project_(rows, parameters, seed=seed, force=force)
        else:
            rows = fit_manifolds(rows, parameters, rule_manifolds=assignment.rule_manifolds)
    fallbacks, skipped = assignment.fallbacks, assignment.skipped
    plan = ModelPlan(network, rows, fallbacks, skipped, "mass", start, replicas_of(model))
    if split == "mass":
        return plan
    return plan.measure(example_inputs, loss=loss, probes=probes, seed=seed, progress=progress)


def _check_by(by: Any, example_inputs: Any) -> By:
    if by is None:
        return "mass" if example_inputs is None else "measured"
    if by == "bound":
        raise ArgumentError(
            "adapt(by)",
            "must be 'mass' or 'measured' for an adapted model",
            "'bound'",
            "Bounds need a declared network: build it from mm.Linear, mm.ReLU and >>.",
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
