"""Training: data, the loop, checkpoints, figures and the report."""

from modular_manifolds.training.data import DataSet as DataSet
from modular_manifolds.training.data import load_data as load_data
from modular_manifolds.training.loop import Trainer as Trainer
from modular_manifolds.training.loop import resume as resume
from modular_manifolds.training.loop import start as start
from modular_manifolds.training.run_directory import RunDirectory as RunDirectory
from modular_manifolds.training.session import Session as Session
from modular_manifolds.training.split import Split as Split
