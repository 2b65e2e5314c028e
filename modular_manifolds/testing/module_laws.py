"""Laws of every module: its declared bounds are tested against the function it computes.

Random search and gradient ascent find lower bounds. A law that fails refutes the declared bound; a law that
passes does not prove it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from modular_manifolds.composition.allocation import allocate
from modular_manifolds.composition.radius import total
from modular_manifolds.composition.sizes import output_bound, slope
from modular_manifolds.composition.tree import leaves
from modular_manifolds.linalg.ascent import climb
from modular_manifolds.linalg.snapshot import plain_surroundings, snapshot
from modular_manifolds.nn import Composed, Geometry
from modular_manifolds.nn.network import check_composed
from modular_manifolds.testing.check import at_most, equal, unchanged
from modular_manifolds.testing.sample import Sample
from modular_manifolds.testing.trials import (
    TRIAL_INPUTS,
    Trial,
    as_rows,
    difference,
    draw_inputs,
    from_rows,
    largest_output_bound,
    map_parts,
    measure,
    of_size,
    output_bounds,
    output_rounding,
    pairs,
    sizes,
    slopes,
    tensors_of,
    trials,
)

ASCENT_PAIRS, ASCENT_ROUNDS, STEPS_PER_ROUND = 16, 6, 3
"""The number of pairs of each kind in gradient ascent; of rounds, each for point and direction; and of steps a round."""


ModuleLaw = Callable[[Composed, Sample], None]


def sensitivity_bounds_the_slope(module: Composed, sample: Sample) -> None:
    """`‖f(x) − f(y)‖_target ≤ sensitivity · ‖x − y‖_source` for pairs of inputs close together and far apart."""
    for trial in trials(module, sample):
        for x, y in pairs(trial, sample):
            separate_memory = measure(difference(y, x), trial.source)
            radii = map_parts(torch.maximum, sizes(x, trial.source), sizes(y, trial.source))
            allowed = slopes(trial.tree, radii) * (1 + sample.tolerance)
            change = measure(difference(module(y), module(x)), trial.target)
            noise = output_rounding(trial, sample) * largest_output_bound(trial.tree, radii)
            law = f"{trial}: sensitivity bounds the slope"
            at_most(change - noise, allowed * separate_memory, law)


def sensitivity_holds_in_the_unit_ball(module: Composed, sample: Sample) -> None:
    """`‖f(x) − f(y)‖ ≤ sensitivity · ‖x − y‖` for inputs in the unit ball.

    A bond's own bound for inputs of norm 1 must not exceed its declared sensitivity. A typical slope, which may be
    smaller than the bound, is a rate scale, not a sensitivity.
    """
    for leaf in leaves(module.tree()):
        if leaf.weight is None:
            law = f"{leaf.where}: sensitivity bounds the slope for inputs of norm 1 (a typical slope is a rate_scale)"
            at_most(slope(leaf, 1.0), leaf.signature.sensitivity * (1 + sample.tolerance), law)
    for trial in trials(module, sample):
        allowed = slope(trial.tree, 1.0) * (1 + sample.tolerance)
        noise = output_rounding(trial, sample) * total(output_bound(trial.tree, 1.0))
        law = f"{trial}: sensitivity bounds the slope in the unit ball"
        for x, y in pairs(trial, sample):
            larger = torch.maximum(measure(x, trial.source), measure(y, trial.source))
            x, y = (_divided(each, larger.clamp_min(1.0)) for each in (x, y))
            moved = measure(difference(module(y), module(x)), trial.target)
            at_most(moved - noise, allowed * measure(difference(y, x), trial.source), law)


def no_ascent_beats_the_sensitivity(module: Composed, sample: Sample) -> None:
    """`‖f(x + d) − f(x)‖ ≤ sensitivity · ‖d‖` at the pairs that gradient ascent finds, with the norm of d fixed.

    The point x ascends within twice its norm, then the direction of d, in turns. In float64 the closest pairs measure
    a slope to about 1e-8, which would detect GELU divided by 1.1289, an error of 3.7e-6.
    """
    generator = sample.generator("ascent")
    for trial in trials(module, sample):
        # Different rows for each kind, because the same row of two kinds may start at the same point.
        rows = [
            slice(i * ASCENT_PAIRS % TRIAL_INPUTS, i * ASCENT_PAIRS % TRIAL_INPUTS + ASCENT_PAIRS)
            for i in range(TRIAL_INPUTS)
        ]
        starts = [
            (
                map_parts(lambda part, rows_of_kind=rows_of_kind: part[rows_of_kind], x),
                map_parts(lambda part, rows_of_kind=rows_of_kind: part[rows_of_kind], y),
            )
            for rows_of_kind, (x, y) in zip(rows, pairs(trial, sample), strict=False)
        ]
        first = map_parts(lambda *parts: torch.cat(parts), *[x for x, _ in starts])
        second = map_parts(lambda *parts: torch.cat(parts), *[y for _, y in starts])
        to_inputs = from_rows(first)
        x, d = as_rows(first), as_rows(difference(second, first))
        size, separate_memory = (measure(to_inputs(each), trial.source) for each in (2 * x, d))

        def change(
            x: Tensor, d: Tensor, trial: Trial = trial, to_inputs: Any = to_inputs
        ) -> Tensor:
            return measure(difference(module(to_inputs(x + d)), module(to_inputs(x))), trial.target)

        def length(rows: Tensor, trial: Trial = trial, to_inputs: Any = to_inputs) -> Tensor:
            return measure(to_inputs(rows), trial.source).clamp_min(torch.finfo(sample.dtype).tiny)

        def limit_norm(x: Tensor, size: Tensor = size, length: Any = length) -> Tensor:
            return x * (size / length(x)).clamp(max=1).unsqueeze(-1)

        def restore_norm(
            d: Tensor, separate_memory: Tensor = separate_memory, length: Any = length
        ) -> Tensor:
            return d * (separate_memory / length(d)).unsqueeze(-1)

        x_step, d_step = size.unsqueeze(-1) / 4, separate_memory.unsqueeze(-1) / 2
        for _ in range(ASCENT_ROUNDS):
            x, x_step = climb(
                lambda x, d=d: change(x, d),
                x,
                x_step,
                rounds=STEPS_PER_ROUND,
                generator=generator,
                keep=limit_norm,
            )
            d, d_step = climb(
                lambda d, x=x: change(x, d),
                d,
                d_step,
                rounds=STEPS_PER_ROUND,
                generator=generator,
                keep=restore_norm,
            )
        ends = (sizes(to_inputs(each), trial.source) for each in (x, x + d))
        radii = map_parts(torch.maximum, *ends)
        allowed = slopes(trial.tree, radii) * separate_memory
        noise = output_rounding(trial, sample) * output_bounds(trial.tree, radii)
        law = f"{trial}: no ascent beats the sensitivity"
        at_most(change(x, d) - noise, allowed * (1 + sample.tolerance), law)


def reach_bounds_the_output(module: Composed, sample: Sample) -> None:
    """`‖f(x)‖ ≤ output_bound(‖x‖)`: sensitivities and offsets bound the norms of outputs."""
    for trial in trials(module, sample):
        rounding = sample.tolerance + output_rounding(trial, sample)
        for size in (0.0, 1e-3, 1.0, 30.0):
            x = of_size(draw_inputs(trial, sample, "x", TRIAL_INPUTS), trial.source, size)
            allowed = total(output_bound(trial.tree, size)) * (1 + rounding) + sample.eps
            law = f"{trial}: the bound on outputs for inputs of size {size:g}"
            at_most(measure(module(x), trial.target), allowed, law)


def budget_bounds_the_change(module: Composed, sample: Sample) -> None:
    """Steps of unit modular norm move the output by at most `first_order`, to first order.

    Inputs are in the unit ball; steps are the tangent parts of steepest directions for random gradients.
    """
    geometries: dict[str, Geometry] = dict(module.geometries())
    budget = allocate(module.tree(), lr=1.0)
    equal(set(geometries), set(budget.shares), f"{type(module).__name__}: weights with a geometry")
    for trial in trials(module, sample) if geometries else ():
        weights = {name: p.detach() for name, p in trial.net.named_parameters()}
        equal(set(weights), set(geometries), f"{trial}: parameters with a geometry")
        x = of_size(draw_inputs(trial, sample, "x", 64), trial.source, 1.0)
        for i in range(6):
            step = {
                name: budget.shares[name] * _unit_step(geometries[name], w, sample, f"{name} {i}")
                for name, w in weights.items()
            }

            def forward(
                parameters: dict[str, Tensor], x: Any = x, net: nn.Module = trial.net
            ) -> Any:
                return functional_call(net, parameters, (x,))

            change = jvp(forward, (weights,), (step,))[1]
            law = f"{trial}: a step of unit length moves the output"
            rounding = sample.tolerance + output_rounding(trial, sample)
            at_most(measure(change, trial.target), budget.first_order * (1 + rounding), law)


def forward_writes_into_nothing(module: Composed, sample: Sample) -> None:
    """A call changes neither the input nor the weights."""
    net = cast("nn.Module", module)
    for trial in trials(module, sample):
        x = draw_inputs(trial, sample, "x", 4)
        parts = tensors_of(x)
        inputs = {"input" if len(parts) == 1 else f"input_{i}": p for i, p in enumerate(parts)}
        weights = {name.replace(".", "_"): p for name, p in net.named_parameters()}
        with unchanged(f"{trial}", **inputs, **weights), torch.no_grad():
            module(x)


MODULE_LAWS: Final[tuple[ModuleLaw, ...]] = (
    sensitivity_bounds_the_slope,
    sensitivity_holds_in_the_unit_ball,
    reach_bounds_the_output,
    budget_bounds_the_change,
    forward_writes_into_nothing,
    no_ascent_beats_the_sensitivity,
)
"""All laws of a module, for parametrised tests."""


def check_module(module: Composed, sample: Sample | None = None) -> None:
    """Check all of MODULE_LAWS: try to refute the mass, sensitivity, offset and spaces that `module` declares.

    A module that accepts any space is tested in rms, l2, l1 and linf with `sample.shape[-1]` features. The weights
    must be on their manifolds (in Euclidean space: in their unit ball). The module must have the sample's dtype,
    float32 by default. It is checked in evaluation mode, on a copy without hooks, independently of torch's global
    settings. Rate scales are not checked, because they are not bounds.

    Raises:
        AssertionError: a declared number is refuted; the message gives the measured value.
        ArgumentError: the module has no tree (see `Composed`), or its source is a tuple of open
            spaces, for which no inputs can be drawn, or a weight is complex or has no values.
        NonFiniteError: a weight holds NaN or infinity.
    """
    sample = Sample((7,), dtype=torch.float32) if sample is None else sample
    # Shared weights are checked here, because the copy separates them.
    network = check_composed(module, argument="check_module(module)")
    with plain_surroundings(torch.device(sample.device)):
        network_copy = snapshot(cast("nn.Module", network)).requires_grad_()
        for law in MODULE_LAWS:
            law(cast("Composed", network_copy), sample)


def _divided(x: Any, by: Tensor) -> Any:
    """Each input, a tensor or a tuple, divided by its own number."""
    return map_parts(lambda part: part / by.reshape(-1, *[1] * (part.dim() - 1)), x)


def _unit_step(geometry: Geometry, w: Tensor, sample: Sample, name: str) -> Tensor:
    """A tangent step of unit norm."""
    noise = sample.normal(name, tuple(w.shape))
    step = geometry.manifold.tangent(w, geometry.norm.steepest(noise))
    length = geometry.norm.value(step)
    divisor = length.reshape(length.shape + (1,) * (step.dim() - length.dim()))
    return torch.where(divisor > 1e-3, step / divisor.clamp_min(1e-3), 0.0)
