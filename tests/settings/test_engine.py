"""The `engine:` block: what goes together, and the engine process's variables."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from quarterdeck.settings.engine import EngineConfig, EngineDoorSettings
from quarterdeck.settings.environment import Environment

ADAPTER = {"name": "pirate", "source": "./pirate"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"args": {"quantization": "awq"}}, "args.quantization is set by its own field: use quantization instead"),
        ({"args": {"model": "x"}}, "use source instead"),
        ({"adapters": [ADAPTER]}, "max_adapters is 0: set it to 1 or more"),
        ({"adapters": [ADAPTER, ADAPTER], "max_adapters": 2}, "duplicate adapter 'pirate'"),
        ({"adapters": [ADAPTER], "max_adapters": 1, "task": "embed"}, "adapters are for models that generate"),
        ({"quantization": "bitsandbytes", "dtype": "float32"}, "bitsandbytes requires dtype bfloat16"),
        ({"quantization": "awq", "source": "packaged:a"}, "awq requires weights made for it"),
        ({"task": "embed", "tool_parser": "hermes"}, "tool_parser is for models that generate"),
        ({"autoscaling": {"min_replicas": 2}}, r"max_replicas \(1\) is less than min_replicas \(2\)"),
        ({"autoscaling": {"max_ongoing_requests": 8}}, "replicas would reject requests before another one is added"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineConfig.model_validate({"source": "a", **fields})


@pytest.mark.parametrize(
    ("source", "is_packaged", "is_folder"),
    [("packaged:a", True, False), ("org/model", False, False), ("./a", False, True), ("/a", False, True)],
)
def test_a_source_is_packaged_a_folder_or_a_hub_id(source: str, is_packaged: bool, is_folder: bool) -> None:
    config = EngineConfig(source=source)
    assert (config.is_packaged, config.is_folder) == (is_packaged, is_folder)


def read(**variables: str) -> EngineDoorSettings:
    return EngineDoorSettings.read(Environment.read({"HOME": "/h", "QUARTERDECK_STATE": "/s", **variables}))


def test_the_defaults_are_a_local_ray_on_loopback() -> None:
    settings = read()
    assert settings.is_loopback
    assert (settings.drain_seconds, settings.stop_seconds) == (20, 2)
    assert settings.adapter_roots[0] == Path("/s")
    assert not read(RAY_ADDRESS="ray://h").is_loopback
    assert not read(QUARTERDECK_ENGINE_HOST="0.0.0.0").is_loopback


def test_variables_replace_the_defaults() -> None:
    settings = read(QUARTERDECK_ENGINE_DRAIN_SECONDS="1.5", QUARTERDECK_ADAPTER_ROOTS="/a:/b")
    assert (settings.drain_seconds, settings.adapter_roots) == (1.5, (Path("/a"), Path("/b")))
    with pytest.raises(ValueError, match="QUARTERDECK_ENGINE_STOP_SECONDS must be a number of seconds, not 'inf'"):
        read(QUARTERDECK_ENGINE_STOP_SECONDS="inf")
