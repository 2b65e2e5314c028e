"""The losses a run can name: cross entropy, and one that trains for certified accuracy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modular_manifolds.specs.base import Spec


class CrossEntropySpec(Spec):
    """Cross entropy of the network's outputs as they are."""

    name: Literal["cross-entropy"]


class MarginSpec(Spec):
    """Cross entropy that asks for a margin, so that predictions are certified at some radius.

    With L the network's declared Lipschitz bound from l2 to l2, per unit of radius, the loss is cross
    entropy of `temperature · (z/L − √2 · margin · e_label)`. A point whose differences of outputs
    exceed `√2 L · margin` is certified at the radius `margin`. Needs a finite declared bound.
    """

    name: Literal["margin"]
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """How hard the loss presses on points near the margin; in 1/radius."""
    margin: Annotated[float, Field(ge=0)] = 0.3
    """The l2 radius that points should be certified at, in the data's own units: pixels in [0, 1]."""


LossSpec = Annotated[CrossEntropySpec | MarginSpec, Field(discriminator="name")]
