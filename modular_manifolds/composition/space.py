"""The space that a module maps from or to: the number of features and the norm on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError

VectorNorm = Literal["rms", "l2", "l1", "linf"]
VECTOR_NORMS: Final[tuple[VectorNorm, ...]] = get_args(VectorNorm)


def check_vector_norm(norm: str, *, argument: str) -> VectorNorm:
    """Return a vector norm, or refuse it if it is not `rms`, `l2`, `l1` or `linf`."""
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
    """Vectors of `size` features with the norm `norm`.

    `‖x‖_rms = ‖x‖₂ / √size`; l2, l1 and linf are the usual norms. The norm is over the features; the leading
    dimensions of a tensor (batch, positions) do not enter it.

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
    """Tuples of vectors; the norm of a tuple is the sum of the norms of its parts."""

    parts: tuple[AnySpace, ...]

    def __str__(self) -> str:
        return "(" + " + ".join(str(part) for part in self.parts) + ")"


@dataclass(frozen=True)
class Same:
    """A placeholder for the source space, in the target of a module that accepts any space."""

    def __str__(self) -> str:
        return "same"


SAME: Final = Same()
AnySpace = Space | ProductSpace | Same


def substitute(space: AnySpace, same: AnySpace) -> AnySpace:
    """Replace SAME in `space` by `same`."""
    if isinstance(space, Same):
        return same
    if isinstance(space, ProductSpace):
        return ProductSpace(tuple(substitute(part, same) for part in space.parts))
    return space


def is_open(space: AnySpace) -> bool:
    """Whether `space` contains SAME, so that it depends on the source."""
    if isinstance(space, ProductSpace):
        return any(is_open(part) for part in space.parts)
    return isinstance(space, Same)


class MismatchError(Exception):
    """Two spaces cannot be made equal. The tree converts this to a SpaceError that names both modules."""


def unify(offered: AnySpace, required: AnySpace) -> AnySpace | None:
    """The value of SAME for which `offered` equals `required`; None if every value does.

    Raises:
        MismatchError: no value of SAME makes them equal.
    """
    if isinstance(offered, Same):
        return required
    if isinstance(offered, ProductSpace) and isinstance(required, ProductSpace):
        if len(offered.parts) != len(required.parts):
            raise MismatchError
        pairs = zip(offered.parts, required.parts, strict=True)
        bindings = {
            binding
            for a, b in pairs
            if (binding := unify(a, b)) is not None and not isinstance(binding, Same)
        }
        if len(bindings) > 1:
            raise MismatchError
        return bindings.pop() if bindings else None
    if offered != required:
        raise MismatchError
    return None


def conversion(source: VectorNorm, target: VectorNorm, size: int) -> float:
    """The smallest c with `‖x‖_target ≤ c · ‖x‖_source` for all x of `size` features.

    `c = c(source → l2) · c(l2 → target)`. Each factor is attained by a coordinate vector or by the
    vector of ones, and for two different norms the product is attained as well.
    """
    if source == target:
        return 1.0
    to_l2 = {"l2": 1.0, "l1": 1.0, "rms": math.sqrt(size), "linf": math.sqrt(size)}
    from_l2 = {"l2": 1.0, "linf": 1.0, "rms": 1.0 / math.sqrt(size), "l1": math.sqrt(size)}
    return to_l2[source] * from_l2[target]
