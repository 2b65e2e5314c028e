"""A training run as data: complete once it is resolved, so that a run directory reproduces itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from modular_manifolds.composition.space import ProductSpace, Space
from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.specs.base import Spec, refused, with_defaults
from modular_manifolds.specs.data import DataSpec, ImagesSpec
from modular_manifolds.specs.data_sizes import Sizes, Usual
from modular_manifolds.specs.document import Document
from modular_manifolds.specs.losses import CrossEntropySpec, LossSpec
from modular_manifolds.specs.models import RATES, SPECS, AnyModel, ModelSpec
from modular_manifolds.specs.network import NetworkSpec, without_weights
from modular_manifolds.specs.optimizers import OptimizerSpec, SteepestDescentSpec
from modular_manifolds.specs.override import Assignment, assign_, parse_assignment
from modular_manifolds.specs.size import MAX_MODULES, Limits, weights_of

FORMAT: Final = 1
"""The version of the run format."""
Parallel = Literal["none", "ddp", "fsdp"]
DEVICE: Final = re.compile(r"cpu|cuda(:[0-9]+)?")


class RunSpec(Document, Spec):
    """Everything that decides a run. `RunSpec()` is the default one, on the bundled digits.

    Raises:
        SpecError: a value is out of range, or a key is not known.
    """

    format: Literal[1] = 1
    """The format of this file."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seeds the weights and the order of the examples."""
    data: DataSpec = ImagesSpec(name="digits")
    """The data that the run learns from."""
    model: AnyModel | None = None
    """The network, by the name of a model; null for what `network` says, or for the default of the data."""
    network: NetworkSpec | None = None
    """The network, written out; null for what `model` says. A resolved run has it."""
    optimizer: OptimizerSpec = SteepestDescentSpec(name="steepest-descent")
    """How it learns."""
    loss: LossSpec = CrossEntropySpec(name="cross-entropy")
    """The loss that the run lowers: plain cross entropy, or one with a margin for certified accuracy."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes over the run: linear and cosine fall to zero."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """How many times the run sees every example."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """How many steps the run takes; overrides `epochs` if given."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples a step; without it 128 images, fewer of a small folder of one's own, or 16 windows of text."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between two evaluations; null for each end of an epoch, or every few epochs if they are short."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two checkpoints."""
    max_modules: Annotated[int, Field(ge=1)] = MAX_MODULES
    """How many modules the network may have; more are refused before any is made."""
    max_weights: Annotated[int, Field(ge=1)] | None = None
    """How many entries the weights may have together; null for as many as memory holds."""
    tensorboard: bool = False
    """Whether to write event files for TensorBoard too; needs the extra `tensorboard`."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = 1
    """Threads of torch on the CPU; null for torch's own number. Another number rounds differently."""
    device: str = "cpu"
    """The device that the run computes on: cpu, cuda, cuda:1, …. The run repeats bit for bit on the CPU only."""
    parallel: Parallel = "none"
    """How the processes of torchrun share the network: ddp for whole copies, fsdp for shards, none for one process."""

    @field_validator("format", mode="before")
    @classmethod
    def _same_format(cls, value: object) -> object:
        if value != FORMAT or isinstance(value, bool):
            raise refused(
                f"must be {FORMAT}", "Read it with the version of the library that wrote it."
            )
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise refused(
                "must be cpu or cuda", "Write cpu, or cuda, or a numbered device as cuda:0."
            )
        return device

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.model is not None and self.network is not None:
            raise SpecError(
                "model",
                "must be null where a network is written out",
                repr(self.model.name),
                "Leave model out, or set network to null.",
            )
        return self

    @model_validator(mode="after")
    def _fill_defaults(self) -> Self:
        self._fill(examples=None)
        return self

    def _fill(self, examples: int | None) -> None:
        """Fill in the rate and the batch, if they are not set, from the model and the data."""
        model, usual = self.usual_model, self.data.usual(examples)
        if isinstance(self.optimizer, SteepestDescentSpec) and model is not None:
            vars(self)["optimizer"] = with_defaults(self.optimizer, lr=RATES[model.name])
        if usual is not None and "batch_size" not in self.model_fields_set:
            vars(self)["batch_size"] = usual.batch_size

    @property
    def usual_model(self) -> ModelSpec | None:
        """The model of this run; None if its network is written out, or its images have not been read."""
        if self.network is not None or self.model is not None:
            return self.model
        return _model_of(self.data.usual())

    def with_data(self, data: DataSpec, *, examples: int) -> Self:
        """This run with what is now known of its data; the values that nobody has set follow from them."""
        known = self.model_copy(update={"data": data})
        known._fill(examples)
        return known

    def origin_of_rate(self) -> str | None:
        """A sentence about a learning rate that nobody has set; None if somebody has."""
        if "lr" in self.optimizer.model_fields_set:
            return None
        name, model = self.optimizer.name, self.usual_model
        if not isinstance(self.optimizer, SteepestDescentSpec):
            return f"the default of {name}"
        if model is None:
            return f"the default of {name} for a network that is written out"
        scale = getattr(model, "logit_scale", None)
        scaled = "" if scale is None else f", whose outputs are scaled by {scale:g}"
        return f"the default of {name} for {model.name}{scaled}"

    def resolved(self, in_features: int | None = None, classes: int | None = None) -> Self:
        """This run with its network written out in full, checked against the data.

        Build the network of the resolved run: its weights are drawn in the order that the resolved run
        writes down.

        Args:
            in_features: the number of features of the data; that of the named data set by default.
            classes: the number of its classes; that of the named data set by default.

        Raises:
            ArgumentError: the network cannot be built.
            SpecError: it is larger than the run allows, does not take the data's features or does
                not give one output a class.
        """
        sizes = self.data.sizes
        if in_features is not None and classes is not None:
            image = sizes.image if sizes and sizes.in_features == in_features else None
            sizes = Sizes(in_features, classes, image)
        if sizes is None:
            raise SpecError(
                f"data.{self.data.unread}",
                "must be known for the sizes of the network",
                "null",
                "Train first and pass the run.yaml of the run directory, or write them down.",
            )
        net = self._built_without_weights(sizes)
        for name, space, size in zip(
            ("in_features", "out_features"), (net.source, net.target), sizes[:2], strict=True
        ):
            seen = space.size if isinstance(space, Space) else space
            if isinstance(space, Space | ProductSpace) and seen != size:
                raise SpecError(
                    f"network ({name})",
                    f"must be {size} for the data set {self.data.name}",
                    seen,
                    "Change the size, or leave network out for the data set's own.",
                )
        # With the rate and the batch as values that are set: the model that they followed from is gone.
        settled = {
            "model": None,
            "network": NetworkSpec.from_module(net),
            "optimizer": self.optimizer.model_copy(update={"lr": self.optimizer.lr}),
            "batch_size": self.batch_size,
        }
        return self.model_copy(update=settled)

    @property
    def limits(self) -> Limits:
        """The largest network that this run may have."""
        return Limits(self.max_modules, self.max_weights)

    def _built_without_weights(self, sizes: Sizes) -> Module:
        if self.network is not None:
            self.network.check_size(self.limits, "network")
            return self.network.build_without_weights("network")
        model = self.usual_model
        assert model is not None, "the sizes of the data are known"
        with without_weights():
            net = model.build(sizes, limits=self.limits)
        self.limits.check_weights(weights_of(net).weights, "model")
        return net

    def with_absolute_path(self) -> Self:
        """This run with the path of its data written from the root, so that it is found from any folder."""
        return self.model_copy(update={"data": self.data.with_absolute_path()})

    def override(self, assignments: Sequence[str]) -> Self:
        """This run with `key=value` assignments applied, such as `optimizer.lr=0.3`.

        Keys are dotted, lists by index; values are YAML. Naming another optimiser, model or type first
        drops what the old one had, so that the new one starts from its own defaults. A key below `model`
        starts from the data set's own model if none was given, one below `network` from the model's network.

        Raises:
            SpecError: a key is not known, or a value is out of range.
        """
        steps = [parse_assignment(each) for each in assignments]
        first = [each for each in steps if each.comes_first]
        start = self._assigned([each for each in first if each.below("data")])
        if start.model is None and any(each.below("model") for each in steps):
            start = start._with_a_model(first)
        into_network = [each for each in steps if each.below("network") and each not in first]
        others = [each for each in steps if each not in first and each not in into_network]
        # Validated in between: a new optimiser fills in its own defaults, which later keys may lead through.
        named = start._assigned(first)._assigned(others)
        if into_network and named.network is None:
            named = named.resolved()
        return named._assigned(into_network)

    def _with_a_model(self, assignments: Sequence[Assignment]) -> Self:
        """This run with its usual model written down, so that keys lead into it."""
        usual = _model_of(self.data.usual())
        if usual is not None:
            return self.model_copy(update={"model": usual})
        named = [Assignment("model", each.value) for each in assignments if each.below("model")]
        if not named:
            raise SpecError(
                "model.name",
                "must be given for images whose size decides the network",
                "nothing",
                "Name mlp, residual-mlp or convnet.",
            )
        return self._assigned(named)

    def _assigned(self, assignments: Sequence[Assignment]) -> Self:
        data = self.model_dump(mode="json")
        assign_(data, assignments)
        named = {each.key for each in assignments}
        # A value that nobody has set follows from the new model and data.
        if "batch_size" not in self.model_fields_set | named:
            del data["batch_size"]
        if "lr" not in self.optimizer.model_fields_set and not named & {
            "optimizer",
            "optimizer.lr",
        }:
            data["optimizer"].pop("lr", None)
        return type(self).model_validate(data)


def _model_of(usual: Usual | None) -> ModelSpec | None:
    """The model of data that have been read, or that are always known."""
    return None if usual is None else SPECS[usual.model["name"]].model_validate(usual.model)
