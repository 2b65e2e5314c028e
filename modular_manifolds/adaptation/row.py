"""One row of a plan: a logical matrix, its geometry, and the rule that chose it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.adaptation.defaults import Role
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece, logical_name
from modular_manifolds.nn.sharded import is_sharded, whole, write_whole_


@dataclass(frozen=True)
class Row:
    """A logical matrix, or a stack of equal ones with one geometry.

    Args:
        parameter: the name of the stored tensor in the model.
        piece: the piece of it; None if the whole tensor is a matrix, a stack or a vector.
        shape: the logical shape, (*batch, out, in) or (n,).
        orientation: how the tensor is stored: `out×in`, `in×out, transposed`, `rows` or `vector`.
        geometry: the manifold with its radius, and the norm.
        mass: the weight's fraction of the change, before normalisation.
        role: the role, which decides the defaults.
        rule: the rule that claimed it, and the module that its split comes from.
        response: the rms change of the outputs per unit step; None if not measured.
        moved: the distance that the start moved the weight, relative to its size; infinite for a zero weight, None if it
            did not move.
        aliases: the other names of a tied tensor.
    """

    parameter: str
    piece: Piece | None
    shape: tuple[int, ...]
    orientation: str
    geometry: Geometry
    mass: float
    role: Role
    rule: str
    response: float | None = None
    moved: float | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the logical matrix, such as `h.0.attn.c_attn.weight[q]`."""
        return logical_name(self.parameter, self.piece)

    @property
    def is_hidden(self) -> bool:
        """Whether the row is a matrix between the layers of tokens and outputs."""
        return self.role in ("hidden", "increment")

    @property
    def radius(self) -> float | None:
        """The radius of the manifold, if it has one."""
        return getattr(self.geometry.manifold, "radius", None)

    def read(self, parameter: Tensor) -> Tensor:
        """The logical matrix of the stored tensor: a view if the memory layout allows it, otherwise a copy.

        A sharded tensor is gathered, so all its processes must call this.
        """
        stored = whole(parameter.detach())
        return stored if self.piece is None else self.piece.read(stored)

    def write_(self, parameter: Tensor, values: Tensor) -> None:
        """Write values of the logical shape into the stored tensor."""
        stored = parameter.detach()
        if self.piece is None:
            write_whole_(stored, values)
        elif is_sharded(stored):
            gathered = whole(stored)
            self.piece.write_(gathered, values)
            write_whole_(stored, gathered)
        else:
            self.piece.write_(stored, values)
