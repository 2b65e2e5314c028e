"""Attention: the heads of projections, read from the module around them, and the layouts of fused projections.

The layouts come from the classes' own code: `transformers` 5.24 (`modeling_*.py`), torch's `nn.MultiheadAttention`, and
nanoGPT. Other classes are assumed to store q, k and v consecutively.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from modular_manifolds.adaptation.split import Split
from modular_manifolds.errors import ArgumentError

HEADS: Final = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
KEY_HEADS: Final = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
QUERY_WIDTHS: Final = ("qk_head_dim", "q_head_dim")
"""Widths of heads of queries, where the values have another one, as in multi-head latent attention."""
WIDTHS: Final = (
    "head_dim",
    "attention_head_size",
    "head_size",
    "key_value_proj_dim",
    "dim_head",
    "d_kv",
)
QUERIES: Final = ("q_proj", "query", "q", "q_lin", "q_attn", "wq", "to_q", "query_proj", "linear_q")
KEYS_AND_VALUES: Final = (
    *("k_proj", "key", "k", "k_lin", "wk", "to_k", "key_proj", "linear_k"),
    *("v_proj", "value", "v", "v_lin", "wv", "to_v", "value_proj", "linear_v"),
)
FUSED: Final = (
    *("c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "c_qkv", "to_qkv", "W_pack"),
    *("qkv_lin", "attn_qkv", "in_proj"),
)
INTERLEAVED: Final = ("GPTNeoX", "Bloom", "Persimmon", "MiniMaxLightning", "DisentangledSelf")
"""Beginnings of the names of classes that store (heads, 3, width) in one weight."""
QKV: Final = ("q", "k", "v")


def projection_split(name: str, module: nn.Module | None, outputs: int) -> Split | None:
    """The split of a projection into heads; None if it is not one of an attention module, or its heads are unknown.

    Args:
        name: the name of the projection, such as `q_proj`.
        module: the module around it.
        outputs: the number of its outputs.

    Raises:
        ArgumentError: a fused weight of an unknown layout.
    """
    if module is None or not _is_attention(module):
        return None
    if name in FUSED:
        return _fused_split(name, module, outputs)
    if name not in QUERIES + KEYS_AND_VALUES:
        return None
    heads = _number(module, HEADS)
    width = _number(module, WIDTHS)
    is_declared = heads is not None
    if name in KEYS_AND_VALUES:
        key_heads = _number(module, KEY_HEADS)
        heads, is_declared = key_heads or heads, key_heads is not None
    else:
        width = _number(module, QUERY_WIDTHS) or width
    count = _number_of_heads(outputs, heads, width, is_declared=is_declared)
    return None if count is None else Split(heads=count)


def _number_of_heads(
    outputs: int, heads: int | None, width: int | None, *, is_declared: bool
) -> int | None:
    """The number of heads in a projection; None if it is unknown.

    A width that contradicts a declared number of heads belongs to something else, such as the rotated part of a head. Twice
    the outputs are a gate beside the queries, of the same width.
    """
    divides = heads is not None and outputs % heads == 0
    if width is None or outputs % width:
        return heads if divides else None
    by_width = outputs // width
    agrees = heads is None or by_width in (heads, 2 * heads)
    return by_width if agrees or not is_declared or not divides else heads


def heads_of(module: nn.Module) -> tuple[int, int, int] | None:
    """The numbers of query heads and key heads, and their width (0 if unknown); None if the heads are unknown."""
    heads = _number(module, HEADS)
    if heads is None:
        return None
    return heads, _number(module, KEY_HEADS) or heads, _number(module, WIDTHS) or 0


def _fused_split(name: str, module: nn.Module, outputs: int) -> Split | None:
    known = heads_of(module)
    kind = type(module).__name__
    if known is None:
        is_qkv = name != "in_proj" and outputs % 3 == 0
        return Split(parts=3, names=QKV) if is_qkv else None
    heads, keys, width = known
    if kind.startswith("CodeGen"):
        # Four slices for four devices: each holds the queries, values and keys of a quarter of the heads.
        return Split(heads=(4, 4, 4), names=("q", "v", "k"), interleaved=True)
    if kind.startswith("Falcon"):
        return _falcon_split(module, heads)
    if kind.startswith("GPTBigCode"):
        return _big_code_split(module, heads, outputs)
    if kind.startswith(INTERLEAVED):
        return Split(heads=(heads,) * 3, names=QKV, interleaved=True)
    if name == "query_key_value" and not type(module).__module__.startswith("transformers."):
        raise ArgumentError(
            f"{kind}.{name}",
            "must have a known layout",
            "a fused weight, which some classes interleave by head and others do not",
            f"Add a rule with split=mm.Split(heads=({heads}, {keys}, {keys}), interleaved=True), or without interleaved.",
        )
    for each in (keys, heads):
        unit = heads + 2 * each
        if outputs % unit == 0 and (not width or outputs == unit * width):
            return Split(heads=(heads, each, each), names=QKV)
    if outputs % (2 * keys) == 0 and (not width or outputs == 2 * keys * width):
        # Cross-attention has a separate weight for the queries.
        return Split(heads=(keys, keys), names=("k", "v"))
    return None


def _falcon_split(module: nn.Module, heads: int) -> Split:
    if getattr(module, "new_decoder_architecture", False):
        groups = _number(module, ("num_kv_heads",)) or heads
        return Split(heads=(heads, groups, groups), names=QKV, interleaved=True)
    if getattr(module, "multi_query", False):
        return Split(heads=(heads, 1, 1), names=QKV)
    return Split(heads=(heads,) * 3, names=QKV, interleaved=True)


def _big_code_split(module: nn.Module, heads: int, outputs: int) -> Split | None:
    if getattr(module, "multi_query", False):
        return Split(heads=(heads, 1, 1), names=QKV)
    if outputs % (3 * heads):
        return None
    return Split(heads=(heads,) * 3, names=QKV, interleaved=True)


def _is_attention(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    return "att" in kind or _own_number(module, HEADS) is not None


def _number(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """The first of these attributes of the module, or else of its `config`, that is a positive integer."""
    own = _own_number(module, names)
    return own if own is not None else _own_number(getattr(module, "config", None), names)


def _own_number(holder: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = getattr(holder, name, None)
        if type(value) is int and value > 0:
            return value
    return None
