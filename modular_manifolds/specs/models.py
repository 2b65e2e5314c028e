"""The models a run can name, and the spec of each, read from its function's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, create_model

from modular_manifolds import models
from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.specs.base import Spec
from modular_manifolds.specs.data_sizes import Sizes
from modular_manifolds.specs.schema import Node, OneOf, arguments_of, located
from modular_manifolds.specs.size import Limits

MODELS: Final[dict[str, Callable[..., Module]]] = {
    "mlp": models.MLP,
    "residual-mlp": models.ResidualMLP,
    "convnet": models.ConvNet,
    "gpt": models.GPT,
}
"""The function behind each name. A new model is one file and one row here."""

FROM_DATA: Final[dict[str, Callable[[Sizes], Any]]] = {
    "in_features": lambda sizes: sizes.in_features,
    "classes": lambda sizes: sizes.classes,
    "vocabulary": lambda sizes: sizes.classes,
    "in_channels": lambda sizes: _image(sizes)[0],
    "size": lambda sizes: _image(sizes)[1:],
}
"""The arguments that the data decides, so that no spec names them."""

COUNTS: Final[dict[str, Callable[[Any], int]]] = {
    "mlp": lambda model: 2 * len(model.hidden) + 2,
    "residual-mlp": lambda model: 4 * model.depth + 4,
    "convnet": lambda model: 6 * model.depth + 8,
    "gpt": lambda model: 20 * model.depth + 5,
}
"""A bound on how many modules a model has: counted before it is built. A new model is one row here too."""

RATES: Final[dict[str, float]] = {"mlp": 0.1, "residual-mlp": 1.0, "convnet": 1.0, "gpt": 1.0}
"""The default learning rate of steepest descent: how far a step moves the outputs, which all models but `mlp` scale by 8."""


def _image(sizes: Sizes) -> tuple[int, int, int]:
    if sizes.image is None:
        raise SpecError(
            "model.name",
            "must be a model for these data",
            "a model for images, and the data are none",
            "Choose another model.",
        )
    return sizes.image


UNLESS_SAID: Final = Limits()


class ModelSpec(Spec):
    """A row of the table: `name`, and the arguments of its function that the data does not decide."""

    # Made from a function's signature, as nodes are from a constructor's: no docstring stands beside a field.
    model_config = ConfigDict(use_attribute_docstrings=False)

    builds: ClassVar[Callable[..., Module]]
    name: str

    def build(self, sizes: Sizes, where: str = "model", *, limits: Limits = UNLESS_SAID) -> Module:
        """The network for data of these sizes, with weights drawn from torch's global generator.

        Raises:
            ArgumentError: an argument is out of range, two modules do not fit, or there are too many modules.
        """
        function = type(self).builds
        limits.check_modules(COUNTS[self.name](self), where)
        arguments: dict[str, Any] = {
            name: value.build(f"{where}.{name}") if isinstance(value, Node) else value
            for name, value in self
            if name != "name"
        }
        for name in FROM_DATA.keys() & inspect.signature(function).parameters:
            arguments[name] = FROM_DATA[name](sizes)
        with located(where):
            return function(**arguments)


def _spec(name: str, function: Callable[..., Module]) -> type[ModelSpec]:
    fields: dict[str, Any] = {"name": (Literal[name], ...)}
    fields |= {key: each for key, each in arguments_of(function).items() if key not in FROM_DATA}
    model: type[ModelSpec] = create_model(
        f"{function.__name__}Spec",
        __base__=ModelSpec,
        __module__=__name__,
        __doc__=(inspect.getdoc(function) or name).split("\n\n")[0],
        **fields,
    )
    # A function that is an attribute of a class would become its method.
    model.builds = staticmethod(function)
    return model


SPECS: Final = {name: _spec(name, function) for name, function in MODELS.items()}

AnyModel = Annotated[ModelSpec, OneOf("AnyModel", SPECS, by="name")]
