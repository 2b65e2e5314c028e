"""The composition rules: how mass, sensitivity, rate scale and spaces of the whole follow from the parts.

Source: Large, Liu, Huh, Bahng, Isola, Bernstein, "Scalable optimization in the modular norm"
(2024), section 3. The scale rule takes |c|, because a sensitivity is a size. The rate scale follows the same rules
as the sensitivity.
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
        MismatchError: what `first` gives is not what `then` takes.
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
        MismatchError: the parts do not take the same space.
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
        MismatchError: the parts do not take, or do not give, the same space.
    """
    source, targets = _shared_source(parts)
    fixed = next((target for target in targets if not is_open(target)), None)
    if source is None and fixed is not None:
        # A part that gives back what it takes must take what another part gives.
        for target in targets:
            source = unify(target, fixed) or source
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
    """Give back a factor, or refuse one that is not finite or is zero."""
    remedy = "A factor of 0 cuts the module off from the output; leave the module out instead."
    return check_number(factor, NOT_ZERO, argument=argument, remedy=remedy)


def scale(factor: float, part: Signature) -> Signature:
    """`c · f(x)`: the mass stays, sensitivity and rate scale are multiplied by |c|."""
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
