"""The outcome of each weight's last solve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.solvers.solution import Solution, Status, status_of


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of one weight's last solve.

    Args:
        iterations: the number of iterations.
        gap: the relative duality gap of each matrix, on the weight's device.
        tolerance: the required gap; None if the solver stops by another rule.
        shortfall: the status if the gap is above the tolerance.
    """

    iterations: int | Tensor
    gap: Tensor
    tolerance: float | None
    shortfall: Status = Status.NOT_CONVERGED

    @property
    def status(self) -> Status:
        """The status of the weight's worst matrix. Reading it waits for the device."""
        return status_of(self.gap, self.tolerance, self.shortfall)


class Diagnoses(Mapping[str, Diagnosis]):
    """A mapping from paths to diagnoses, which are made when they are read. A step only stores its tensors here.

    A weight that has not moved yet has none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # All keys exist from the start, because a compiled step must not grow a dictionary.
        self._outcomes: dict[
            str, tuple[Tensor, int | None, int | Tensor, float | None, Status] | None
        ]
        self._outcomes = dict.fromkeys(names)

    def record(self, names: Sequence[str], solution: Solution) -> None:
        """Store the outcome of one solve of these weights, in the order of the stack."""
        for number, name in enumerate(names):
            index = None if len(names) == 1 else number
            self._outcomes[name] = (
                solution.gap,
                index,
                solution.iterations,
                solution.tolerance,
                solution.shortfall,
            )

    def __getitem__(self, name: str) -> Diagnosis:
        outcome = self._outcomes[name]
        if outcome is None:
            raise KeyError(name)
        gap, index, iterations, tolerance, shortfall = outcome
        return Diagnosis(iterations, gap if index is None else gap[index], tolerance, shortfall)

    def __iter__(self) -> Iterator[str]:
        return (name for name, outcome in self._outcomes.items() if outcome is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {each!r}' for name, each in self.items())}}}"
