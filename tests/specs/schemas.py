"""The JSON Schemas of networks and runs."""

from __future__ import annotations

import jsonschema

from modular_manifolds.specs import NetworkSpec, RunSpec

NETWORK_SCHEMA = jsonschema.Draft202012Validator(NetworkSpec.model_json_schema())
RUN_SCHEMA = jsonschema.Draft202012Validator(RunSpec.model_json_schema())
