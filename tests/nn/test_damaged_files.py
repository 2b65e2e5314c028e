"""Damaged files of networks are refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from saved_networks import network, same

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, CheckpointError, SpecError
from modular_manifolds.specs import load, save
from modular_manifolds.specs.archive import KEY, write_archive


def relabel(path: Path, **changes: Any) -> None:
    """Rewrite the label of a saved file, leaving its tensors."""
    with safe_open(path, framework="pt") as file:
        label = json.loads(file.metadata()[KEY])
    label = {k: v for k, v in {**label, **changes}.items() if v is not None}
    save_file(load_file(path), path, metadata={KEY: json.dumps(label)})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net"
    save(network(), path)
    return path


class TestDamage:
    @given(data=st.data())
    def test_a_changed_byte_never_changes_what_is_loaded(
        self, saved: Path, data: st.DataObject
    ) -> None:
        raw = bytearray(saved.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
        damaged = saved.with_name("damaged")
        damaged.write_bytes(raw)
        message = str(damaged)
        try:
            # Only the spaces that fill up the header may change unnoticed.
            same(load(damaged), load(saved))
        except CheckpointError as error:
            message = str(error)
        assert message.startswith(str(damaged))
        assert "\n" not in message

    @given(data=st.data())
    def test_a_file_cut_short(self, saved: Path, data: st.DataObject) -> None:
        raw = saved.read_bytes()
        damaged = saved.with_name("cut")
        damaged.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
        with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
            load(damaged)

    def test_a_weight_that_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "net"
        save(network(), path)
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert str(caught.value) == (
            f"{path} must hold the bytes that were saved, got another checksum. "
            "The file is damaged: use an earlier one."
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"format": 2},
                " must be of format 1, got 2. Read it with the version of the library that wrote it.",
            ),
            (
                {"kind": "training"},
                " must be a network file, got a training file. Pass a file that this library saved.",
            ),
            (
                {"content": None},
                " must name its content, got a damaged label. Pass a file that this library saved.",
            ),
            (
                {"kind": None},
                " must be a network file, got no such metadata. Pass a file that this library saved.",
            ),
        ],
    )
    def test_another_label(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        path = tmp_path / "net"
        save(network(), path)
        relabel(path, **changes)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert str(caught.value) == f"{path}{message}"

    def test_a_file_of_someone_else(self, tmp_path: Path) -> None:
        path = tmp_path / "net"
        for metadata in (None, {"format": "pt"}, {KEY: "not JSON"}, {KEY: "[]"}):
            save_file({"weight": torch.eye(2)}, path, metadata=metadata)
            with pytest.raises(CheckpointError) as caught:
                load(path)
            assert str(caught.value) == (
                f"{path} must be a network file, got no such metadata. "
                "Pass a file that this library saved."
            )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"type": "lineer"}, "type must be a known name, got 'lineer'"),
            (
                {"type": "linear", "in_features": 0, "out_features": 2},
                "Linear(in_features) must be a positive whole number, got 0",
            ),
            ("relu", "'weight' must be a tensor of the network, got one that the network has not"),
            (
                {"type": "linear", "in_features": 2, "out_features": 3},
                "'weight' must be a real (3, 2), got torch.float32 (2, 2)",
            ),
            (
                {
                    "type": "scale",
                    "factor": 2,
                    "module": {"type": "linear", "in_features": 2, "out_features": 2},
                },
                "'module.weight' must be a tensor of the network, got nothing",
            ),
        ],
    )
    def test_a_specification_that_does_not_fit_its_weights(
        self, tmp_path: Path, content: object, message: str
    ) -> None:
        path = tmp_path / "net"
        weights = {"weight": torch.eye(2)}
        write_archive(path, weights, kind="network", content=content)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: {message}. ")

    def test_whole_numbers_are_no_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "net"
        content = {"type": "linear", "in_features": 2, "out_features": 2}
        write_archive(path, {"weight": torch.eye(2).long()}, kind="network", content=content)
        with pytest.raises(CheckpointError, match=r"must be a real \(2, 2\), got torch.int64"):
            load(path)


class TestPaths:
    def test_missing(self, tmp_path: Path) -> None:
        for path, reason in (
            (tmp_path / "no" / "net", "No such file or directory"),
            (tmp_path, ""),
        ):
            with pytest.raises(CheckpointError) as caught:
                load(path)
            assert str(caught.value).startswith(f"{path} must be a readable file, got {reason}")
            assert str(caught.value).endswith(". Check the path.")

    def test_not_writable(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path, reason in (
            (tmp_path / "no" / "net", "No such file or directory"),
            (tmp_path / "file" / "net", "Not a directory"),
            (tmp_path, "Is a directory"),
        ):
            with pytest.raises(CheckpointError) as caught:
                save(network(), path)
            assert str(caught.value) == (
                f"{path} must be a path that can be written, got {reason}. Check the folder."
            )

    def test_a_network_that_has_no_specification(self, tmp_path: Path) -> None:
        class Halve(mm.Bond):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x / 2

        with pytest.raises(SpecError, match=r"^net\.1 must be of a class"):
            save(mm.Linear(2, 2) >> Halve(), tmp_path / "net")
        torch_module: Any = torch.nn.Linear(2, 2)
        with pytest.raises(ArgumentError, match="must be a modular_manifolds module"):
            save(torch_module, tmp_path / "net")
        assert not list(tmp_path.iterdir())
