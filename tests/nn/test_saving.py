"""Saved networks come back whole, and nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import networks
from safetensors import safe_open
from safetensors.torch import load_file
from saved_networks import network, same

import modular_manifolds as mm
from modular_manifolds.errors import CheckpointError
from modular_manifolds.specs import NetworkSpec, archive, load, save
from modular_manifolds.specs.archive import KEY, read_archive, write_archive


def total(net: mm.Module) -> float:
    return float(sum(p.detach().double().abs().sum() for p in net.parameters()))


class TestRoundTrip:
    @given(networks(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    def test_any_network_comes_back(
        self, tmp_path_factory: pytest.TempPathFactory, data: Any, dtype: torch.dtype
    ) -> None:
        net = NetworkSpec.model_validate(data).build().to(dtype)
        path = tmp_path_factory.mktemp("net") / "net.safetensors"
        save(net, path)
        same(load(path), net)

    @pytest.mark.parametrize("batch", [1, 7])
    def test_the_function_comes_back(self, tmp_path: Path, batch: int) -> None:
        net = mm.Linear(64, 128) >> mm.ReLU() >> mm.Linear(128, 48)
        save(net, str(tmp_path / "net"))
        x = torch.randn(batch, 64)
        back = load(str(tmp_path / "net"))
        same(back, net)
        torch.testing.assert_close(back(x), net(x))

    def test_weights_that_are_not_on_their_manifold(self, tmp_path: Path) -> None:
        net = network()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(3)[0, 0] = float("nan")
        save(net, tmp_path / "net")
        same(load(tmp_path / "net"), net)

    def test_weights_beside_each_other_in_one_memory(self, tmp_path: Path) -> None:
        net = mm.Linear(3, 3) >> mm.Linear(3, 3)
        memory = torch.randn(6, 3)
        for p, part in zip(net.parameters(), (memory[:3], memory[3:]), strict=True):
            p.data = part
        save(net, tmp_path / "net")
        same(load(tmp_path / "net"), net)

    def test_what_is_loaded_can_be_trained(self, tmp_path: Path) -> None:
        save(network(), tmp_path / "net")
        net = load(tmp_path / "net")
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = mm.SteepestDescent(net, lr=0.1)
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        same(load(tmp_path / "net"), load(tmp_path / "net"))

    def test_the_generator_stays(self, tmp_path: Path) -> None:
        save(network(), tmp_path / "net")
        before = torch.random.get_rng_state()
        load(tmp_path / "net")
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_defaults_of_the_moment_do_not_matter(self, tmp_path: Path) -> None:
        net = network()
        save(net, tmp_path / "net")
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                same(load(tmp_path / "net"), net)
        finally:
            torch.set_default_dtype(torch.float32)


class TestFile:
    def test_it_is_a_safetensors_file_with_a_readable_specification(self, tmp_path: Path) -> None:
        net = network()
        path = tmp_path / "net.safetensors"
        save(net, path)
        assert set(load_file(path)) == set(net.state_dict())
        with safe_open(path, framework="pt") as file:
            label = json.loads(file.metadata()[KEY])
        assert (label["format"], label["kind"]) == (1, "network")
        assert NetworkSpec.from_yaml(label["content"]) == NetworkSpec.from_module(net)

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        path = tmp_path / "net"
        for payload in (pickle.dumps(network().state_dict()), b""):
            path.write_bytes(payload)
            with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
                load(path)
        torch.save(network().state_dict(), path)
        with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
            load(path)

    @pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
    def test_it_has_the_mode_of_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "other").touch()
        save(network(), tmp_path / "net")
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "net")]
        assert modes[0] == modes[1]

    @pytest.mark.parametrize(
        "failure", [OSError(28, "No space left on device"), KeyboardInterrupt()]
    )
    def test_an_interrupted_save_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
    ) -> None:
        old = network()
        save(old, tmp_path / "net")

        def half(tensors: Any, path: Path, metadata: Any) -> None:
            del tensors, metadata
            path.write_bytes(b"half")
            raise failure

        monkeypatch.setattr(archive, "save_file", half)
        expected = CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            save(network(), tmp_path / "net")
        assert [each.name for each in tmp_path.iterdir()] == ["net"]
        same(load(tmp_path / "net"), old)

    def test_no_temporary_file_is_left(self, tmp_path: Path) -> None:
        save(network(), tmp_path / "net")
        save(network(), tmp_path / "net")
        assert [each.name for each in tmp_path.iterdir()] == ["net"]

    @pytest.mark.long
    def test_a_saved_file_is_read_in_another_process(self, tmp_path: Path) -> None:
        net = network()
        save(net, tmp_path / "net")
        code = (
            "import sys; from modular_manifolds.specs import load; net = load(sys.argv[1])\n"
            "print(float(sum(p.detach().double().abs().sum() for p in net.parameters())).hex())"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "net")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert float.fromhex(ran.stdout.strip()) == total(net)


def test_an_archive_holds_any_tensors_and_data(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "bytes": torch.random.get_rng_state(),
        "flags": torch.tensor([True, False]),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
    }
    content = {"epoch": 3, "loss": 0.1, "names": ["a", None]}
    write_archive(tmp_path / "a", tensors, kind="training", content=content)
    found, data = read_archive(tmp_path / "a", kind="training")
    assert data == content
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    write_archive(tmp_path / "b", {}, kind="training", content=None)
    assert read_archive(tmp_path / "b", kind="training") == ({}, None)
