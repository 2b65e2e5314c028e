"""The table of pairs: for each manifold and norm, the solvers of steepest descent and the method's name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Final

from modular_manifolds.errors import ArgumentError, UnsupportedPairError
from modular_manifolds.manifolds.balanced_rows import BalancedRows
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.oblique import Oblique
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms import Frobenius, Max, Norm, RMSOperator, RowRMS, Spectral
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.closed_form import NormSteepest, RowTangentGradient, TangentGradient
from modular_manifolds.solvers.skew_sign import SkewSign
from modular_manifolds.solvers.spectral_sphere import SpectralSphereDual
from modular_manifolds.solvers.weighted_median import WeightedMedian

Key = tuple[type[Manifold], type[Norm]]

FORMER_BASELINES: Final = ("lyapunov", "lyapunov-products", "dual-ascent", "admm", "spel")
BASELINES_MOVED: Final = (
    "The published solvers of manifold Muon are in the repository, in benchmarks/modular_manifolds_bench/baselines. "
    "Put benchmarks/ on the path and pass an instance: solver=modular_manifolds_bench.baselines.Lyapunov()."
)


@dataclass(frozen=True)
class Pair:
    """One row of the table.

    Args:
        manifold: the classes; their subclasses form other pairs.
        norm: as `manifold`.
        solvers: the solvers of the pair, the default first.
        method: the literature's name for steepest descent on this pair.
    """

    manifold: type[Manifold]
    norm: type[Norm]
    solvers: tuple[Solver, ...]
    method: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names that `steepest(solver=...)` accepts for this pair, besides "auto"."""
        return tuple(each.name for each in self.solvers)

    def solver(self, name: str) -> Solver:
        """The solver with this name."""
        for each in self.solvers:
            if each.name == name:
                return each
        raise ArgumentError(
            "solver",
            f"must be 'auto' or one of {', '.join(self.names)} for {self}",
            repr(name),
            BASELINES_MOVED if name in FORMER_BASELINES else "Leave it at 'auto'.",
        )

    def __str__(self) -> str:
        return f"{self.manifold.__name__} × {self.norm.__name__}"


ROW_BY_ROW: Final = (RowTangentGradient(),)
RIEMANNIAN: Final = (TangentGradient(),)
UNCONSTRAINED: Final = (NormSteepest(),)
CLOSED_FORM: Final = (SkewSign(),)
ONE_MULTIPLIER: Final = (SpectralSphereDual(),)

_PAIRS: Final[dict[Key, Pair]] = {
    (pair.manifold, pair.norm): pair
    for pair in (
        Pair(Euclidean, Frobenius, UNCONSTRAINED, "normalised gradient descent"),
        Pair(Euclidean, Max, UNCONSTRAINED, "sign descent"),
        Pair(Euclidean, Spectral, UNCONSTRAINED, "Muon"),
        Pair(Euclidean, RMSOperator, UNCONSTRAINED, "Muon"),
        Pair(Euclidean, RowRMS, UNCONSTRAINED, "normalised rows, Modula's embedding"),
        Pair(Sphere, Frobenius, RIEMANNIAN, "hyperspherical descent"),
        Pair(Sphere, Max, (WeightedMedian(),), "the non-Riemannian sphere"),
        Pair(Sphere, Spectral, ONE_MULTIPLIER, "MuonH (hyperball), made tangent"),
        Pair(Sphere, RMSOperator, ONE_MULTIPLIER, "MuonH (hyperball), made tangent"),
        Pair(Oblique, Frobenius, RIEMANNIAN, "Riemannian gradient descent"),
        Pair(Oblique, RowRMS, ROW_BY_ROW, "forced weight normalisation (EDM2)"),
        Pair(BalancedRows, Frobenius, RIEMANNIAN, "Riemannian gradient descent"),
        Pair(BalancedRows, RowRMS, ROW_BY_ROW, "weight standardisation (BiT), Nero"),
        Pair(Stiefel, Frobenius, RIEMANNIAN, "Riemannian gradient descent"),
        Pair(Stiefel, Spectral, CLOSED_FORM, "manifold Muon"),
        Pair(Stiefel, RMSOperator, CLOSED_FORM, "manifold Muon"),
        Pair(FixedGram, Spectral, CLOSED_FORM, "turns that keep all singular values"),
        Pair(FixedGram, RMSOperator, CLOSED_FORM, "turns that keep all singular values"),
        Pair(SpectralBall, Frobenius, UNCONSTRAINED, "gradient descent, singular values capped"),
        Pair(SpectralBall, Spectral, UNCONSTRAINED, "spectral normalisation: Muon, capped"),
        Pair(SpectralBall, RMSOperator, UNCONSTRAINED, "spectral normalisation: Muon, capped"),
        Pair(SpectralSphere, Frobenius, RIEMANNIAN, "Riemannian gradient descent"),
        Pair(SpectralSphere, Spectral, ONE_MULTIPLIER, "Muon beside the top singular pair"),
        Pair(SpectralSphere, RMSOperator, ONE_MULTIPLIER, "Muon beside the top singular pair"),
    )
}


