"""State dicts of an adapted model go through every format of torch and back, and the run goes on bit for bit."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from long_tests import mostly_long
from small import MODELS, adapted, same_bits, train
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import modular_manifolds as mm

Both = tuple[nn.Module, mm.SteepestDescent]


def through_torch(given: Both, taken: Both, folder: Path) -> None:
    model, opt = given
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, folder / "run.pt")
    found = torch.load(folder / "run.pt", weights_only=True)
    taken[0].load_state_dict(found["model"])
    taken[1].load_state_dict(found["opt"])


def through_memory(given: Both, taken: Both, folder: Path) -> None:  # noqa: ARG001
    file = io.BytesIO()
    torch.save(given[1].state_dict(), file)
    file.seek(0)
    taken[1].load_state_dict(torch.load(file, weights_only=True))
    taken[0].load_state_dict(given[0].state_dict())


def through_safetensors(given: Both, taken: Both, folder: Path) -> None:
    model, opt = given
    saved = opt.state_dict()
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for place, entries in saved["state"].items():
        tensors.update({f"state.{place}.{key}": value for key, value in entries.items()})
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(contiguous, folder / "run.safetensors")
    # A rate may be a tensor.
    groups = json.loads(json.dumps(saved["param_groups"], default=float))
    found = safetensors.torch.load_file(folder / "run.safetensors")
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in found.items():
        kind, _, rest = name.partition(".")
        if kind == "state":
            place, _, key = rest.partition(".")
            state.setdefault(int(place), {})[key] = value
    taken[0].load_state_dict({n[6:]: v for n, v in found.items() if n.startswith("model.")})
    taken[1].load_state_dict({"state": state, "param_groups": groups})


def through_checkpoints(flatten: bool) -> Callable[[Both, Both, Path], None]:
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)

    def go(given: Both, taken: Both, folder: Path) -> None:
        weights, state = get_state_dict(*given, options=options)
        save({"model": weights, "opt": state}, checkpoint_id=folder / "dcp", no_dist=True)
        weights, state = get_state_dict(*taken, options=options)
        load({"model": weights, "opt": state}, checkpoint_id=folder / "dcp", no_dist=True)
        set_state_dict(*taken, model_state_dict=weights, optim_state_dict=state, options=options)

    return go


def through_the_optimisers_own(given: Both, taken: Both, folder: Path) -> None:  # noqa: ARG001
    saved = get_optimizer_state_dict(*given)
    set_optimizer_state_dict(*taken, optim_state_dict=saved)
    taken[0].load_state_dict(given[0].state_dict())


WAYS: dict[str, Callable[[Both, Both, Path], None]] = {
    "torch.save": through_torch,
    "memory": through_memory,
    "safetensors": through_safetensors,
    "get_optimizer_state_dict": through_the_optimisers_own,
    "dcp": through_checkpoints(False),
    "dcp, flattened": through_checkpoints(True),
}

HOWS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "tangent and damped": {"tangent_momentum": True, "noise_damping": True},
    "tensor rate": {"lr": torch.tensor(0.1)},
}


DTYPES = (torch.float32, torch.bfloat16)
PAIRWISE = [
    (way, name, list(HOWS)[(i + j) % len(HOWS)], DTYPES[(i + j) % len(DTYPES)])
    for i, way in enumerate(WAYS)
    for j, name in enumerate(MODELS)
]
"""Every way with every model, every setting and every dtype, and every two of these together."""


def test_every_two_meet() -> None:
    kinds = (WAYS, MODELS, HOWS, DTYPES)
    for (i, one), (j, other) in combinations(enumerate(kinds), 2):
        assert {(case[i], case[j]) for case in PAIRWISE} == set(product(one, other))


@pytest.mark.parametrize(
    ("way", "name", "how", "dtype"), mostly_long(PAIRWISE, usual=3, several=True)
)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_run_goes_on_bit_for_bit(
    way: str, name: str, how: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    def begun() -> Both:
        torch.manual_seed(0)
        model = MODELS[name]().to(dtype)
        return model, adapted(model, **{key: copy.copy(each) for key, each in HOWS[how].items()})

    given, taken = begun(), begun()
    train(*given, range(3))
    WAYS[way](given, taken, tmp_path)
    train(*given, range(3, 6))
    train(*taken, range(3, 6))
    assert same_bits(given[0], taken[0])
