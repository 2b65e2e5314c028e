"""The outcome of each weight's last solve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.solvers.solution import Solution, Status, status_of


@dataclass(frozen=True)
class Diagnosis:
    """How one weight's last solve ended.

    Args:
        iterations: how many the solver used.
        gap: the relative duality gap, of each matrix of a stack, on the weight's device.
        tolerance: the gap that was asked for; None if the solver stops by another rule.
        shortfall: the status if the gap is above the tolerance.
    """

    iterations: int | Tensor
    gap: Tensor
    tolerance: float | None
    shortfall: Status = Status.NOT_CONVERGED

    @property
    def status(self) -> Status:
        """This weight's own status, by its worst matrix; reading it waits for the device."""
        return status_of(self.gap, self.tolerance, self.shortfall)


class Diagnoses(Mapping[str, Diagnosis]):
    """A mapping from paths to diagnoses, made when they are read: a step only leaves its tensors here.

    A weight that has not moved yet has none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # Every key exists from the start, so that a compiled step writes into a dictionary that does not grow.
        self._found: dict[str, tuple[Tensor, int | None, int | Tensor, float | None, Status] | None]
        self._found = dict.fromkeys(names)

    def put(self, names: Sequence[str], found: Solution) -> None:
        """Keep the outcome of one solve for these weights, in the order of the stack."""
        for place, name in enumerate(names):
            at = None if len(names) == 1 else place
            self._found[name] = found.gap, at, found.iterations, found.tolerance, found.shortfall

    def __getitem__(self, name: str) -> Diagnosis:
        found = self._found[name]
        if found is None:
            raise KeyError(name)
        gap, at, iterations, tolerance, shortfall = found
        return Diagnosis(iterations, gap if at is None else gap[at], tolerance, shortfall)

    def __iter__(self) -> Iterator[str]:
        return (name for name, found in self._found.items() if found is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {each!r}' for name, each in self.items())}}}"
