"""The space that a module maps from or to: how many features, and how their size is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError

VectorNorm = Literal["rms", "l2", "l1", "linf"]
VECTOR_NORMS: Final[tuple[VectorNorm, ...]] = get_args(VectorNorm)


def check_vector_norm(norm: str, *, argument: str) -> VectorNorm:
    """Give back a vector norm, or refuse what is not one of `rms`, `l2`, `l1`, `linf`."""
    for known in VECTOR_NORMS:
        if norm == known:
            return known
    raise ArgumentError(
        argument,
        f"must be one of {', '.join(VECTOR_NORMS)}",
        repr(norm),
        "Name one of these norms.",
    )


@dataclass(frozen=True)
class Space:
    """Vectors of `size` features, measured by `norm`.

    `‖x‖_rms = ‖x‖₂ / √size`; l2, l1 and linf are the usual ones. Leading dimensions of a tensor
    (batch, positions) do not count: the norm is taken over the features.

    Raises:
        ArgumentError: `size` is not a positive whole number or `norm` is unknown.
    """

    size: int
    norm: VectorNorm = "l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_count(self.size, argument="Space(size)"))
        check_vector_norm(self.norm, argument="Space(norm)")

    def __str__(self) -> str:
        return f"{self.norm}[{self.size}]"


@dataclass(frozen=True)
class ProductSpace:
    """Tuples of vectors, measured by the sum of the norms of the parts."""

    parts: tuple[AnySpace, ...]

    def __str__(self) -> str:
        return "(" + " + ".join(str(part) for part in self.parts) + ")"


@dataclass(frozen=True)
class Same:
    """Stands for the space that came in, in the target of a module that takes any space."""

    def __str__(self) -> str:
        return "same"


SAME: Final = Same()
AnySpace = Space | ProductSpace | Same


def substitute(space: AnySpace, same: AnySpace) -> AnySpace:
    """Put `same` wherever `space` says SAME."""
    if isinstance(space, Same):
        return same
    if isinstance(space, ProductSpace):
        return ProductSpace(tuple(substitute(part, same) for part in space.parts))
    return space


def is_open(space: AnySpace) -> bool:
    """Whether `space` still depends on what comes in."""
    if isinstance(space, ProductSpace):
        return any(is_open(part) for part in space.parts)
    return isinstance(space, Same)


class MismatchError(Exception):
    """Two spaces cannot be made equal; the tree turns this into a SpaceError that names both modules."""


def unify(offered: AnySpace, required: AnySpace) -> AnySpace | None:
    """The space that SAME must stand for if `offered` is to equal `required`; None if it does not matter.

    Raises:
        MismatchError: no value of SAME makes them equal.
    """
    if isinstance(offered, Same):
        return required
    if isinstance(offered, ProductSpace) and isinstance(required, ProductSpace):
        if len(offered.parts) != len(required.parts):
            raise MismatchError
        pairs = zip(offered.parts, required.parts, strict=True)
        found = {
            binding
            for a, b in pairs
            if (binding := unify(a, b)) is not None and not isinstance(binding, Same)
        }
        if len(found) > 1:
            raise MismatchError
        return found.pop() if found else None
    if offered != required:
        raise MismatchError
    return None


def conversion(given: VectorNorm, wanted: VectorNorm, size: int) -> float:
    """The smallest c with `‖x‖_wanted ≤ c · ‖x‖_given` for all x of `size` features.

    `c = c(given → l2) · c(l2 → wanted)`; each factor is attained by a coordinate vector or by the
    vector of ones, and for two different norms the product is attained as well.
    """
    if given == wanted:
        return 1.0
    to_l2 = {"l2": 1.0, "l1": 1.0, "rms": math.sqrt(size), "linf": math.sqrt(size)}
    from_l2 = {"l2": 1.0, "linf": 1.0, "rms": 1.0 / math.sqrt(size), "l1": math.sqrt(size)}
    return to_l2[given] * from_l2[wanted]
