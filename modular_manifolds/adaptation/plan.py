"""Plans: the geometries of a model's weights, in the form that the optimiser needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.defaults import DEFAULT_RATE
from modular_manifolds.adaptation.printed import plan_cells, plan_header
from modular_manifolds.adaptation.progress import Progress, progress_of
from modular_manifolds.adaptation.refusals import check_model
from modular_manifolds.adaptation.row import Row
from modular_manifolds.adaptation.saved import PlanData, plan_text, read_plan
from modular_manifolds.adaptation.shares import By, shares_of
from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.composition.budget import Budget, BudgetRow
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.nn.projection import project_
from modular_manifolds.nn.sharded import is_sharded, refuse_flat
from modular_manifolds.tables import Printable, Table
from modular_manifolds.wrappers import Replicas, replicas_of, unwrapped


@dataclass(frozen=True)
class ModelPlan(Printable):
    """The geometries that `mm.adapt` decided for a model's weights; `print` the plan to read it.

    `SteepestDescent`, `mm.budget`, `mm.conditioning` and `mm.project_` accept it in place of a declared network. It holds the
    model, and looks up weights by name at every call.

    Args:
        model: the model, without wrappers.
        rows: one row for each logical matrix.
        fallback_settings: the optimiser and its settings, for each parameter that another optimiser steps.
        skipped: trainable parameters that no optimiser steps.
        by: the split of the learning rate: by `"mass"` alone, or by `"measured"` responses.
        start: `"project"` or `"keep"` as in `mm.adapt`, or `"saved"` for a plan from `from_json`.
        replicas: the processes that hold the same model, if `DistributedDataParallel` was around it.
    """

    model: nn.Module
    rows: tuple[Row, ...]
    fallback_settings: Mapping[str, Mapping[str, Any]]
    skipped: tuple[str, ...]
    by: By = "mass"
    start: str = "project"
    replicas: Replicas = field(default_factory=Replicas, compare=False, repr=False)

    default_lr: ClassVar[float] = DEFAULT_RATE
    """The learning rate of `SteepestDescent(plan)`, in the plan's unit: how far one step may move the outputs."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The stepped parameters by name: those of the rows and of the fallbacks."""
        stepped = {row.parameter for row in self.rows} | set(self.fallback_settings)
        for name, parameter in self.model.named_parameters():
            if name in stepped:
                yield name, parameter

    def geometries(self) -> Iterator[tuple[str, Geometry]]:
        """The geometry of each logical matrix by its name."""
        return ((row.name, row.geometry) for row in self.rows)

    def pieces(self) -> Mapping[str, tuple[str, Piece]]:
        """The parameter's name and the piece, for each logical matrix that is not a whole parameter."""
        return {row.name: (row.parameter, row.piece) for row in self.rows if row.piece is not None}

    def fallbacks(self) -> Mapping[str, Mapping[str, Any]]:
        """The optimiser and its settings, for each parameter without a geometry."""
        return {name: dict(values) for name, values in self.fallback_settings.items()}

    def budget(self, lr: float = 1.0) -> Budget:
        """The split of one learning rate over the logical matrices.

        `share = (mass / total mass) / max(response, min(1, 16/n))`, for n hidden matrices; by mass alone every response
        counts as 1. So a step moves each weight by at most its fraction of `lr` (for n > 16 at most n/16 times that), in its
        own norm. With measured responses it also moves the outputs by at most about `lr` (rms), to first order.

        Raises:
            ArgumentError: `lr` is not finite or is negative.
        """
        rate = check_number(
            lr, NOT_NEGATIVE, argument="lr", remedy="Pass a learning rate such as 0.1."
        )
        responses = [row.response if self.by == "measured" else None for row in self.rows]
        masses = [row.mass for row in self.rows]
        shares, sizes = shares_of(
            masses, responses, matrices=sum(row.is_hidden for row in self.rows)
        )
        rows = tuple(
            BudgetRow(
                path=row.name,
                manifold=str(row.geometry.manifold),
                norm=str(row.geometry.norm),
                mass=row.mass,
                downstream=size,
                norm_constant=1.0,
                radius=1.0,
                share=share,
                step=rate * share,
                slope=size if response is None else response,
            )
            for row, response, share, size in zip(self.rows, responses, shares, sizes, strict=True)
        )
        return Budget(rate, rows, by=self.by)

    def measure(
        self,
        batch: Any,
        *,
        loss: Callable[[Any], Tensor] | None = None,
        probes: int = 16,
        seed: int = 0,
        progress: bool | Progress = True,
    ) -> ModelPlan:
        """A new plan with responses: the rms change of the outputs on this batch per unit step of each logical matrix.

        Args:
            batch: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
            loss: maps the model's result to the loss; by default the result's `.loss`, if it has one.
            probes: the number of random backward passes; the relative error is about `1/√(2 · probes)`.
            seed: the seed of the probes.
            progress: whether to show a progress bar on a terminal, or a function `(done, total, words)` to call instead.

        Raises:
            ArgumentError: the model returns no usable outputs, or a weight does not reach them.
            NonFiniteError: a gradient holds NaN or infinity.
        """
        from modular_manifolds.adaptation.measure import responses

        parameters = dict(self.model.named_parameters())
        for name, parameter in parameters.items():
            if is_sharded(parameter):
                raise ArgumentError(
                    "measure(batch)",
                    "needs whole weights, because it moves each of them by unit steps",
                    f"'{name}' as a DTensor",
                    "Measure before sharding: plan = mm.adapt(model, example_inputs=batch), then fully_shard(model); the "
                    "plan stays valid.",
                )
        matrices = {
            row.name: (parameters[row.parameter], row.piece, row.geometry) for row in self.rows
        }
        by_name = responses(
            self.model,
            matrices,
            batch,
            loss=loss,
            probes=probes,
            generator=torch.Generator().manual_seed(seed),
            progress=progress_of(progress),
        )
        rows = tuple(replace(row, response=by_name[row.name]) for row in self.rows)
        return replace(self, rows=rows, by="measured")

    def project_(self, averaged: nn.Module | Mapping[str, Tensor] | None = None) -> None:
        """Move weights to the nearest points of their manifolds, in place.

        Args:
            averaged: a copy of the model with averaged weights, possibly inside wrappers, or a state dict; None for the model
                itself.

        Raises:
            ArgumentError: the copy lacks a weight of the plan, or has it in another shape.
        """
        project_(self, averaged)

    def table(self, *, full: bool = False) -> str:
        """The rows as a text table. Rows that differ only in layer numbers share one line, unless `full`."""
        return str(self._table(full=full))

    def _table(self, *, full: bool) -> Table:
        shares = [row.share for row in self.budget().rows]
        return Table(
            plan_header(), plan_cells(self.rows, shares, self.fallback_settings, full=full)
        )

    def to_json(self) -> str:
        """The plan as text: names, pieces, geometries, masses and responses."""
        saved = PlanData(self.rows, self.fallback_settings, self.skipped, self.by)
        return plan_text(saved, self.model)

    @classmethod
    def from_json(cls, text: str, model: nn.Module) -> ModelPlan:
        """Read a plan from the text of `to_json`, for a model with the same weights; no weight moves.

        Raises:
            ArgumentError: the text is not a plan, or the model has other weights; the message names them.
        """
        network = unwrapped(model)
        check_model(network)
        refuse_flat(network, argument="from_json(model)")
        saved = read_plan(text, network)
        rows, fallbacks, skipped = tuple(saved.rows), saved.fallbacks, tuple(saved.skipped)
        replicas = replicas_of(model)
        return cls(network, rows, fallbacks, skipped, saved.by, "saved", replicas)

    def printed(self) -> list[Table | str]:
        """The table, and remarks on the start, on ties and on weights that nobody steps."""
        return [self._table(full=False), *self._remarks()]

    def _remarks(self) -> Iterator[str]:
        yield (
            f"start={self.start}, shares by {self.by}; shape (*stack, out, in); step = share of the learning rate, in the "
            "row's norm; radius: of the manifold's points"
        )
        moved = [row.moved for row in self.rows if row.moved is not None]
        if moved:
            yield (
                f"moved onto their manifolds: {len(moved)} of {len(self.rows)}, by {min(moved):.3g} to {max(moved):.3g} "
                "of their size"
            )
        tied = {row.parameter: row.aliases for row in self.rows if row.aliases}
        for name, aliases in tied.items():
            yield f"tied: {name} = {' = '.join(aliases)}"
        if self.skipped:
            yield f"not stepped: {', '.join(self.skipped)}"
