"""The table of mistakes in runs and networks, each with its message."""

from __future__ import annotations

from modular_manifolds.specs.table import COMPOUNDS, MODULES

LINEAR = {"type": "linear", "in_features": 3, "out_features": 3}

RUN_ERRORS = [
    ({"epochs": 0}, "epochs must be at least 1, got 0. Choose a larger value."),
    (
        {"epochs": 2.5},
        "epochs must be a whole number, got 2.5. Write it without quotes and without a point.",
    ),
    (
        {"epochs": True},
        "epochs must be a whole number, got True. Write it without quotes and without a point.",
    ),
    (
        {"epochs": "3"},
        "epochs must be a whole number, got '3'. Write it without quotes and without a point.",
    ),
    ({"batch_size": -1}, "batch_size must be at least 1, got -1. Choose a larger value."),
    ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0. Choose a larger value."),
    ({"seed": -1}, "seed must be at least 0, got -1. Choose a larger value."),
    (
        {"format": 2},
        "format must be 1, got 2. Read it with the version of the library that wrote it.",
    ),
    (
        {"format": True},
        "format must be 1, got True. Read it with the version of the library that wrote it.",
    ),
    (
        {"schedule": "linaer"},
        "schedule must be 'linear', 'cosine' or 'constant', got 'linaer'. Did you mean 'linear'? "
        "Known here: linear, cosine, constant.",
    ),
    (
        {"data": {"name": "cifar"}},
        "data.name must be a known name, got 'cifar'. Did you mean 'cifar10'? "
        "Known here: digits, cifar10, images, text.",
    ),
    ({"data": {"name": "cifar10", "path": 3}}, "data.path must be text, got 3. Put it in quotes."),
    ({"data": "digits"}, "data must be a mapping, got 'digits'. Write it as key: value."),
    (
        {"optimizer": {"lr": 0.1}},
        "optimizer.name must be given, got nothing. Say which kind is wanted.",
    ),
    (
        {"optimizer": {"name": "muon", "lr": 0}},
        "optimizer.lr must be greater than 0, got 0. Choose a larger value.",
    ),
    (
        {"optimizer": {"name": "muon", "lr": float("inf")}},
        "optimizer.lr must be finite, got inf. Write an ordinary number.",
    ),
    (
        {"optimizer": {"name": "muon", "momentum": 1}},
        "optimizer.momentum must be less than 1, got 1. Choose a smaller value.",
    ),
    (
        {"optimizer": {"name": "muon", "nesterov": 1}},
        "optimizer.nesterov must be true or false, got 1. Write true or false without quotes.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9, 1.5]}},
        "optimizer.betas.1 must be less than 1, got 1.5. Choose a smaller value.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": 0.9}},
        "optimizer.betas must be a list, got 0.9. Write it as [first, second].",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9, 0.9, 0.9]}},
        "optimizer.betas must hold at most 2, got [0.9, 0.9, 0.9]. Take some away.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9]}},
        "optimizer.betas.1 must be given, got nothing. Add it.",
    ),
    (
        {"optimizer": {"name": "steepest-descent", "momentum": 0}},
        "optimizer.nesterov must be false if momentum is 0, got True. "
        "Write nesterov: false too, or a momentum such as 0.9.",
    ),
    (
        {"optimizer": {"name": "steepest-descent", "solver": "skew-sing"}},
        "optimizer.solver must be a known solver, got 'skew-sing'. Did you mean 'skew-sign'? Known here: "
        "auto, norm-steepest, tangent-gradient, weighted-median, spectral-sphere-dual, "
        "row-tangent-gradient, skew-sign.",
    ),
    (
        {"optimizer": {"name": "adamw", "momentum": 0.9}},
        "optimizer.momentum must be a known key, got 'momentum'. "
        "Known here: name, lr, betas, eps, weight_decay.",
    ),
    (None, "the specification must be a mapping, got None. Write it as key: value."),
    (["epochs"], "the specification must be a mapping, got ['epochs']. Write it as key: value."),
]

KINDS = ", ".join([*MODULES, *COMPOUNDS, "power"])
NETWORK_ERRORS = [
    (
        "rellu",
        f"type must be a known name, got 'rellu'. Did you mean 'relu'? Known here: {KINDS}.",
    ),
    (3, "must be a mapping or a name, got 3. Write a mapping with a type, or the type alone."),
    ({"in_features": 3}, "type must be given, got nothing. Say which kind is wanted."),
    ("linear", "in_features must be given, got nothing. Add it."),
    (
        {**LINEAR, "in_feature": 3},
        "in_feature must be a known key, got 'in_feature'. Did you mean 'in_features'? Known here: "
        "type, in_features, out_features, manifold, norm, mass, source_norm, target_norm.",
    ),
    (
        {"type": "relu", "relu": 3},
        "relu must be a known key, got 'relu'. Known here: type.",
    ),
    (
        {"type": "series", "modules": ["relu", {**LINEAR, "manifold": {"type": "stifel"}}]},
        "modules.1.manifold.type must be a known name, got 'stifel'. Did you mean 'stiefel'? "
        "Known here: euclidean, sphere, oblique, balanced_rows, stiefel, fixed_gram, "
        "spectral_ball, spectral_sphere.",
    ),
    (
        {"type": "series", "modules": ["relu", {**LINEAR, "norm": "spectre"}]},
        "modules.1.norm.type must be a known name, got 'spectre'. Did you mean 'spectral'? "
        "Known here: frobenius, max, spectral, rms_operator, row_rms.",
    ),
    (
        {"type": "sum", "modules": [{**LINEAR, "manifold": {"type": "stiefel", "radius": "1"}}]},
        "modules.0.manifold.radius must be a number, got '1'. Write it without quotes, such as 0.1.",
    ),
    (
        # Names that are types or fields as well do not confuse the path.
        {"type": "series", "modules": {"linear": {**LINEAR, "linear": 1}}},
        "modules.linear.linear must be a known key, got 'linear'. Known here: "
        "type, in_features, out_features, manifold, norm, mass, source_norm, target_norm.",
    ),
    (
        {
            "type": "series",
            "modules": {"name": "scale", "scale": {"type": "scale", "module": "relu"}},
        },
        "modules.name.module must be given, got nothing. Add it.",
    ),
    (
        {"type": "sum", "modules": {"name": "relu", "relu": {"type": "scale", "module": "relu"}}},
        "modules.relu.factor must be given, got nothing. Add it.",
    ),
    (
        {"type": "scale", "module": {"type": "scale", "module": "relu"}, "factor": 2},
        "module.factor must be given, got nothing. Add it.",
    ),
    (
        {"type": "scale", "module": {"type": "power", "module": "relu", "times": 0}, "factor": 2},
        "module.times must be at least 1, got 0. Choose a larger value.",
    ),
    (
        {"type": "series", "modules": "relu"},
        "modules must be a list of modules or a mapping from names to modules, got 'relu'. "
        "Write one module a line, each beginning with '- '.",
    ),
    (
        {"type": "series", "modules": []},
        "modules must hold at least 1, got []. Add what is missing.",
    ),
    (
        {"type": "series", "modules": {"a.b": "relu"}},
        "modules.a.b must be a name without dots, got 'a.b'. A module's name becomes part of a dotted path.",
    ),
]
