"""The pydantic models of networks, derived from the table of modules and their constructors."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds import Manifold
from modular_manifolds.nn import Bond, Module
from modular_manifolds.norms import Norm
from modular_manifolds.specs.base import Spec, refused
from modular_manifolds.specs.table import COMPOUNDS, MANIFOLDS, MODULES, NORMS


class Node(Spec):
    """One module, manifold or norm: `type` is its name, the other fields are its constructor's arguments."""

    # Built at first use, when all models exist. Generated classes have no source for docstrings, and searching for it
    # would dominate the import time.
    model_config = ConfigDict(defer_build=True, use_attribute_docstrings=False)

    constructs: ClassVar[type]
    type: str

    def build(self, where: str = "") -> Any:
        """The object itself; an error of its constructor names the position in the specification."""
        arguments = {
            name: value.build(below(where, name)) if isinstance(value, Node) else value
            for name, value in self
            if name != "type"
        }
        with located(where):
            return type(self).constructs(**arguments)


@dataclass(frozen=True, eq=False)
class OneOf:
    """Marks a field as one of `kinds`. The key `by` names the kind, and a kind's name alone is accepted too.

    Args:
        name: the name of the choice in the JSON Schema.
        kinds: the specs by kind; filled before the first use.
        by: the key that names the kind.
    """

    name: str
    kinds: Mapping[str, type[Spec]]
    by: str = "type"

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        union = functools.reduce(operator.or_, self.kinds.values())
        tagged = handler.generate_schema(Annotated[union, Field(discriminator=self.by)])
        return core_schema.no_info_before_validator_function(
            functools.partial(_written_out, by=self.by), tagged, ref=self.name
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        alone = [
            name
            for name, kind in self.kinds.items()
            if not any(f.is_required() for key, f in kind.model_fields.items() if key != self.by)
        ]
        return {"anyOf": [{"enum": alone}, handler(schema)]}


_manifold_nodes: dict[str, type[Node]] = {}
_norm_nodes: dict[str, type[Node]] = {}
_module_nodes: dict[str, type[Node]] = {}

ManifoldNode = Annotated[Node, OneOf("AnyManifold", _manifold_nodes)]
NormNode = Annotated[Node, OneOf("AnyNorm", _norm_nodes)]
ModuleNode = Annotated[Node, OneOf("AnyModule", _module_nodes)]


def _check_name(name: str) -> str:
    if not name or "." in name:
        raise refused(
            "must be a name without dots", "A module's name becomes part of a dotted path."
        )
    return name


Name = Annotated[
    str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": "^[^.]+$"})
]
"""The name of a module inside a compound."""
NAMED = Field(min_length=1, json_schema_extra={"additionalProperties": False})


def _container(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return "[list]"
    return "[mapping]" if isinstance(value, dict) else None


class CompoundNode(Node):
    """A compound of modules: a list, or a mapping whose keys become the modules' names."""

    modules: Annotated[
        Annotated[tuple[ModuleNode, ...], Field(strict=False, min_length=1), Tag("[list]")]
        | Annotated[dict[Name, ModuleNode], NAMED, Tag("[mapping]")],
        Discriminator(
            _container,
            custom_error_type="refused",
            custom_error_message="{rule}",
            custom_error_context={
                "rule": "must be a list of modules or a mapping from names to modules",
                "remedy": "Write one module a line, each beginning with '- '.",
            },
        ),
    ]

    def build(self, where: str = "") -> Any:
        place = below(where, "modules")
        built = {name: part.build(below(place, name)) for name, part in self.parts()}
        with located(where):
            if isinstance(self.modules, dict):
                return type(self).constructs(**built)
            return type(self).constructs(*built.values())

    def parts(self) -> list[tuple[str, Node]]:
        """The modules by their names, or by their positions if they have no names."""
        if isinstance(self.modules, dict):
            return list(self.modules.items())
        return [(str(i), part) for i, part in enumerate(self.modules)]


class PowerNode(Node):
    """`times` copies of `module` in series, each with its own weights."""

    module: ModuleNode
    times: Annotated[int, Field(ge=1)]

    def build(self, where: str = "") -> Any:
        module = self.module.build(below(where, "module"))
        with located(where):
            return module**self.times


def below(where: str, name: str) -> str:
    """The dotted path of a part inside `where`."""
    return f"{where}.{name}" if where else name


def _node(name: str, constructs: type | None, base: type[Node] = Node) -> type[Node]:
    """The model of one row: a field for each argument of the constructor, or the fields of `base`."""
    fields: dict[str, Any] = {"type": (Literal[name], ...)}
    if constructs is not None and base is Node:
        # A bond without an own constructor has no arguments.
        inherited = constructs.__init__ is Bond.__init__
        fields |= {} if inherited else arguments_of(constructs.__init__)
    summary = (inspect.getdoc(constructs or base) or name).split("\n\n")[0]
    model: type[Node] = create_model(
        "".join(word.capitalize() for word in name.split("_")) + "Node",
        __base__=base,
        __module__=__name__,
        __doc__=" ".join(summary.split()),
        **fields,
    )
    if constructs is not None:
        model.constructs = constructs
    return model


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A pydantic field, type and default, for each argument of a function or constructor."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        each.name: (
            _field_type(hints[each.name]),
            ... if each.default is each.empty else each.default,
        )
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    }


def _field_type(hint: Any) -> Any:
    """The annotation with nodes instead of live objects, and with lists accepted for tuples."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_field_type, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return Annotated[hint, Field(strict=False)]
    nodes = {Manifold: ManifoldNode, Norm: NormNode, Module: ModuleNode}
    return nodes.get(hint, hint) if isinstance(hint, type) else hint


def _written_out(value: object, by: str) -> object:
    if isinstance(value, dict | Spec):
        return value
    if isinstance(value, str):
        return {by: value}
    raise refused("must be a mapping or a name", f"Write a mapping with a {by}, or the {by} alone.")


@contextmanager
def located(where: str) -> Iterator[None]:
    """A context that adds the position in the specification to the messages of errors."""
    try:
        yield
    except ArgumentError as error:
        if not where:
            raise
        raise type(error)(
            f"{where}: {error.argument}", error.rule, error.seen, error.remedy
        ) from None


_manifold_nodes |= {name: _node(name, each) for name, each in MANIFOLDS.items()}
_norm_nodes |= {name: _node(name, each) for name, each in NORMS.items()}
_module_nodes |= {name: _node(name, each) for name, each in MODULES.items()}
_module_nodes |= {name: _node(name, each, CompoundNode) for name, each in COMPOUNDS.items()}
_module_nodes |= {"power": _node("power", None, PowerNode)}
