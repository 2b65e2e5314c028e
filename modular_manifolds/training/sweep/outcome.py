"""One run of a sweep, without files."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import fmean
from types import NoneType
from typing import Any

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.specs import RunSpec
from modular_manifolds.training.part import Data
from modular_manifolds.training.session import Session
from modular_manifolds.training.surroundings import surroundings


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Args:
        validation_loss: the mean loss over the test part after the last step.
        training_loss: the mean loss of the last tenth of the steps.
        diverged: the reason for a divergence; None if there is none. A diverged run has no losses.
        seconds: the duration of the steps, without the final measurement.
    """

    validation_loss: float | None
    training_loss: float | None
    diverged: str | None
    seconds: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outcome:
        """The outcome that a sweep wrote.

        Raises:
            TypeError: a value is missing or has another type.
        """
        found = cls(**content)
        losses = (found.validation_loss, found.training_loss)
        kinds = (float, int) if found.diverged is None else (NoneType,)
        if not all(isinstance(each, kinds) for each in losses):
            raise TypeError("a loss has another type")
        if not isinstance(found.seconds, float | int):
            raise TypeError("the seconds have another type")
        return found


def outcome(spec: RunSpec, data: Data) -> Outcome:
    """Train a resolved run to its end. A loss or gradient that is not finite ends it without an error."""
    start = time.perf_counter()
    with surroundings(spec):
        session = Session(spec, data)
        last = math.ceil(session.steps / 10)
        losses: list[float] = []
        try:
            while not session.done:
                # The host waits for the device, and notices divergence, ten times in a run.
                losses += [each.loss for each in session.advance(last)]
            seconds = time.perf_counter() - start
            validation_loss = session.measure(session.data.test).loss
        except NonFiniteError as error:
            seconds = time.perf_counter() - start
            return Outcome(None, None, f"{error.argument} is {error.seen}", seconds)
    return Outcome(validation_loss, fmean(losses[-last:]), None, seconds)
