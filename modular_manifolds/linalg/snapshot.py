"""A network as it stands, to be examined: a copy that shares nothing with it, in surroundings of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.surroundings import full_precision

M = TypeVar("M", bound=nn.Module)

WRITES_THE_WEIGHT: Final = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Torch's hooks that compute a weight anew in front of every forward pass."""
EMPTY: Final = vars(nn.Module())
"""The attributes of a module without parts, weights and hooks."""


@contextmanager
def plain_surroundings(device: torch.device) -> Iterator[None]:
    """Compute the same whatever the caller's surroundings say, and leave them as they were.

    Inside, torch records gradients, in the dtypes that the code names: no inference mode, autocast, reduced precision
    or anomaly mode, and the default dtype is float32. Attention is computed by its formula, because torch's fused
    attention has no second derivative. Tensors without a device are made on the network's, unless the default is the CPU.
    The caller's global generator stays as it was.

    Args:
        device: the network's device.

    Raises:
        ArgumentError: a transform of `torch.func`, such as `vmap`, is under way.
    """
    _refuse_transforms()
    default = torch.get_default_device()
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device.type))
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if default.type not in ("cpu", device.type):
            stack.enter_context(device)
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        fork = torch.random.fork_rng
        on_cpu = device.type == "cpu"
        stack.enter_context(fork([]) if on_cpu else fork([device], device_type=device.type))
        yield


def device_of(net: nn.Module) -> torch.device:
    """The device of the first weight, or of the first buffer; the CPU without either."""
    tensors = (each.device for part in (net.parameters(), net.buffers()) for each in part)
    return next(tensors, torch.device("cpu"))


def snapshot(net: M) -> M:
    """Copy a network as it stands, for evaluation: plain weights, no gradients, no hooks.

    The copy has the values that a forward pass in evaluation mode uses. A weight that `torch.nn.utils` computes, by
    a parametrization, pruning, weight normalisation or spectral normalisation, becomes a plain one of today's value.
    Hooks are neither copied nor called: they are the caller's, and what they stored stays as it is. Tensors that modules keep,
    such as their last output, are copied by value. Any other object that cannot be copied, such as a lock, is shared.

    Raises:
        ArgumentError: a parameter has no values yet, is complex, not of a floating dtype or not dense.
        NonFiniteError: a parameter holds NaN or infinity.
    """
    check_values(net)
    memo: dict[int, Any] = {}
    pairs = [(module, _blank(module)) for module in net.modules()]
    for module, blank in pairs:
        memo[id(module)] = blank
    with torch.no_grad(), _TensorsByValue():
        for module, blank in pairs:
            vars(blank).update(_attributes(module, memo))
    found = cast("M", memo[id(net)])
    with torch.no_grad():
        for module, blank in pairs:
            _make_plain(module, blank)
    for path in _weight_paths(found):
        _make_parameter(found, path)
    check_values(found)
    return found.requires_grad_(False)


def check_values(net: nn.Module) -> None:
    """Refuse parameters that no report can speak of; the message names the first one.

    Raises:
        ArgumentError: as `snapshot`.
        NonFiniteError: as `snapshot`.
    """
    for name, parameter in net.named_parameters():
        where = f"the weight '{name}'"
        if parameter.is_meta or is_lazy(parameter):
            raise ArgumentError(
                where,
                "must have values",
                "a parameter on the meta device" if parameter.is_meta else "none yet",
                "Create the network on a device that holds data, or load its weights first.",
            )
        if not parameter.is_floating_point():
            raise ArgumentError(
                where,
                "must be of a real floating dtype",
                parameter.dtype,
                "Take real and imaginary part as two weights."
                if parameter.is_complex()
                else "Convert the network, for example with net.float().",
            )
        if parameter.layout != torch.strided:
            raise ArgumentError(
                where, "must be dense", parameter.layout, "Convert it with .to_dense()."
            )
        finite = torch.isfinite(parameter.detach())
        if not bool(finite.all()):
            raise NonFiniteError(
                where,
                "must be finite",
                f"{int((~finite).sum())} of {finite.numel()} entries NaN or infinite",
                "Load an earlier checkpoint, or look for the step that made them.",
            )


class _TensorsByValue(TorchFunctionMode):
    """`copy.deepcopy` of a tensor that has a history, or was made in inference mode, copies its value."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), tensor.detach().clone())


def _blank(module: nn.Module) -> nn.Module:
    """A module of the same class, without the properties that parametrizations add, and without attributes."""
    kind: Any = type(module)
    if parametrize.is_parametrized(module):
        kind = parametrize.type_before_parametrizations(module)
    return cast("nn.Module", kind.__new__(kind))


def _attributes(module: nn.Module, memo: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name == "_parameters":
            found[name] = {key: _parameter(each, memo) for key, each in value.items()}
        elif name in ("_modules", "_buffers", "_non_persistent_buffers_set") or name not in EMPTY:
            found[name] = _copied(value, memo)
        else:
            # Hooks.
            found[name] = copy.copy(EMPTY[name])
    # A compiled forward pass is the caller's, and would compile the copy too.
    found.pop("_compiled_call_impl", None)
    found["training"] = False
    return found


def _parameter(parameter: nn.Parameter | None, memo: dict[int, Any]) -> nn.Parameter | None:
    if parameter is None:
        return None
    if id(parameter) not in memo:
        memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return memo[id(parameter)]


def _copied(value: object, memo: dict[int, Any]) -> object:
    try:
        return copy.deepcopy(value, memo)
    except (TypeError, NotImplementedError):
        # Python's and torch's words for an object that has no copy.
        return value


def _make_plain(module: nn.Module, copied: nn.Module) -> None:
    """Put plain weights in the place of those that torch computes at every forward pass."""
    if parametrize.is_parametrized(module):
        computed = vars(copied)["_modules"].pop("parametrizations")
        for name, each in computed.named_children():
            copied.register_parameter(name, nn.Parameter(each(), requires_grad=False))
    for hook in vars(module)["_forward_pre_hooks"].values():
        if isinstance(hook, WRITES_THE_WEIGHT):
            hook.remove(copied)


def _weight_paths(net: nn.Module) -> list[str]:
    geometries = getattr(net, "geometries", None)
    return [] if geometries is None else [path for path, _ in geometries()]


def _make_parameter(net: nn.Module, path: str) -> None:
    """Make a weight that was replaced by a plain tensor a parameter again."""
    owner, _, name = path.rpartition(".")
    module = net.get_submodule(owner)
    own = vars(module)
    if isinstance(own["_parameters"].get(name), nn.Parameter):
        return
    value = getattr(module, name, None)
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"the weight '{path}'",
            "must be a tensor",
            "nothing" if value is None else type(value).__name__,
            "Put the weight back, or build the network anew.",
        )
    for place in (own, own["_buffers"], own["_parameters"]):
        place.pop(name, None)
    module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


def _refuse_transforms() -> None:
    stack = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    if stack is not None:
        raise ArgumentError(
            "a report",
            "must be asked for outside torch.func",
            "a call inside vmap, grad, jvp or another transform",
            "Call it before the transform: it speaks of numbers, not of traced values.",
        )
