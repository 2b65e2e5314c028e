"""Remedies for modules without a finite bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from modular_manifolds.certificates.propagation import Passage
from modular_manifolds.composition.tree import Leaf

UNBOUNDED_WEIGHT = "put its weight on Stiefel, Sphere or Oblique to get one"


def remedy(leaf: Leaf, arriving: float, radius: float | None) -> str:
    """The remedy for a leaf without a finite bound.

    Args:
        leaf: the leaf.
        arriving: the bound on the norm of its input.
        radius: the bound on the norm of the network's inputs, if one was given.
    """
    if not math.isfinite(leaf.lipschitz_within(1.0)):
        if leaf.weight is not None:
            return UNBOUNDED_WEIGHT
        return "not even for inputs of norm 1; replace it by a module with a bound"
    if radius is None:
        return (
            "its bound depends on the size of its input; pass radius= (--input-radius on the command "
            "line), the largest norm of the inputs"
        )
    if math.isinf(arriving):
        return (
            "its bound depends on the size of its input, which an earlier module leaves unbounded"
        )
    return f"its input may be as large as {arriving:.4g}; make the input smaller"


def remedy_for(declared: Passage, certified: Passage, radius: float | None) -> str:
    """The remedy for one leaf; empty if its declared and its certified bound are finite."""
    worse = certified if math.isinf(certified.slope) else declared
    return remedy(worse.leaf, worse.arriving, radius) if math.isinf(worse.slope) else ""


@dataclass(frozen=True)
class UnboundedModule:
    """A module without a finite declared bound; `certified` tells whether its certified bound is finite."""

    path: str
    label: str
    remedy: str
    certified: bool


def advice_lines(modules: Iterable[UnboundedModule]) -> list[str]:
    """One sentence for all weights on unbounded manifolds, and one for each other module with a remedy."""
    unbounded = [each for each in modules if each.remedy]
    weights = [
        each.path for each in unbounded if each.certified and each.remedy == UNBOUNDED_WEIGHT
    ]
    lines: list[str] = []
    if weights:
        lines.append(
            f"no bound is declared, because the weights of {', '.join(weights)} are on an unbounded "
            "manifold; put them on Stiefel, Sphere or Oblique to get one"
        )
    for each in unbounded:
        if not each.certified or each.remedy != UNBOUNDED_WEIGHT:
            verb = "is declared" if each.certified else "holds"
            lines.append(
                f"no bound {verb} at {each.path or '(whole)'} ({each.label}): {each.remedy}"
            )
    return lines
