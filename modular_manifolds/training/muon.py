"""Muon for matrices and AdamW for other weights, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Embedding, Module
from modular_manifolds.training.bfloat16 import products


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with fast bfloat16 products on every processor (`ThroughFloat32`)."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of `torch.optim.Muon` with these products."""
        with products():
            return super().step(closure)


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on the matrices of a network and `torch.optim.AdamW` on its other weights.

    Muon steps every matrix, and each matrix of every stack separately. AdamW steps vectors, matrices with one row or
    column, embeddings, and the last weight, the network's head. Both have the same learning rate and weight decay. Muon's
    step is `0.2 · √max(m, n)` times its orthogonal direction, so that its size matches AdamW's (torch's
    `match_rms_adamw`).

    Args:
        net: the network.
        lr: the learning rate of Muon and AdamW.
        momentum: μ of Muon's momentum.
        nesterov: whether Muon's direction looks one step ahead.
        weight_decay: λ of `W ← (1 − lr · λ) W`, for Muon and AdamW.

    Source: J. Liu et al., "Muon is scalable for LLM training" (2025), section 2.2.
    """

    def __init__(
        self, net: Module, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        hidden, others = by_muon(net)
        # A view for each matrix, so that Muon writes into the stack.
        self._matrices = {p: list(p.detach().view(-1, *p.shape[-2:])) for p in hidden}
        self._weights = [*hidden, *others]
        matrices = [each for views in self._matrices.values() for each in views]
        self._muon = Muon(
            matrices,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self._weights:
            if set_to_none:
                weight.grad = None
            elif weight.grad is not None:
                weight.grad = torch.zeros_like(weight.grad)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for stack, matrices in self._matrices.items():
            grads = [None] * len(matrices)
            if stack.grad is not None:
                grads = stack.grad.reshape(-1, *stack.shape[-2:])
            for matrix, grad in zip(matrices, grads, strict=True):
                matrix.grad = grad
        self._muon.step()
        self._adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Share groups and state with both optimisers, so that schedules and checkpoints see them."""
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:1],
            self.param_groups[1:],
        )
        self._muon.state = self._adamw.state = self.state


def by_muon(net: Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights that Muon steps, and the other weights.

    Raises:
        SpecError: there is no weight for Muon.
    """
    weights = list(net.parameters())
    tables = embedding_weights(net)
    hidden = [p for p in weights[:-1] if is_matrix(p) and p not in tables]
    if not hidden:
        raise SpecError(
            "optimizer.name",
            "can be muon for a network with a matrix between its embedding and its last weight",
            "none",
            "Choose adamw.",
        )
    taken = set(hidden)
    return hidden, [p for p in weights if p not in taken]


def all_muon(net: Module) -> bool:
    """Whether Muon can step every weight: all are single matrices, and none is an embedding."""
    return not embedding_weights(net) and all(
        p.dim() == 2 and is_matrix(p) for p in net.parameters()
    )


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight is a matrix, or a stack of matrices, with at least two rows and columns."""
    return weight.dim() >= 2 and min(weight.shape[-2:]) > 1


def embedding_weights(net: Module) -> set[nn.Parameter]:
    """The weights of embeddings."""
    return {part.weight for part in net.modules() if isinstance(part, Embedding)}
