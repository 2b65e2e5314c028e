"""Known modules: the role of a parameter, and how its module stores it.

Modules of torch are recognised by their classes, modules of other libraries by the names of their classes, without
imports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

from modular_manifolds.adaptation.adapters import increment_of, is_first_factor
from modular_manifolds.adaptation.attention import QKV, projection_split
from modular_manifolds.adaptation.defaults import PER_HEAD, Role
from modular_manifolds.adaptation.gains import is_gain_by_name, is_gain_by_values
from modular_manifolds.adaptation.place import Place, class_path
from modular_manifolds.adaptation.split import Split
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom

HEAD_WORDS: Final = (
    *("lm_head", "head", "classifier", "score", "embed_out", "qa_outputs", "output_projection"),
    *("predictions", "fc", "logits", "vocab_projector", "heads", "cls", "mc_head"),
)
"""Names of a linear layer that is the last layer of a model; `fc` counts only as a direct child of the model."""
ROW_WORDS: Final = ("pos", "embed", "token", "quer", "latent", "prompt", "table", "codebook")
"""Fragments of the names of tables of vectors."""
CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
GATES: Final = (
    (nn.LSTM, ("input", "forget", "cell", "output")),
    (nn.LSTMCell, ("input", "forget", "cell", "output")),
    (nn.GRU, ("reset", "update", "new")),
    (nn.GRUCell, ("reset", "update", "new")),
)
CONV1D: Final = "transformers.pytorch_utils.Conv1D"
GATED: Final = ("gate_up_proj", "gate_and_up_proj")
TRANSPOSED_EXPERTS: Final = ("Llama4", "Aria", "GptOss", "OpenAIPrivacyFilter")


@dataclass(frozen=True)
class ParameterFacts:
    """The role and the storage of a parameter.

    Args:
        role: the role, which decides the defaults.
        split: the storage order and the division; None for a matrix (out, in) or a vector.
        source: the module with this information, for the table.
        geometry: the geometry of an atom of this library inside the model.
        fixed_rows: the setting that forbids a manifold to move rows; empty if there is none.
        by_values: whether the values of the weight decided its role, so that a rule with a geometry overrules it.
    """

    role: Role
    split: Split | None
    source: str
    geometry: Geometry | None = None
    fixed_rows: str = ""
    by_values: bool = False


def recognise(
    place: Place, *, outputs: Mapping[int, Role], adapters: Collection[str] = ()
) -> ParameterFacts | None:
    """The facts about a parameter; None if it is unknown.

    Args:
        place: the parameter and the modules around it.
        outputs: the roles of the modules that compute the model's outputs, by their ids.
        adapters: the names of the weights of peft's adapters.
    """
    module, source = place.module, type(place.module).__name__
    if isinstance(module, Atom):
        return ParameterFacts("hidden", None, source, module.geometry)
    if _is_vector(place) or is_gain_by_name(place):
        return ParameterFacts("vector", None, source)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return ParameterFacts("embedding", None, source, fixed_rows=_fixed_rows(module))
    if isinstance(module, nn.MultiheadAttention):
        return ParameterFacts("hidden", _torch_attention(place.attribute, module), source)
    increment = increment_of(place, adapters)
    if increment is not None:
        return ParameterFacts("increment", *increment)
    if is_first_factor(place):
        return ParameterFacts("hidden", Split(), "lora_A")
    if isinstance(module, CONVOLUTIONS):
        split = Split(heads=module.groups if module.groups > 1 else None)
        return ParameterFacts("hidden", split, source)
    if isinstance(module, TRANSPOSED):
        groups = module.groups if module.groups > 1 else None
        return ParameterFacts("hidden", Split(heads=groups, dim=1, transpose=True), source)
    for kind, names in GATES:
        if isinstance(module, kind) and "weight_hr" not in place.attribute:
            return ParameterFacts("hidden", Split(parts=len(names), names=names), source)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.Bilinear):
        return ParameterFacts("hidden", Split(), source)
    if place.parameter.dim() == 2 and place.attribute == "weight":
        if _has_known_storage(module) or not is_gain_by_values(place.parameter):
            return _linear(place, outputs)
        return ParameterFacts("vector", None, f"{source}, equal rows or columns", by_values=True)
    return _bare_parameter(place)


def output_roles(model: nn.Module) -> dict[int, Role]:
    """The roles of the linear layers that compute the outputs of a model, by their ids.

    An `unembedding` has one output for each token of the model's largest embedding, a `head` has other outputs.
    """
    tokens = [
        module.num_embeddings
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding) and "pos" not in path.rpartition(".")[2]
    ]
    roles: dict[int, Role] = {}
    for module in _output_modules(model):
        weight = getattr(module, "weight", None)
        # A lazy layer has no shape yet.
        lazy = isinstance(weight, nn.UninitializedParameter)
        outputs = weight.shape[0] if isinstance(weight, Tensor) and not lazy else 0
        roles[id(module)] = "unembedding" if outputs == max(tokens, default=None) else "head"
    return roles


def _output_modules(model: nn.Module) -> list[nn.Module]:
    """The linear layers that compute the outputs of a model.

    These are `model.get_output_embeddings()`, else the linear layers with a name of `HEAD_WORDS` (of those in one
    `nn.Sequential` the last), else the last linear layer of a child of the model with such a name, else the last linear layer if
    only `nn.Sequential` containers are around it.
    """
    find = getattr(model, "get_output_embeddings", None)
    try:
        declared = find() if callable(find) else None
    except (AttributeError, NotImplementedError, TypeError):
        declared = None
    if isinstance(declared, nn.Module):
        return [declared]
    linear = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear)]
    named = {
        _sequential_around(model, path) or path: m for path, m in linear if _has_head_name(path)
    }
    if named or not linear:
        return list(named.values())
    for name, child in model.named_children():
        inside = [each for each in child.modules() if isinstance(each, nn.Linear)]
        if name in HEAD_WORDS and inside and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            return [inside[-1]]
    path, last = linear[-1]
    container: nn.Module = model
    for word in path.split(".")[:-1]:
        container = container.get_submodule(word)
        if not isinstance(container, nn.Sequential):
            return []
    return [last]


def _sequential_around(model: nn.Module, path: str) -> str:
    """The path of the `nn.Sequential` that holds a module; empty if another module holds it, or the model itself."""
    parent = path.rpartition(".")[0]
    return parent if isinstance(model.get_submodule(parent), nn.Sequential) else ""


def _has_head_name(path: str) -> bool:
    words = path.split(".")
    word = next((each for each in reversed(words) if not each.isdigit()), "")
    return word in HEAD_WORDS and (word != "fc" or len(words) == 1)


def _is_vector(place: Place) -> bool:
    shape = place.parameter.shape
    if (
        place.parameter.dim() <= 1
        or "bias" in place.attribute.split("_")
        or place.attribute.endswith("bias")
    ):
        return True
    return place.attribute != "weight" and sum(size > 1 for size in shape) <= 1


def _has_known_storage(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or class_path(module) == CONV1D


def _linear(place: Place, outputs: Mapping[int, Role]) -> ParameterFacts:
    """The facts about a matrix named `weight`: (out, in), or (in, out) in `Conv1D` of transformers."""
    module, source = place.module, type(place.module).__name__
    transposed = class_path(module) == CONV1D
    # The storage order is known for these two classes only: rules may state it for others.
    transpose = transposed if _has_known_storage(module) else None
    whole = Split(transpose=transpose)
    if id(module) in outputs:
        return ParameterFacts(outputs[id(module)], whole, source)
    size = place.parameter.shape[1 if transposed else 0]
    split = projection_split(place.module_name, place.parent, size)
    if split is not None:
        source = f"{type(place.parent).__name__}.{place.module_name}"
        if not PER_HEAD:
            split = _merge_heads(split, size)
    elif place.module_name in GATED and size % 2 == 0:
        split = Split(parts=2, names=("gate", "up"))
    return ParameterFacts(
        "hidden", whole if split is None else replace(split, transpose=transpose), source
    )


def _torch_attention(attribute: str, module: nn.MultiheadAttention) -> Split | None:
    heads = module.num_heads
    if attribute == "in_proj_weight":
        split, size = Split(heads=(heads,) * 3, names=QKV), 3 * module.embed_dim
    else:
        split, size = Split(heads=heads), module.embed_dim
    return split if PER_HEAD else _merge_heads(split, size)


def _bare_parameter(place: Place) -> ParameterFacts | None:
    """The facts about other parameters of a module: stacks of experts, tables of vectors, and matrices."""
    parameter, attribute = place.parameter, place.attribute
    kind = type(place.module).__name__
    if parameter.dim() == 3 and "expert" in kind.lower():
        transpose = getattr(place.module, "is_transposed", kind.startswith(TRANSPOSED_EXPERTS))
        if attribute not in GATED:
            return ParameterFacts("hidden", Split(experts=True, transpose=bool(transpose)), kind)
        alternate = not getattr(place.module, "is_concatenated", True)
        split = Split(
            parts=2,
            names=("gate", "up"),
            experts=True,
            transpose=bool(transpose),
            interleaved=alternate,
        )
        return ParameterFacts("hidden", split, kind)
    if kind == "DbrxExpertGLU":
        # The rows of all experts in one matrix; the last of the three is used as (in, out).
        experts: int = vars(place.module)["moe_num_experts"]
        down = attribute == "w2"
        split = Split(heads=experts, dim=1 if down else 0, transpose=down)
        return ParameterFacts("hidden", split, kind)
    if any(word in attribute.lower() for word in ROW_WORDS):
        return ParameterFacts("position", None, kind)
    if is_gain_by_values(parameter):
        return ParameterFacts("vector", None, f"{kind}, equal rows or columns", by_values=True)
    if parameter.dim() == 2:
        return ParameterFacts("hidden", None, kind)
    return None


def _fixed_rows(module: nn.Embedding | nn.EmbeddingBag) -> str:
    if module.padding_idx is not None:
        return f"padding_idx={module.padding_idx}"
    return f"max_norm={module.max_norm}" if module.max_norm is not None else ""


def _merge_heads(split: Split, size: int) -> Split | None:
    """The same parts, each one matrix instead of a stack of heads."""
    if isinstance(split.heads, int) or split.heads is None:
        return None
    if split.interleaved:
        return split
    unit = size // sum(split.heads)
    return Split(sizes=tuple(unit * each for each in split.heads), names=split.names)
