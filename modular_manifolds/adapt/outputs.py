"""One forward pass of a user's model that leaves no trace, and the tensor that counts as its outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError

NAMED: Final = ("logits", "last_hidden_state")
"""The names under which a model with several outputs gives its main one, the preferred name first."""

Batch = Any
"""The arguments of the model: a tensor, a tuple or list of positional ones, or a mapping of keyword ones."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model on one batch, with their graph, and the loss if there is one."""

    tensor: Tensor
    loss: Tensor | None


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Hold `model` in eval mode with gradients on; afterwards modes, buffers and random numbers are as they were.

    The modes are written as attributes: an overridden `train` may do more, such as merging weights. Compiled parts run
    eagerly, because a compiled backward pass may refuse to run twice.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [
        _Buffer(module, name, tensor, tensor.detach().clone(), _version(tensor))
        for module in modules
        for name, tensor in module.named_buffers(recurse=False)
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_kept_random_numbers(model))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if any(isinstance(module, nn.RNNBase) for module in modules):
            # cuDNN has no backward pass of a recurrent network in eval mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for buffer in buffers:
                buffer.restore()


def outputs_of(
    model: nn.Module, batch: Batch, loss: Callable[[Any], Tensor] | None = None
) -> Outputs:
    """Call `model` on `batch`; find its outputs and its loss.

    The outputs are `logits` if the model gives some, else `last_hidden_state`, else the first floating-point tensor that
    has a gradient and is no single number. The loss is `loss(result)`, or the result's own `loss`.

    Raises:
        ArgumentError: no tensor serves as the outputs, the outputs are not finite, or the loss is
            not one number with a gradient.
    """
    result = _called(model, batch)
    tensor = _main_tensor(result)
    if not bool(torch.isfinite(tensor.detach()).all()):
        raise ArgumentError(
            "model(batch)",
            "must have finite outputs",
            "NaN or infinity",
            "Check the weights and the batch: a step that starts from here has no size.",
        )
    return Outputs(tensor, _loss(result, loss))


def _called(model: nn.Module, batch: Batch) -> Any:
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    raise ArgumentError(
        "batch",
        "must be a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments",
        type(batch).__name__,
        "Pass the arguments that the model is called with.",
    )


def _main_tensor(result: Any) -> Tensor:
    for name in NAMED:
        found = _entry(result, name)
        if _serves(found):
            return found
    for found in _tensors(result):
        if _serves(found):
            return found
    raise ArgumentError(
        "model(batch)",
        "must give a floating-point tensor of more than one number that depends on a trainable weight",
        _described(result),
        "Return the outputs of the model, not only its loss, and leave its weights trainable.",
    )


def _loss(result: Any, loss: Callable[[Any], Tensor] | None) -> Tensor | None:
    found = _entry(result, "loss") if loss is None else loss(result)
    if loss is None and not isinstance(found, Tensor):
        return None
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
        raise ArgumentError(
            "loss(outputs)" if loss is not None else "model(batch).loss",
            "must be a tensor of one number with a gradient",
            _described(found),
            "Average the loss over the batch, and do not detach it.",
        )
    return found.reshape(())


def _entry(result: Any, name: str) -> Any:
    """An entry of a mapping or an attribute of an object; None if it has none of this name."""
    if isinstance(result, Tensor):
        return None
    return result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)


def _serves(found: Any) -> bool:
    return (
        isinstance(found, Tensor)
        and found.is_floating_point()
        and found.requires_grad
        and found.dim() > 0
    )


def _tensors(result: Any) -> Iterator[Tensor]:
    """The tensors inside tuples, lists, mappings and objects with attributes, in their order."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for each in result.values():
            yield from _tensors(each)
    elif isinstance(result, tuple | list):
        for each in result:
            yield from _tensors(each)
    elif hasattr(result, "__dict__"):
        # One level only: an object may hold itself.
        for each in vars(result).values():
            if isinstance(each, Tensor | tuple | list | Mapping):
                yield from _tensors(each)


def _described(result: Any) -> str:
    if isinstance(result, Tensor):
        kind = "" if result.requires_grad else " without a gradient"
        return f"a {result.dtype} tensor of shape {tuple(result.shape)}{kind}"
    found = [_described(each) for each in _tensors(result)]
    inside = f" with {'; '.join(found[:4])}" if found else ""
    return f"{type(result).__name__}{inside}"


@contextmanager
def _kept_random_numbers(model: nn.Module) -> Iterator[None]:
    devices = {each.device for each in (*model.parameters(), *model.buffers())}
    devices = {each for each in devices if each.type not in ("cpu", "meta")}
    kinds = sorted({each.type for each in devices})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind in kinds:
            indices = sorted(each.index or 0 for each in devices if each.type == kind)
            stack.enter_context(torch.random.fork_rng(devices=indices, device_type=kind))
        yield


@dataclass(frozen=True)
class _Buffer:
    """A buffer of a module, with what is needed to put it back."""

    module: nn.Module
    name: str
    tensor: Tensor
    values: Tensor
    version: int

    def restore(self) -> None:
        setattr(self.module, self.name, self.tensor)
        if _version(self.tensor) != self.version:
            with torch.no_grad():
                self.tensor.copy_(self.values)


def _version(tensor: Tensor) -> int:
    # Inference tensors count no versions, and nothing writes into them here.
    return 0 if tensor.is_inference() else tensor._version
