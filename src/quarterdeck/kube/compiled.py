"""The documents that the operator writes into the configuration's ConfigMap and that gateways and the worker read.

* `quarterdeck.yaml`  the configuration, `settings.config.Config`
* `engines.json`      `EngineIndex`: what a gateway must know of engines beyond the configuration

Both are gzipped in `binaryData` when they are large. Equal inputs have equal bytes, so that the ConfigMap changes only
when something changed.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from quarterdeck.kube.names import CONFIG_KEY, ENGINES_KEY, MAX_PLAIN_BYTES
from quarterdeck.settings.files import read_file

MAX_BYTES = 16 * 1024 * 1024
"""Of an unpacked document."""
EMPTY_INDEX = "{}"

EngineState = Literal["Serving", "Zero", "Suspended", "Starting", "Failed"]


def _known(state: Any) -> Any:
    return state if state in get_args(EngineState) else "Starting"


class _Document(BaseModel):
    """Unknown members are ignored: a gateway reads what a newer operator writes."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class AdapterEntry(_Document):
    """An adapter of an engine."""

    engine_name: str
    """The name by which the engine knows it."""
    pods: tuple[str, ...] = ()
    """Pods on which it is loaded and was probed; only these serve it."""


class EngineEntry(_Document):
    """The engine of a Model, or of one revision of it while a canary runs."""

    object: str
    """Name of the Model object: the label `quarterdeck.dev/model` of its EndpointSlices."""
    revision: str | None = None
    """Only endpoints with this label `quarterdeck.dev/revision` belong to the entry. None: all."""
    model: str
    """Public name in `quarterdeck.yaml`; `name@revision` while a canary runs."""
    engine_name: str | None = None
    """The name by which the engine serves the model. None: `model`."""
    version: str = ""
    """Fingerprint of the weights. Endpoints of equal versions may resume each other's streams. Empty: unknown."""
    task: Literal["generate", "embed"] = "generate"
    """What the engine does."""
    max_running: int = Field(default=64, ge=1)
    """Requests that one replica runs at once."""
    adapters: dict[str, AdapterEntry] = Field(default_factory=dict)
    """Adapters by public name."""
    failed_adapters: dict[str, str] = Field(default_factory=dict)
    """Adapters that no replica can load, with the reason."""
    state: Annotated[EngineState, BeforeValidator(_known)] = "Starting"
    """Zero: no replica, the next request starts one. Suspended: none, and none will start. A state that this version
    does not know is read as Starting."""
    detail: str = ""
    """Why it does not serve, in a sentence for a client's error message."""


class EngineIndex(_Document):
    """`engines.json`."""

    engines: dict[str, EngineEntry] = Field(default_factory=dict)
    """Entries by `object`, or `object@revision` while a canary runs."""

    def encode(self) -> str:
        """JSON with sorted members."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "EngineIndex":
        """Raises ValueError for text that is no index."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(f"{ENGINES_KEY} is invalid: {error.errors(include_url=False)[0]['msg']}") from error


@dataclass(frozen=True, slots=True)
class Documents:
    """Both documents as text."""

    config: str
    """`quarterdeck.yaml`."""
    engines: str
    """`engines.json`."""


def to_config_map(documents: Documents) -> dict[str, Any]:
    """`data` and `binaryData` of the ConfigMap."""
    texts = {CONFIG_KEY: documents.config, ENGINES_KEY: documents.engines}
    if sum(len(text.encode()) for text in texts.values()) <= MAX_PLAIN_BYTES:
        return {"data": texts}
    return {
        "binaryData": {
            f"{key}.gz": base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode() for key, text in texts.items()
        }
    }


def from_config_map(config_map: Mapping[str, Any]) -> Documents:
    """The documents of a ConfigMap as the API returns it. Raises ValueError where the configuration is missing, or one
    is damaged. A ConfigMap written by hand, without an operator, has no engines."""
    config = _text(config_map, CONFIG_KEY)
    if config is None:
        raise ValueError(f"the ConfigMap has no {CONFIG_KEY}")
    return Documents(config=config, engines=_text(config_map, ENGINES_KEY) or EMPTY_INDEX)


def from_folder(folder: Path) -> Documents | None:
    """The documents of a ConfigMap that is mounted as a folder. None: it was mounted before it existed. Raises
    ValueError and OSError."""
    config = _file(folder, CONFIG_KEY)
    return None if config is None else Documents(config=config, engines=_file(folder, ENGINES_KEY) or EMPTY_INDEX)


def _text(config_map: Mapping[str, Any], key: str) -> str | None:
    plain = (config_map.get("data") or {}).get(key)
    if plain is not None:
        return str(plain)
    packed = (config_map.get("binaryData") or {}).get(f"{key}.gz")
    if packed is None:
        return None
    try:
        return _unpacked(base64.b64decode(packed, validate=True))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"{key}.gz of the ConfigMap is damaged: {error}") from error


def _file(folder: Path, key: str) -> str | None:
    try:
        return read_file(folder / key, MAX_BYTES).decode()
    except FileNotFoundError:
        pass
    try:
        return _unpacked(read_file(folder / f"{key}.gz", MAX_BYTES))
    except FileNotFoundError:
        return None
    except zlib.error as error:
        raise ValueError(f"{folder / key}.gz is damaged: {error}") from error


def _unpacked(packed: bytes) -> str:
    """Raises zlib.error and ValueError. Bounded: a megabyte can stand for a gigabyte."""
    stream = zlib.decompressobj(wbits=31)
    text = stream.decompress(packed, MAX_BYTES)
    if stream.unconsumed_tail or not stream.eof:
        raise ValueError(f"truncated, or more than {MAX_BYTES} bytes")
    return text.decode()
