"""The losses of a run: cross entropy, and a margin loss for certified accuracy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modular_manifolds.specs.base import Spec


class CrossEntropySpec(Spec):
    """Cross entropy of the network's outputs."""

    name: Literal["cross-entropy"]


class MarginSpec(Spec):
    """Cross entropy with a margin, so that predictions are certified at a radius.

    With L the network's declared Lipschitz bound from l2 to l2, per unit of radius, the loss is cross
    entropy of `temperature · (z/L − √2 · margin · e_label)`. A point whose differences of outputs
    exceed `√2 L · margin` is certified at the radius `margin`. Needs a finite declared bound.
    """

    name: Literal["margin"]
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """The weight of points near the margin, in 1/radius."""
    margin: Annotated[float, Field(ge=0)] = 0.3
    """The target l2 radius of the certificate, in the data's own units: pixels in [0, 1]."""


LossSpec = Annotated[CrossEntropySpec | MarginSpec, Field(discriminator="name")]
