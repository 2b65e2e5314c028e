"""The checks of data-parallel processes: each runs in every process, and `test_ddp` compares the results."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

import torch
import torch.distributed as dist
from collective_counts import counting
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from trained import (
    backward,
    give_gradients,
    model_and_optimizer,
    state_of,
    steps,
    train,
    way_of,
    weights_of,
    wrapped_in_ddp,
)

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError

WORLDS: Final = {
    "replicated": (2,),
    "by_hand": (2,),
    "settings": (1, 2),
    "more_settings": (1, 2),
    "missing": (2,),
    "absent": (2,),
    "others": (2,),
    "resume": (2, 4),
    "nonfinite": (2, 4),
}
"""The numbers of processes in which a check runs; all if it is not here."""
LONG: Final = {"gpt": (1, 2), "more_settings": (1, 2)}
"""Those in which only long tests need a check."""
PLAIN: Final = {
    **dict.fromkeys(("mlp", "gpt2", "nonfinite", "resume"), (2,)),
    **{name: WORLDS[name] for name in ("replicated", "by_hand", "settings")},
    **{name: WORLDS[name] for name in ("missing", "absent", "others")},
}
"""Those in which no long test needs it."""


def _trained(name: str, **options: Any) -> dict[str, Any]:
    """Train for some steps, and count in the last."""
    wrapped, opt = model_and_optimizer(name, **options)
    start = weights_of(wrapped)
    train(name, wrapped, opt, steps() - 1)
    backward(name, wrapped)
    with counting() as counts:
        opt.step()
    taken: Any = opt._steps  # pyright: ignore[reportPrivateUsage]
    weights, others = taken._roster._all_weights, taken._roster._all_fallback_weights
    return {
        "start": start,
        "weights": weights_of(wrapped),
        "state": state_of(opt),
        "counts": counts,
        "placement": opt.placement,
        "shapes": {each.name: each.shape for each in weights},
        "members": len(weights) + len(others),
    }


def check_mlp() -> Any:
    return _trained("mlp")


def check_gpt() -> Any:
    return _trained("gpt")


def check_gpt2() -> Any:
    return _trained("gpt2")


def check_replicated() -> Any:
    return _trained("mlp", owner="replicate")


def check_by_hand() -> Any:
    """Bare parameters show no wrapper, so the group is passed."""
    layers = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    wrapped = DistributedDataParallel(layers)
    opt = mm.optim.ManifoldMuon(wrapped.parameters(), 0.1, owner=dist.group.WORLD)
    give_gradients(layers, 0)
    with counting() as counts:
        opt.step()
    return {"weights": weights_of(wrapped), "solves": counts.solves}


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "tangent": {"tangent_momentum": True},
    "damped": {"noise_damping": True},
    "sphere": {"manifold": mm.SpectralSphere(1.0)},
    "bfloat16": {"dtype": torch.bfloat16},
    "decay": {"manifold": mm.Euclidean(), "weight_decay": 0.1},
}


def check_settings() -> Any:
    """Each setting on one way, which is another for the next setting."""
    return _with_settings(("host", "device"))


def check_more_settings() -> Any:
    """Each setting on the other way."""
    return _with_settings(("device", "host"))


def _with_settings(ways: tuple[str, str]) -> Any:
    """Networks with each setting, by one way and the other in turn; the first and the last weight rest once."""
    found: dict[str, Any] = {}
    for (name, how), way in zip(SETTINGS.items(), cycle(ways), strict=False):
        options = dict(how)
        manifold = options.pop("manifold", mm.Stiefel())
        dtype = options.pop("dtype", torch.float32)
        torch.manual_seed(0)
        net = mm.models.MLP(12, 5, hidden=(16, 16, 16), manifold=manifold).to(dtype)
        wrapped = wrapped_in_ddp(net)
        opt = mm.SteepestDescent(wrapped, 0.02, momentum=0.9, **options)
        with way_of(way), counting() as counts:
            for step in range(5):
                give_gradients(net, step, resting={2: [0], 3: [3]}.get(step, []))
                opt.step()
        found[f"{name}, {way}"] = weights_of(wrapped), state_of(opt), counts
    return found


def check_nonfinite() -> Any:
    """One process has a gradient of NaN in its own memory."""
    found: dict[str, Any] = {}
    for on_nonfinite in ("raise", "skip"):
        wrapped, opt = model_and_optimizer("mlp", on_nonfinite=on_nonfinite)
        train("mlp", wrapped, opt, 2)
        before = [*weights_of(wrapped).values(), *state_of(opt)]
        backward("mlp", wrapped)
        if dist.get_rank() == dist.get_world_size() - 1:
            list(wrapped.parameters())[1].grad[0, 0] = float("nan")  # pyright: ignore[reportOptionalSubscript]
        try:
            opt.step()
            message = "no error"
        except NonFiniteError as error:
            message = str(error)
        after = [*weights_of(wrapped).values(), *state_of(opt)]
        rested = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        train("mlp", wrapped, opt, 1)
        found[on_nonfinite] = message, rested, opt.skipped, weights_of(wrapped)
    return found


def check_missing() -> Any:
    """One process lacks a gradient."""
    found: dict[str, Any] = {}
    for way in ("host", "device"):
        wrapped, opt = model_and_optimizer("mlp")
        with way_of(way):
            train("mlp", wrapped, opt, 2)
            before = weights_of(wrapped)
            backward("mlp", wrapped)
            if dist.get_rank() == 0:
                list(wrapped.parameters())[1].grad = None
            found[way] = _message(opt), weights_of(wrapped), before
    return found


def check_absent() -> Any:
    """One process has no gradient at all."""
    wrapped, opt = model_and_optimizer("mlp")
    backward("mlp", wrapped)
    if dist.get_rank() == 0:
        wrapped.zero_grad()
    return _message(opt)


def check_others() -> Any:
    """One process has built other manifolds."""
    manifold = mm.Stiefel() if dist.get_rank() else mm.SpectralBall()
    wrapped = wrapped_in_ddp(mm.models.MLP(12, 5, hidden=(24,), manifold=manifold))
    opt = mm.SteepestDescent(wrapped, 0.1)
    backward("mlp", wrapped)
    return _message(opt)


def _message(opt: mm.SteepestDescent) -> str:
    try:
        opt.step()
        opt.check()
    except ArgumentError as error:
        return str(error)
    return "no error"


def check_resume() -> Any:
    """The first process saves, and all load: once they go on, once they start anew from that."""
    found: dict[str, Any] = {}
    for manifold in (mm.Stiefel(), mm.SpectralSphere(1.0)):
        torch.manual_seed(0)
        nets = [mm.models.MLP(12, 5, hidden=(24, 24, 24), manifold=manifold) for _ in range(2)]
        wrapped = [wrapped_in_ddp(each) for each in nets]
        opts = [mm.SteepestDescent(each, 0.02, momentum=0.9) for each in wrapped]
        for seed in range(4):
            give_gradients(nets[0], seed)
            opts[0].step()
        saved = [(nets[0].state_dict(), opts[0].state_dict())]
        dist.broadcast_object_list(saved)
        nets[1].load_state_dict(saved[0][0])
        opts[1].load_state_dict(saved[0][1])
        for net, opt in zip(nets, opts, strict=True):
            for seed in range(4, 8):
                give_gradients(net, seed)
                opt.step()
        found[str(manifold)] = [
            [*weights_of(each).values(), *state_of(opt)]
            for each, opt in zip(wrapped, opts, strict=True)
        ]
    return found
