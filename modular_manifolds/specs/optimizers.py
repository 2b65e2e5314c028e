"""The optimisers a run can name: steepest descent of this library, and torch's own as baselines."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, Strict, ValidationInfo, field_validator

from modular_manifolds.solvers import pairs
from modular_manifolds.specs.base import Spec, refused
from modular_manifolds.specs.nearest import suggestion

Positive = Annotated[float, Field(gt=0)]
AtLeastZero = Annotated[float, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]

SOLVERS: Final = ("auto", *dict.fromkeys(name for pair in pairs() for name in pair.names))


class SteepestDescentSpec(Spec):
    """Steepest descent in the modular norm: manifold Muon for Stiefel × Spectral weights."""

    name: Literal["steepest-descent"]
    lr: Positive = 0.1
    """The network's learning rate, which the budget splits over the weights; without it the model's default."""
    momentum: Momentum = 0.9
    """How much of the momentum a step keeps."""
    nesterov: bool = Field(default=True, validate_default=True)
    """Whether to use Nesterov momentum; needs momentum."""
    tangent_momentum: bool = False
    """Whether the momentum is projected to the tangent space after each step."""
    solver: str = "auto"
    """The solver of the steepest direction."""

    @field_validator("solver")
    @classmethod
    def _known_solver(cls, solver: str) -> str:
        if solver not in SOLVERS:
            raise refused("must be a known solver", suggestion(solver, SOLVERS))
        return solver

    @field_validator("nesterov")
    @classmethod
    def _nesterov_has_momentum(cls, nesterov: bool, others: ValidationInfo) -> bool:
        if nesterov and others.data.get("momentum") == 0:
            raise refused(
                "must be false if momentum is 0",
                "Write nesterov: false too, or a momentum such as 0.9.",
            )
        return nesterov


class AdamWSpec(Spec):
    """`torch.optim.AdamW`, a baseline without manifolds."""

    name: Literal["adamw"]
    lr: Positive = 3e-3
    """The learning rate."""
    betas: Annotated[tuple[Momentum, Momentum], Strict(False)] = (0.9, 0.999)
    """The decays of the averages of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: AtLeastZero = 0.0
    """The decoupled weight decay."""


class MuonSpec(Spec):
    """`torch.optim.Muon`, a baseline without manifolds.

    In a network with stacks, vectors or an embedding it steps the hidden matrices, and AdamW steps the other weights.
    """

    name: Literal["muon"]
    lr: Positive = 0.02
    """The learning rate."""
    momentum: Momentum = 0.95
    """How much of the momentum a step keeps."""
    nesterov: bool = True
    """Whether to use Nesterov momentum."""
    weight_decay: AtLeastZero = 0.0
    """The decoupled weight decay."""


OptimizerSpec = Annotated[SteepestDescentSpec | AdamWSpec | MuonSpec, Field(discriminator="name")]
OptimizerName = Literal["steepest-descent", "adamw", "muon"]
