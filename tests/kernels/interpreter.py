"""The kernels without a GPU: Triton's interpreter, made to round as a GPU rounds, beside compiled kernels.

Two things are needed. The interpreter takes functions that were decorated under `TRITON_INTERPRET`, which
would change every kernel of the process: the kernels' bodies are wrapped by hand, and what they call outside
a compilation, which otherwise only raises, is interpreted too. And it multiplies the bits of bfloat16
numbers as if they were integers, cuts where it should round, and does not round to tf32: three methods of
its builder are replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import KERNELS


def bfloat16_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 as the upper 16 bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Half a unit of the last place kept, less one where it is even: a tie then rounds to even.
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), upper)


def bfloat16_values(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The value of these 16 bits, as float32."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)


def tf32_values(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 rounded to the ten bits of mantissa that a tf32 product sees."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def round_faithfully(patch: pytest.MonkeyPatch) -> None:
    """Replace what the interpreter does with bfloat16 and tf32; skip where it is built otherwise.

    float32 products asked for as tf32x3 stay float32: the three tf32 products are as accurate.
    """
    tl = pytest.importorskip("triton.language")
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    for name in ("create_dot", "cast_impl", "binary_op"):
        if not hasattr(builder, name):
            pytest.skip(
                f"this Triton's interpreter has no {name}: its rounding cannot be made right"
            )
    stock_dot, stock_cast, stock_binary = builder.create_dot, builder.cast_impl, builder.binary_op

    def create_dot(
        self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            left, right = bfloat16_values(a.data), bfloat16_values(b.data)
        elif a.dtype.scalar == tl.float32 and str(input_precision).split(".")[-1] == "TF32":
            left, right = tf32_values(a.data), tf32_values(b.data)
        else:
            return stock_dot(self, a, b, d, input_precision, max_num_imprecise_acc)
        return handle(np.matmul(left, right).astype(d.data.dtype) + d.data, d.dtype.scalar)

    def cast_impl(self: Any, source: Any, wanted: Any) -> Any:
        before, after = source.dtype.scalar, wanted.scalar
        if before == tl.float32 and after == tl.bfloat16:
            return handle(bfloat16_bits(source.data), after)
        if before == tl.bfloat16 and after == tl.float32:
            return handle(bfloat16_values(source.data), after)
        if tl.bfloat16 in (before, after) and before != after:
            raise NotImplementedError(f"cast {before} to {after}: go through float32")
        return stock_cast(self, source, wanted)

    def binary_op(self: Any, left: Any, right: Any, operation: Any) -> Any:
        if tl.bfloat16 in (left.dtype.scalar, right.dtype.scalar):
            raise NotImplementedError("arithmetic on bfloat16: convert to float32 first")
        return stock_binary(self, left, right, operation)

    patch.setattr(builder, "create_dot", create_dot)
    patch.setattr(builder, "cast_impl", cast_impl)
    patch.setattr(builder, "binary_op", binary_op)
    # The casts have other names, bound to the stock method when the class was made.
    for name, value in vars(builder).items():
        if name in ("create_fp_ext", "create_fp_trunc") and callable(value):
            patch.setattr(
                builder, name, lambda self, source, wanted: self.cast_impl(source, wanted)
            )


def interpret_calls(patch: pytest.MonkeyPatch) -> None:
    """A compiled function called by an interpreted one is interpreted; such a call only raises otherwise."""
    jit = pytest.importorskip("triton.runtime.jit")
    interpreter = pytest.importorskip("triton.runtime.interpreter")

    tl = pytest.importorskip("triton.language")

    @functools.cache
    def rewritten(body: Any) -> tuple[Callable[..., Any], list[Any]]:
        """A function for the interpreter, and the modules of the language that it sees."""
        seen = [each for each in body.__globals__.values() if each is tl or each is tl.core]
        return interpreter.InterpretedFunction(body).rewrite(), seen

    def call(self: Any, *arguments: object, **options: object) -> Any:
        function, seen = rewritten(self.fn)
        # The interpreter's language is in place where a kernel calls; to put it there at each call is slow.
        if any(tl.core.is_builtin(each.load) for each in seen):
            interpreter._patch_lang(self.fn)
        return function(*arguments, **options)

    patch.setattr(jit.JITFunction, "__call__", call)


def overlook_overflow(patch: pytest.MonkeyPatch) -> None:
    """Do not make sums and products of 32-bit integers once more in 64 bits: nobody looks at them without debugging."""
    builder = pytest.importorskip("triton.runtime.interpreter").interpreter_builder
    assert not builder.options.debug
    patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))


def count_with_arrays(patch: pytest.MonkeyPatch) -> None:
    """Let a loop count to a loaded number: older interpreters convert arrays in a way numpy has given up."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if not hasattr(interpreter, "_patch_lang_tensor"):
        pytest.skip("this Triton's interpreter has no _patch_lang_tensor: loops may not count")
    stock = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        stock(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.squeeze())

    patch.setattr(interpreter, "_patch_lang_tensor", patched)


def interpreted_programs() -> Mapping[str, Any]:
    """The kernels by name, for the interpreter."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    return {name: interpreter.InterpretedFunction(KERNELS[name].fn) for name in KERNELS}


@dataclass
class Counted(Mapping[str, Any]):
    """Kernels by name that note every launch."""

    kernels: Mapping[str, Any]
    launched: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        kernel, launched = self.kernels[name], self.launched

        class Launcher:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                def launch(*arguments: object, **options: object) -> None:
                    launched.append(name)
                    kernel[grid](*arguments, **options)

                return launch

        return Launcher()

    def __iter__(self) -> Iterator[str]:
        return iter(self.kernels)

    def __len__(self) -> int:
        return len(self.kernels)


def interpreted_machine(target: str = "sm_90") -> tuple[Machine, list[str]]:
    """A machine of this architecture that is not there, and the list of its launches as they come."""
    counted = Counted(interpreted_programs())
    return Machine(target, counted), counted.launched
