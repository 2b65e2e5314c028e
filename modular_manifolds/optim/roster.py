"""The roster of a step: its weights in buckets, rebuilt only if groups, weights or the set of gradients change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.bucket import Bucket, make_buckets
from modular_manifolds.optim.exchange import Exchange
from modular_manifolds.optim.fallback import FallbackWeight, fallback_weights_in, prepare_fallback_
from modular_manifolds.optim.gradients import check_gradient
from modular_manifolds.optim.groups import is_fallback, weights_in
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.settings import check_geometry
from modular_manifolds.optim.state import prepare_
from modular_manifolds.optim.weight import Weight, dual_shape
from modular_manifolds.solvers.base import Solver

Group = Mapping[str, Any]


class Roster:
    """The buckets, the weights that AdamW steps, and one report for each device.

    Args:
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        exchange: the processes that share the solves; None if this process solves every weight.
        alike_elsewhere: the number of weights alike of which only other processes know, by the name of a weight.
    """

    def __init__(
        self,
        geometries: Mapping[str, Geometry],
        *,
        solver: str | Solver,
        first_rate: float,
        exchange: Exchange | None = None,
        alike_elsewhere: Mapping[str, int] | None = None,
    ) -> None:
        self.exchange = exchange
        self._alike_elsewhere = alike_elsewhere
        self._first_rate = first_rate
        self.buckets: list[Bucket] = []
        self.fallback_weights: list[FallbackWeight] = []
        self.reports: list[Report] = []
        self.has_unread_reports = False
        """Whether a step has written to the reports."""
        self.was_captured = False
        """Whether a graph was captured: its replays change the reports without a call of `step`."""
        self._geometries = geometries
        self._solver: str | Solver = solver
        self._all_weights: list[Weight] = []
        self._bucket_of: list[Bucket | None] = []
        self._all_fallback_weights: list[FallbackWeight] = []
        self._group_geometries: list[tuple[Any, Any, Any]] = []
        self._dual_shapes: dict[str, tuple[int, ...] | None] = {}

    def is_current(self, groups: Sequence[Group]) -> bool:
        """Whether the buckets hold exactly the weights with a gradient and a nonzero share. If so, update the shares.

        Raises:
            ArgumentError: a weight is complex, or a gradient sparse.
        """
        count, known = 0, len(self._all_weights)
        alike = len(self._group_geometries) == len(groups) and self._matches_fallback_weights(
            groups
        )
        for index, group in enumerate(groups):
            alike = alike and _geometry(group) == self._group_geometries[index]
            if is_fallback(group):
                continue
            for path, share, parameter in zip(
                group["param_names"], group["shares"], group["params"], strict=True
            ):
                has_gradient = parameter.grad is not None
                has_pieces = isinstance(share, list | tuple)
                if has_gradient and (any(share) if has_pieces else share != 0):
                    check_gradient(path, parameter)
                for own in share if has_pieces else (share,):
                    if alike and count < known:
                        member, bucket = self._all_weights[count], self._bucket_of[count]
                        alike = (
                            member.parameter is parameter
                            and member.group == index
                            and member.path == path
                            and (has_gradient and own != 0) == (bucket is not None)
                        )
                        if alike and bucket is not None:
                            alike = (
                                bucket.dtype is parameter.dtype
                                and bucket.device == parameter.device
                            )
                    count += 1
        if not alike or count != known:
            return False
        for bucket in self.buckets:
            bucket.update_shares_(groups[bucket.group])
        return True

    def _matches_fallback_weights(self, groups: Sequence[Group]) -> bool:
        moving = iter(self.fallback_weights)
        for index, group in enumerate(groups):
            if not is_fallback(group):
                continue
            for path, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                check_gradient(path, parameter)
                known = next(moving, None)
                if known is None or known.parameter is not parameter or known.group != index:
                    return False
        return next(moving, None) is None

    def rebuild(self, groups: Sequence[Group], *, only_with_gradient: bool = True) -> None:
        """Make new buckets and reports.

        Args:
            groups: the parameter groups.
            only_with_gradient: leave out weights without a gradient. Pass False before the first backward pass.

        Raises:
            ArgumentError: a group's geometry is not that of its weights.
        """
        for index, group in enumerate(groups):
            check_geometry(index, group, self._geometries)
        self._all_weights = list(weights_in(groups, self._geometries))
        members = [
            each
            for each in self._all_weights
            if each.share_in(groups[each.group]) > 0
            and each.parameter.is_floating_point()
            and (each.parameter.grad is not None or not only_with_gradient)
        ]
        self._all_fallback_weights = fallback_weights_in(groups)
        exchange = self.exchange
        if exchange is not None:
            exchange.lay_out(self._all_weights, self._all_fallback_weights, solver=self._solver)
        self.buckets = make_buckets(
            members,
            groups,
            solver=self._solver,
            first_rate=self._first_rate,
            placement=None if exchange is None else exchange.placement,
            rank=0 if exchange is None else exchange.rank,
            alike_elsewhere=self._alike_elsewhere,
        )
        places = {each.index: bucket for bucket in self.buckets for each in bucket.weights}
        self._bucket_of = [places.get(each.index) for each in self._all_weights]
        self._group_geometries = [_geometry(group) for group in groups]
        self.fallback_weights = [
            each
            for each in self._all_fallback_weights
            if each.parameter.grad is not None or not only_with_gradient
        ]
        devices = dict.fromkeys(
            [bucket.device for bucket in self.buckets]
            + [each.parameter.device for each in self.fallback_weights]
            + ([] if exchange is None else [exchange.device])
        )
        self.reports = [
            Report(
                device,
                [bucket for bucket in self.buckets if bucket.device == device],
                [each for each in self.fallback_weights if each.parameter.device == device],
                () if exchange is None else exchange.agreement.names,
            )
            for device in devices
        ]
        if exchange is not None:
            exchange.agreement.follow([name for each in self.reports for name in each.names])
        self.has_unread_reports = False

    def parameters(self) -> list[Tensor]:
        """One parameter of each bucket, and those of AdamW; in an exchange all, because every process must take part."""
        if self.exchange is not None:
            return [each.parameter for each in (*self._all_weights, *self._all_fallback_weights)]
        return [
            *(each.parameters[0] for each in self.buckets),
            *(each.parameter for each in self.fallback_weights),
        ]

    def allow_rate(self, lr: float) -> None:
        """Raise the limit of learning-rate tensors to at least `2 · lr`."""
        self._first_rate = lr
        for bucket in self.buckets:
            bucket.first_rate = lr

    def prepare_(self, groups: Sequence[Group], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Make the state of every weight, with or without a gradient, so that the checkpoints of all ranks agree."""
        if not self._group_geometries:
            self.rebuild(groups, only_with_gradient=False)
        for each in self._all_weights:
            if not each.parameter.is_floating_point():
                continue
            if each.name not in self._dual_shapes:
                self._dual_shapes[each.name] = dual_shape(each, self._solver)
            group = groups[each.group]
            prepare_(
                state[each.parameter],
                each,
                momentum=group["momentum"],
                damped=group["noise_damping"],
                dual_shape=self._dual_shapes[each.name],
            )
        for each in self._all_fallback_weights:
            prepare_fallback_(state[each.parameter], each.parameter)


def _geometry(group: Group) -> tuple[Any, Any, Any]:
    return group.get("manifold"), group.get("norm"), group.get("pieces")
