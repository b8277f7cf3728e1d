"""A model's simulated engine, from its configuration and the options of the command line. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.options import from_mapping, list_options


def engine_config(model: Desired, base: SimulatorConfig) -> SimulatorConfig:
    """`engine.args` may hold options of the simulator; those of vLLM are ignored. Raises ValueError."""
    engine = model.engine
    known = {field.encode_name for field in msgspec.structs.fields(SimulatorConfig)}
    lists = list_options()
    options: dict[str, Any] = {}
    for given, value in engine.args.items():
        name = given.replace("_", "-")
        if name in known:
            options[name] = [value] if name in lists and not isinstance(value, list | tuple) else value
    changes: dict[str, Any] = {
        "model": model.name,
        "served_model_name": [],
        "more_models": [],
        "embedding_model": [],
        "task": engine.task,
        "max_loras": max(1, engine.max_adapters),
        "endpoint_id": "",
    }
    if engine.context is not None:
        changes["max_model_len"] = engine.context
        changes["kv_cache_size"] = max(base.kv_cache_size, -(-engine.context // base.block_size))
    return from_mapping(options, msgspec.structs.replace(base, **changes))


def adapter_sources(model: Desired) -> Mapping[str, str]:
    """The adapters of the configuration, by name."""
    return {adapter.name: adapter.source for adapter in model.engine.adapters}
