"""The result of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The numbers of a run; a run that diverged has no loss and no singular values.

    Args:
        loss: the validation loss at the end, in nats.
        curve: pairs of a step and the loss on a part of the validation batches after it.
        train_loss: the mean training loss of the last tenth of the steps.
        step_seconds: the median wall time of a step, with its backward pass.
        optimizer_seconds: the median wall time of the optimiser in a step.
        cpu_seconds: the median processor time of a step, which other processes disturb less.
        largest: the largest singular value of the hidden matrices, in units of the rms operator norm.
        condition: the median condition number of the hidden matrices.
        worst_condition: the largest of them; None if a matrix has lost its rank.
    """

    loss: float | None
    curve: tuple[tuple[int, float], ...] = ()
    train_loss: float | None = None
    step_seconds: float | None = None
    optimizer_seconds: float | None = None
    cpu_seconds: float | None = None
    largest: float | None = None
    condition: float | None = None
    worst_condition: float | None = None

    @property
    def end(self) -> float | None:
        """The last loss of the curve, if the run came to its end."""
        return self.curve[-1][1] if self.curve and self.loss is not None else None

    def steps_to(self, target: float) -> int | None:
        """The first step of the curve with a loss of at most `target`; None if there is none."""
        return next((step for step, loss in self.curve if loss <= target), None)

    def values(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Result:
        """The result of JSON values that `values` returned."""
        curve = tuple((int(step), float(loss)) for step, loss in values["curve"])
        return cls(**{**values, "curve": curve})
