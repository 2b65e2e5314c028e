"""One family: every error that a caller can cause.

Each message is one line in one order: argument, rule, value seen, remedy.
"""


class ModularManifoldsError(Exception):
    """Root of the family: catch this to catch everything a caller can cause."""


class ArgumentError(ModularManifoldsError, ValueError):
    """An argument broke its rule.

    Args:
        argument: the name the caller wrote (`lr`, `Linear(in_features)`, a path in a spec).
        rule: what must hold, starting with a verb (`must be finite and positive`).
        seen: the value that was passed.
        remedy: what to do instead, a full sentence.
    """

    def __init__(self, argument: str, rule: str, seen: object, remedy: str) -> None:
        self.argument: str = argument
        self.rule: str = rule
        self.seen: object = seen
        self.remedy: str = remedy
        super().__init__(f"{argument} {rule}, got {seen}. {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, str, object, str]]:
        # Exception's own pickling would call __init__ with the one formatted string.
        return type(self), (self.argument, self.rule, self.seen, self.remedy)


class SpaceError(ArgumentError):
    """Two modules were composed whose spaces do not fit."""


class ShapeError(ArgumentError):
    """A tensor has a shape that the manifold, the norm or the solver cannot take."""


class PartIndexError(ArgumentError, IndexError):
    """A composition has no part at this place."""


class SharedWeightError(ArgumentError):
    """One weight appears at two places of a network."""


class UnconstrainedParameterError(ArgumentError):
    """A parameter has no manifold, so no step for it is defined."""


class UnsupportedPairError(ArgumentError):
    """No solver is known for this pair of a manifold and a norm."""


class NonFiniteError(ArgumentError):
    """A tensor holds NaN or infinity."""


class BackendError(ArgumentError):
    """A backend was asked for by name and cannot be used."""


class SpecError(ArgumentError):
    """A network or run specification cannot be read."""


class DataError(ArgumentError):
    """Training data is missing, empty or of another layout than promised."""


class CheckpointError(ArgumentError):
    """A checkpoint or a run directory is damaged or of another version."""


class CertificateError(ArgumentError):
    """Something that was certified turned out false: a declared number is wrong, or this library is."""
