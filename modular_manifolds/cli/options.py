"""The parts that several subcommands share: the arguments, whose default None is the subcommand's own, and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from modular_manifolds.specs.data import DataName

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as a shell's: 128 and the signal's number."""

RunFile = Annotated[
    Path | None, typer.Argument(help="A run file (YAML or JSON); the default run without it.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one value, as optimizer.lr=0.3; repeatable."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(get_args(DataName)), help="The data set; the bundled digits by default."
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|FILE|hf:NAME",
        help="Your images or text: a folder, a file, or a data set of the Hugging Face hub; "
        "or the folder with CIFAR-10's Parquet files, which are downloaded without it.",
    ),
]
