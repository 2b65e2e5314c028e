"""Laws of every module: the numbers it declares are tried against the function it computes.

Random search and gradient ascent find lower bounds: a law that passes has not proved the declared
number, one that fails has refuted it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from modular_manifolds.composition.budget import allocate
from modular_manifolds.composition.radius import total
from modular_manifolds.composition.sizes import reach, slope
from modular_manifolds.composition.tree import leaves
from modular_manifolds.linalg.ascent import climb
from modular_manifolds.linalg.snapshot import plain_surroundings, snapshot
from modular_manifolds.nn import Composed, Geometry
from modular_manifolds.nn.network import check_composed
from modular_manifolds.testing.check import at_most, equal, untouched
from modular_manifolds.testing.sample import Sample
from modular_manifolds.testing.trials import (
    DRAWN,
    Trial,
    drawn,
    flat,
    largest_reach,
    measure,
    minus,
    of_size,
    output_rounding,
    pairs,
    part_by_part,
    reaches,
    shaped_like,
    sizes,
    slopes,
    trials,
    vectors,
)

ASCENTS, TURNS, STEPS = 16, 6, 3
"""Pairs of each kind that climb; how often point and direction take turns; steps of a turn."""


ModuleLaw = Callable[[Composed, Sample], None]


def sensitivity_bounds_the_slope(module: Composed, sample: Sample) -> None:
    """`‖f(x) − f(y)‖_target ≤ sensitivity · ‖x − y‖_source` for inputs near and far."""
    for trial in trials(module, sample):
        for x, y in pairs(trial, sample):
            apart = measure(minus(y, x), trial.source)
            within = part_by_part(torch.maximum, sizes(x, trial.source), sizes(y, trial.source))
            allowed = slopes(trial.tree, within) * (1 + sample.tolerance)
            moved = measure(minus(module(y), module(x)), trial.target)
            noise = output_rounding(trial, sample) * largest_reach(trial.tree, within)
            law = f"{trial}: sensitivity bounds the slope"
            at_most(moved - noise, allowed * apart, law)


def sensitivity_holds_in_the_unit_ball(module: Composed, sample: Sample) -> None:
    """`‖f(x) − f(y)‖ ≤ sensitivity · ‖x − y‖` for inputs in the unit ball.

    A bond's own bound for inputs of norm 1 must not exceed the sensitivity that the bond declares. A typical slope,
    which may be smaller than the bound, is a rate scale and no sensitivity.
    """
    for leaf in leaves(module.tree()):
        if leaf.weight is None:
            law = f"{leaf.where}: sensitivity bounds the slope for inputs of norm 1 (a typical slope is a rate_scale)"
            at_most(slope(leaf, 1.0), leaf.signature.sensitivity * (1 + sample.tolerance), law)
    for trial in trials(module, sample):
        allowed = slope(trial.tree, 1.0) * (1 + sample.tolerance)
        noise = output_rounding(trial, sample) * total(reach(trial.tree, 1.0))
        law = f"{trial}: sensitivity bounds the slope in the unit ball"
        for x, y in pairs(trial, sample):
            larger = torch.maximum(measure(x, trial.source), measure(y, trial.source))
            x, y = (_divided(each, larger.clamp_min(1.0)) for each in (x, y))
            moved = measure(minus(module(y), module(x)), trial.target)
            at_most(moved - noise, allowed * measure(minus(y, x), trial.source), law)


def no_ascent_beats_the_sensitivity(module: Composed, sample: Sample) -> None:
    """`‖f(x + d) − f(x)‖ ≤ sensitivity · ‖d‖` at the pairs that gradient ascent finds, with the length of each d kept.

    The point x climbs within twice its norm, and the direction of d turns, one after the other. In float64
    the nearest pairs see a slope to about 1e-8: enough for GELU divided by 1.1289, off by 3.7e-6.
    """
    generator = sample.generator("ascent")
    for trial in trials(module, sample):
        # Different rows for each kind, because the same row of two kinds may begin at the same point.
        rows = [slice(i * ASCENTS % DRAWN, i * ASCENTS % DRAWN + ASCENTS) for i in range(DRAWN)]
        begun = [
            (
                part_by_part(lambda part, some=some: part[some], x),
                part_by_part(lambda part, some=some: part[some], y),
            )
            for some, (x, y) in zip(rows, pairs(trial, sample), strict=False)
        ]
        first = part_by_part(lambda *parts: torch.cat(parts), *[x for x, _ in begun])
        then = part_by_part(lambda *parts: torch.cat(parts), *[y for _, y in begun])
        shaped = shaped_like(first)
        x, d = flat(first), flat(minus(then, first))
        size, apart = (measure(shaped(each), trial.source) for each in (2 * x, d))

        def moved(x: Tensor, d: Tensor, trial: Trial = trial, shaped: Any = shaped) -> Tensor:
            return measure(minus(module(shaped(x + d)), module(shaped(x))), trial.target)

        def length(rows: Tensor, trial: Trial = trial, shaped: Any = shaped) -> Tensor:
            return measure(shaped(rows), trial.source).clamp_min(torch.finfo(sample.dtype).tiny)

        def at_most_as_large(x: Tensor, size: Tensor = size, length: Any = length) -> Tensor:
            return x * (size / length(x)).clamp(max=1).unsqueeze(-1)

        def as_long(d: Tensor, apart: Tensor = apart, length: Any = length) -> Tensor:
            return d * (apart / length(d)).unsqueeze(-1)

        walk, turn = size.unsqueeze(-1) / 4, apart.unsqueeze(-1) / 2
        for _ in range(TURNS):
            x, walk = climb(
                lambda x, d=d: moved(x, d),
                x,
                walk,
                rounds=STEPS,
                generator=generator,
                keep=at_most_as_large,
            )
            d, turn = climb(
                lambda d, x=x: moved(x, d),
                d,
                turn,
                rounds=STEPS,
                generator=generator,
                keep=as_long,
            )
        ends = (sizes(shaped(each), trial.source) for each in (x, x + d))
        within = part_by_part(torch.maximum, *ends)
        allowed = slopes(trial.tree, within) * apart
        noise = output_rounding(trial, sample) * reaches(trial.tree, within)
        law = f"{trial}: no ascent beats the sensitivity"
        at_most(moved(x, d) - noise, allowed * (1 + sample.tolerance), law)


def reach_bounds_the_output(module: Composed, sample: Sample) -> None:
    """`‖f(x)‖ ≤ reach(‖x‖)`: sensitivities and offsets bound the sizes of outputs."""
    for trial in trials(module, sample):
        rounding = sample.tolerance + output_rounding(trial, sample)
        for size in (0.0, 1e-3, 1.0, 30.0):
            x = of_size(drawn(trial, sample, "x", DRAWN), trial.source, size)
            allowed = total(reach(trial.tree, size)) * (1 + rounding) + sample.eps
            law = f"{trial}: inputs of size {size:g} give outputs within reach"
            at_most(measure(module(x), trial.target), allowed, law)


def budget_bounds_the_change(module: Composed, sample: Sample) -> None:
    """Steps of unit modular norm move the output by at most `first_order`, to first order.

    For inputs in the unit ball; the steps are tangent and random, and steepest for a random gradient.
    """
    geometries: dict[str, Geometry] = dict(module.geometries())
    budget = allocate(module.tree(), lr=1.0)
    equal(set(geometries), set(budget.shares), f"{type(module).__name__}: weights with a geometry")
    for trial in trials(module, sample) if geometries else ():
        weights = {name: p.detach() for name, p in trial.net.named_parameters()}
        equal(set(weights), set(geometries), f"{trial}: parameters with a geometry")
        x = of_size(drawn(trial, sample, "x", 64), trial.source, 1.0)
        for i in range(6):
            step = {
                name: budget.shares[name] * _unit_step(geometries[name], w, sample, f"{name} {i}")
                for name, w in weights.items()
            }

            def forward(at: dict[str, Tensor], x: Any = x, net: nn.Module = trial.net) -> Any:
                return functional_call(net, at, (x,))

            change = jvp(forward, (weights,), (step,))[1]
            law = f"{trial}: a step of unit length moves the output"
            rounding = sample.tolerance + output_rounding(trial, sample)
            at_most(measure(change, trial.target), budget.first_order * (1 + rounding), law)


def forward_writes_into_nothing(module: Composed, sample: Sample) -> None:
    """The input and the weights are as they were after a call."""
    net = cast("nn.Module", module)
    for trial in trials(module, sample):
        x = drawn(trial, sample, "x", 4)
        parts = vectors(x)
        inputs = {"input" if len(parts) == 1 else f"input_{i}": p for i, p in enumerate(parts)}
        weights = {name.replace(".", "_"): p for name, p in net.named_parameters()}
        with untouched(f"{trial}", **inputs, **weights), torch.no_grad():
            module(x)


MODULE_LAWS: Final[tuple[ModuleLaw, ...]] = (
    sensitivity_bounds_the_slope,
    sensitivity_holds_in_the_unit_ball,
    reach_bounds_the_output,
    budget_bounds_the_change,
    forward_writes_into_nothing,
    no_ascent_beats_the_sensitivity,
)
"""All laws of a module, for a test to be parametrised over."""


def check_module(module: Composed, sample: Sample | None = None) -> None:
    """Try to refute the mass, sensitivity, offset and spaces that `module` declares. A rate scale bounds nothing.

    A module that takes any space is tried in rms, l2, l1 and linf with `sample.shape[-1]` features.
    Weights are taken as they are, so they must be on their manifolds (in Euclidean space: in their
    unit ball). The module must be in the sample's dtype, float32 by default. It is checked in evaluation mode, on a copy
    without hooks, and in the same way in every mode and precision that torch may be in.

    Raises:
        AssertionError: a declared number is refuted; the message says what was measured.
        ArgumentError: the module has no tree (see `Composed`), or takes a tuple of parts that may
            be anything, which cannot be drawn at random, or a weight is complex or has no values
            yet.
        NonFiniteError: a weight holds NaN or infinity.
    """
    sample = Sample((7,), dtype=torch.float32) if sample is None else sample
    # In a copy two weights in one memory would be apart.
    inside = check_composed(module, argument="check_module(module)")
    with plain_surroundings(torch.device(sample.device)):
        copied = snapshot(cast("nn.Module", inside)).requires_grad_()
        for law in MODULE_LAWS:
            law(cast("Composed", copied), sample)


def _divided(x: Any, by: Tensor) -> Any:
    """Each input, a tensor or a tuple, over its own number."""
    return part_by_part(lambda part: part / by.reshape(-1, *[1] * (part.dim() - 1)), x)


def _unit_step(geometry: Geometry, w: Tensor, sample: Sample, name: str) -> Tensor:
    """A tangent step of unit norm."""
    noise = sample.normal(name, tuple(w.shape))
    step = geometry.manifold.tangent(w, geometry.norm.steepest(noise))
    length = geometry.norm.value(step)
    shaped = length.reshape(length.shape + (1,) * (step.dim() - length.dim()))
    return torch.where(shaped > 1e-3, step / shaped.clamp_min(1e-3), 0.0)
