"""The errors that a caller can cause.

Each message is one line in one order: argument, rule, value seen, remedy.
"""


class ModularManifoldsError(Exception):
    """Base class of all errors below: catch it to catch everything that a caller can cause."""


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
    """Two composed modules have spaces that do not match."""


class ShapeError(ArgumentError):
    """A tensor has a shape that the manifold, the norm or the solver does not support."""


class PartIndexError(ArgumentError, IndexError):
    """A composition has no part with this index."""


class SharedWeightError(ArgumentError):
    """A weight appears twice in a network."""


class UnconstrainedParameterError(ArgumentError):
    """A parameter has no manifold, so its step is not defined."""


class UnsupportedPairError(ArgumentError):
    """No solver is known for this pair of manifold and norm."""


class NonFiniteError(ArgumentError):
    """A tensor holds NaN or infinity."""


class BackendError(ArgumentError):
    """The backend that the caller named cannot be used."""


class SpecError(ArgumentError):
    """A network or run specification cannot be read."""


class DataError(ArgumentError):
    """Training data is missing, empty or has another layout than declared."""


class CheckpointError(ArgumentError):
    """A checkpoint or a run directory is damaged or has another version."""


class ProcessError(ArgumentError):
    """A process of a run has lost the other processes, or another one has failed."""


class CertificateError(ArgumentError):
    """A certified statement turned out false: a declared number is wrong, or this library has a bug."""
