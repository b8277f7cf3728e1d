"""Models as the admin API shows them. Pure."""

from collections.abc import Mapping
from typing import Any

from quarterdeck.settings.config import Config
from quarterdeck.settings.models import ModelConfig


def model_object(model: ModelConfig, config: Config, state: Mapping[str, Any]) -> dict[str, Any]:
    """`state`: what is known of it while it runs. No header or key of an endpoint is part of it."""
    engine = model.engine
    made: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "managed_by": "api" if model.name in config.added_models else "config",
        "aliases": list(model.aliases),
        "stopped": model.stopped,
    }
    if engine is not None:
        made |= {
            "source": engine.source,
            "revision": engine.revision,
            "task": engine.task,
            "quantization": engine.quantization,
            "dtype": engine.dtype,
            "context": engine.context,
            "adapters": [adapter_object(model, config, each.name) for each in engine.adapters],
            "max_adapters": engine.max_adapters,
            "accelerator": engine.accelerator,
            "min_replicas": engine.autoscaling.min_replicas,
            "max_replicas": engine.autoscaling.max_replicas,
            "args": engine.args,
        }
    made["endpoints"] = [each.base_url for each in model.endpoints]
    made["serves"] = list(model.serves)
    return {**made, **{name: value for name, value in state.items() if value is not None and made.get(name) is None}}


def adapter_object(model: ModelConfig, config: Config, name: str) -> dict[str, Any]:
    adapters = model.engine.adapters if model.engine else ()
    source = next((each.source for each in adapters if each.name == name), None)
    managed_by = "api" if model.name in config.added_models else "config"
    return {"id": name, "object": "adapter", "model": model.name, "source": source, "managed_by": managed_by}
