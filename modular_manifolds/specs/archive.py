"""Files of tensors and data, written atomically, and read without unpickling."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modular_manifolds.errors import ArgumentError, CheckpointError
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.specs.whole import written_whole

FORMAT: Final = 1
"""The version of the file format."""
KEY: Final = "modular_manifolds"
"""The key of this library's metadata in a safetensors file."""


def write_archive(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, content: object
) -> None:
    """Write a safetensors file with the tensors, and with `content` as JSON in its metadata.

    The file is written under a temporary name and then renamed, so `path` always holds the old or the new file, even if
    writing is interrupted.

    Args:
        tensors: tensors of any dtype of safetensors; they are copied to the CPU.
        kind: the kind of the file, in one word; `read_archive` checks it.
        content: JSON-able data.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    copies = {
        name: each.detach().to("cpu", copy=True).contiguous() for name, each in tensors.items()
    }
    text = json.dumps(content, allow_nan=False)
    label = {"format": FORMAT, "kind": kind, "crc32": _checksum(copies, text), "content": text}
    try:
        with written_whole(path) as temporary:
            mode = temporary.stat().st_mode
            save_file(copies, temporary, metadata={KEY: json.dumps(label)})
            # safetensors makes the file readable for its owner only; restore the default mode.
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            str(path), "must be a path that can be written", _reason(error), "Check the folder."
        ) from None


@dataclass(frozen=True)
class Header:
    """The content of an archive, and the shapes and dtypes of its tensors by name."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    content: Any


def read_header(path: str | Path, *, kind: str) -> Header:
    """The header of a file from `write_archive`, without reading its tensors.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind or of another format.
    """
    with _opened(path) as file:
        label = _label(path, file.metadata(), kind)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        tensors = {
            name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()
        }
        return Header(tensors, _content(path, label))


def read_archive(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors, on the CPU, and the content of a file from `write_archive`.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind or of another format, or larger than memory.
    """
    with _opened(path) as file:
        # A sparse file may be much larger than the disk.
        check_memory(
            Path(path).stat().st_size,
            argument=str(path),
            seen="a file",
            remedy="Read it on a larger machine.",
            error=CheckpointError,
        )
        label = _label(path, file.metadata(), kind)
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if _checksum(tensors, label["content"]) != label["crc32"]:
        raise CheckpointError(
            str(path),
            "must hold the bytes that were saved",
            "another checksum",
            "The file is damaged: use an earlier one.",
        )
    return tensors, _content(path, label)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (OSError, ValueError, TypeError) as error:
        # A ValueError concerns the path, such as a zero byte in it; this library's own errors pass through.
        if isinstance(error, ArgumentError):
            raise
        raise CheckpointError(
            str(path), "must be a readable file", _reason(error), "Check the path."
        ) from None
    except SafetensorError as error:
        remedy = "Use an earlier one, or check the path."
        raise CheckpointError(
            str(path), "must be a whole safetensors file", _reason(error), remedy
        ) from None


def _content(path: str | Path, label: Mapping[str, Any]) -> Any:
    try:
        return json.loads(label["content"])
    except (ValueError, RecursionError):
        raise CheckpointError(
            str(path),
            "must hold data that JSON can read",
            "a damaged label",
            "The file is damaged: use an earlier one.",
        ) from None


def _label(path: str | Path, metadata: Mapping[str, str] | None, kind: str) -> dict[str, Any]:
    remedy = "Pass a file that this library saved."
    try:
        label = json.loads((metadata or {})[KEY])
        found = label["format"], label["kind"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(
            str(path), f"must be a {kind} file", "no such metadata", remedy
        ) from None
    if found[0] != FORMAT:
        remedy = "Read it with the version of the library that wrote it."
        raise CheckpointError(str(path), f"must be of format {FORMAT}", found[0], remedy)
    if found[1] != kind:
        raise CheckpointError(str(path), f"must be a {kind} file", f"a {found[1]} file", remedy)
    if not isinstance(label.get("content"), str) or "crc32" not in label:
        raise CheckpointError(str(path), "must name its content", "a damaged label", remedy)
    return label


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    """CRC-32 of the content and of every tensor's name, dtype, shape and bytes."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        each = tensors[name]
        total = zlib.crc32(f"{name} {each.dtype} {tuple(each.shape)}".encode(), total)
        total = zlib.crc32(each.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _reason(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()).rstrip(".")