def pairs() -> tuple[Pair, ...]:
    """All rows of the table; rows added by `register` come last."""
    return tuple(_PAIRS.values())


def register(
    manifold: type[Manifold],
    norm: type[Norm],
    *solvers: Solver,
    method: str = "",
) -> Pair:
    """Add your own pair to the table; weights of this pair can then be optimised.

    Args:
        manifold: the classes.
        norm: as `manifold`.
        solvers: the solvers of the pair, the default first.
        method: the method's name, for tables.

    Returns:
        The new row.

    Raises:
        ArgumentError: `manifold` or `norm` is not a class of its kind, a solver is not a Solver,
            there is no solver, or the pair is in the table already.
    """
    for argument, kind, base in (("manifold", manifold, Manifold), ("norm", norm, Norm)):
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise ArgumentError(
                f"register({argument})",
                f"must be a class that inherits {base.__name__}",
                repr(kind),
                "Pass the class, not an instance of it.",
            )
    if not solvers or not all(isinstance(each, Solver) for each in solvers):
        raise ArgumentError(
            "register(*solvers)",
            "must be at least one instance of a Solver",
            repr(solvers),
            f"Write register({manifold.__name__}, {norm.__name__}, TangentGradient()), say.",
        )
    known = _PAIRS.get((manifold, norm))
    if known is not None:
        raise ArgumentError(
            "register(manifold, norm)",
            "must be a pair that is not in the table yet",
            f"{known}, solved by {', '.join(known.names)}",
            "Register a subclass of the manifold or of the norm with your own solver.",
        )
    pair = Pair(manifold, norm, solvers, method)
    _PAIRS[manifold, norm] = pair
    return pair


def find_pair(manifold: Manifold, norm: Norm) -> Pair:
    """The row of this manifold and norm, by their exact types.

    Raises:
        UnsupportedPairError: the pair is not in the table; the message lists the pairs of the table.
    """
    kinds = type(manifold), type(norm)
    pair = _PAIRS.get(kinds)
    if pair is None:
        raise UnsupportedPairError(
            "manifold × norm",
            "must be a pair with a solver",
            f"{manifold} × {norm}",
            _remedy(*kinds),
        )
    return pair


def _remedy(manifold: type[Manifold], norm: type[Norm]) -> str:
    for pair in pairs():
        if issubclass(manifold, pair.manifold) and issubclass(norm, pair.norm):
            return (
                f"{pair} has a solver, which is not used for subclasses. If it is right for them too, call "
                f"mm.solvers.register({manifold.__name__}, {norm.__name__}, {pair.solvers[0]})."
            )
    return f"Use one of {', '.join(map(str, pairs()))}."


class Table(MutableMapping[Key, tuple[Solver, ...]]):
    """The solvers of each pair: `TABLE[mm.Stiefel, mm.Spectral]`, default first.

    It is a view of the rows of `pairs`. Assigning a row is deprecated: call `register`.
    """

    def __getitem__(self, key: Key) -> tuple[Solver, ...]:
        return _PAIRS[key].solvers

    def __setitem__(self, key: Key, solvers: tuple[Solver, ...]) -> None:
        manifold, norm = (each.__name__ for each in key)
        warnings.warn(
            f"TABLE[{manifold}, {norm}] = ... will be refused in version 0.2. Call "
            f"mm.solvers.register({manifold}, {norm}, *solvers, method=...) instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        _PAIRS[key] = Pair(*key, tuple(solvers), "")

    def __delitem__(self, key: Key) -> None:
        del _PAIRS[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(_PAIRS)

    def __len__(self) -> int:
        return len(_PAIRS)


TABLE: Final = Table()
