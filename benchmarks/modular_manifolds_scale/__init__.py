"""Scale: the seconds of an optimiser step on many ranks, computed from stated inputs; nothing is measured."""

from modular_manifolds_scale.machine import MACHINES as MACHINES
from modular_manifolds_scale.machine import Machine as Machine
from modular_manifolds_scale.machine import Seconds as Seconds
from modular_manifolds_scale.models import MODELS as MODELS
from modular_manifolds_scale.models import Model as Model
from modular_manifolds_scale.models import build_model as build_model
from modular_manifolds_scale.ways import WAYS as WAYS
from modular_manifolds_scale.ways import Step as Step
