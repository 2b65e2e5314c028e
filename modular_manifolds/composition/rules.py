"""The composition rules for mass, sensitivity, rate scale and spaces.

Source: Large, Liu, Huh, Bahng, Isola, Bernstein, "Scalable optimization in the modular norm"
(2024), section 3. The scale rule uses |c|, because a sensitivity is a bound on a norm. The rate scale follows the
same rules as the sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from modular_manifolds.arguments import NOT_ZERO, check_number
from modular_manifolds.composition.radius import plus
from modular_manifolds.composition.signature import Signature
from modular_manifolds.composition.space import (
    SAME,
    AnySpace,
    MismatchError,
    ProductSpace,
    is_open,
    substitute,
    unify,
)


def series(first: Signature, then: Signature) -> Signature:
    """`g(f(x))`: masses add; sensitivities multiply, and so do rate scales.

    Raises:
        MismatchError: the target of `first` is not the source of `then`.
    """
    if then.source is None:
        source, target = first.source, substitute(then.target, first.target)
    else:
        binding = unify(first.target, then.source)
        source = first.source if first.source is not None else binding
        target = then.target
    return Signature(
        first.mass + then.mass,
        first.sensitivity * then.sensitivity,
        source,
        target,
        rate_scale=first.rate_scale * then.rate_scale,
    )


def parallel(parts: Sequence[Signature]) -> Signature:
    """`(f(x), g(x), …)`, normed by the sum: masses, sensitivities and rate scales add.

    Raises:
        MismatchError: the parts have different sources.
    """
    source, targets = _shared_source(parts)
    return Signature(
        math.fsum(part.mass for part in parts),
        plus(part.sensitivity for part in parts),
        source,
        ProductSpace(tuple(targets)),
        rate_scale=plus(part.rate_scale for part in parts),
    )


def total(parts: Sequence[Signature]) -> Signature:
    """`f(x) + g(x) + …`: addition has sensitivity 1, so the numbers are those of `parallel`.

    Raises:
        MismatchError: the parts have different sources or different targets.
    """
    source, targets = _shared_source(parts)
    closed_target = next((target for target in targets if not is_open(target)), None)
    if source is None and closed_target is not None:
        # If the target of a part is SAME, its source must be the target of the other parts.
        for target in targets:
            source = unify(target, closed_target) or source
        targets = [substitute(target, source or SAME) for target in targets]
    if any(target != targets[0] for target in targets):
        raise MismatchError
    return Signature(
        math.fsum(part.mass for part in parts),
        plus(part.sensitivity for part in parts),
        source,
        targets[0],
        rate_scale=plus(part.rate_scale for part in parts),
    )


def check_factor(factor: float, *, argument: str = "Scale(factor)") -> float:
    """Return a factor, or refuse it if it is not finite or is zero."""
    remedy = "A factor of 0 cuts the module off from the output; leave the module out instead."
    return check_number(factor, NOT_ZERO, argument=argument, remedy=remedy)


def scale(factor: float, part: Signature) -> Signature:
    """`c · f(x)`: the mass is unchanged; sensitivity and rate scale are multiplied by |c|."""
    size = abs(check_factor(factor))
    return Signature(
        part.mass,
        size * part.sensitivity,
        part.source,
        part.target,
        rate_scale=size * part.rate_scale,
    )


def _shared_source(parts: Sequence[Signature]) -> tuple[AnySpace | None, list[AnySpace]]:
    sources = {part.source for part in parts if part.source is not None}
    if len(sources) > 1:
        raise MismatchError
    source = sources.pop() if sources else None
    same = SAME if source is None else source
    targets = [
        substitute(part.target, same) if is_open(part.target) else part.target for part in parts
    ]
    return source, targets
