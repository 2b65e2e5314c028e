"""Torch's wrappers around a network, such as `torch.compile`'s, and the network inside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

WRAPPERS: Final = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    ("torch.optim.swa_utils", "AveragedModel", "module"),
)
"""For each wrapper: its module, its class, and the attribute that holds the network inside."""


def unwrapped(net: Any) -> Any:
    """The network inside any nesting of torch's wrappers; anything else is returned unchanged.

    The wrappers are `torch.compile`, `DataParallel`, `DistributedDataParallel` and `AveragedModel`. Nothing is
    copied: the weights are those that the wrapper uses.
    """
    *_, (_, inner) = layers(net)
    return inner


class Replicas:
    """The process group over which a wrapper averages gradients; None without such a wrapper.

    Copies and pickles have None: a copied model has no wrapper.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group

    def __reduce__(self) -> tuple[type[Replicas], tuple[()]]:
        return Replicas, ()


def replicas_of(net: Any) -> Replicas:
    """The processes that hold the same weights as `net`: told by its wrapper, or by that of the model that a plan is for."""
    for name, layer in layers(net):
        if name == "DistributedDataParallel":
            return Replicas(layer.process_group)
        known = getattr(layer, "replicas", None)
        if isinstance(known, Replicas):
            return known
    return Replicas()


def averages_gradients(net: Any) -> bool:
    """Whether a wrapper around `net` averages gradients over processes."""
    return any(name == "DistributedDataParallel" for name, _ in layers(net))


def layers(net: Any) -> Iterator[tuple[str, Any]]:
    """The name and the object of each layer of wrapping, from the outermost wrapper to the network itself."""
    while True:
        name, attribute = _wrapper(net)
        yield name, net
        if not attribute:
            return
        net = getattr(net, attribute)


def _wrapper(net: object) -> tuple[str, str]:
    """The type name of `net`, and the attribute that holds the network inside; empty if `net` is not a wrapper."""
    # The type decides, because a compiled module may report the wrapped class as its `__class__`. Only modules that are
    # imported already are looked at: importing torch's compiler takes seconds.
    for file, name, attribute in WRAPPERS:
        kind = getattr(sys.modules.get(file), name, None)
        if kind is not None and issubclass(type(net), kind):
            return name, attribute
    return type(net).__name__, ""
