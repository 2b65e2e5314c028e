"""One run of a sweep, in memory from its first step to its last."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import fmean

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.specs import RunSpec
from modular_manifolds.training.part import Data
from modular_manifolds.training.session import Session, surroundings


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        validation_loss: the mean loss over the test part after the last step.
        training_loss: the mean loss of the last tenth of the steps.
        diverged: why the run counts as diverged; None if it does not. A diverged run has no losses.
        seconds: of the steps, without the measurement at the end.
    """

    validation_loss: float | None
    training_loss: float | None
    diverged: str | None
    seconds: float


def outcome(spec: RunSpec, data: Data) -> Outcome:
    """Train a resolved run to its end. A loss or gradient that is not finite ends it; that is no error."""
    begun = time.perf_counter()
    with surroundings(spec):
        session = Session(spec, data)
        last = math.ceil(session.steps / 10)
        losses: list[float] = []
        try:
            while not session.done:
                # A device is waited for once a tenth, and what has diverged is noticed then.
                losses += [each.loss for each in session.advance(last)]
            seconds = time.perf_counter() - begun
            found = session.measure(session.data.test).loss
        except NonFiniteError as error:
            seconds = time.perf_counter() - begun
            return Outcome(None, None, f"{error.argument} is {error.seen}", seconds)
    return Outcome(found, fmean(losses[-last:]), None, seconds)
