"""One object as an entry of quarterdeck.yaml."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.embedded import EndpointSpec, SecretKeyRef
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.route import ModelRoute
from quarterdeck.kube.resources.team import Team
from quarterdeck.kube.resources.texts import hub_id
from quarterdeck.kube.shape import to_settings
from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.engine import AdapterConfig, EngineConfig
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.models import EndpointConfig, ModelConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.routes import (
    Fallback,
    HealthCheck,
    MirrorConfig,
    RouteConfig,
    RouteTimeouts,
    RoutingConfig,
    Target,
)
from quarterdeck.settings.tenancy import TeamConfig

MAX_RUNNING = 64
"""Requests that a replica runs at once where its arguments don't say."""
MAX_KEY_NAME = 200
"""Characters of a key of a Secret (of 253) before its name is shortened to a hash."""


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """An API key of an external endpoint, which the operator copies into the Secret that gateways mount."""

    secret: str
    """Secret in the objects' namespace."""
    key: str
    """Key within that Secret."""

    @classmethod
    def of(cls, ref: SecretKeyRef) -> "EndpointKey":
        return cls(ref.name, ref.key)

    @property
    def file(self) -> str:
        """Its key in the gateways' Secret, and so its file's name. The underscore is in no Secret's name."""
        name = f"{self.secret}_{self.key}"
        return name if len(name) <= MAX_KEY_NAME else hashlib.sha256(name.encode()).hexdigest()


def endpoint_keys(models: Iterable[Model]) -> tuple[EndpointKey, ...]:
    """The API keys that these models' endpoints need."""
    refs = {EndpointKey.of(each.secret_ref) for model in models for each in model.spec.endpoints if each.secret_ref}
    return tuple(sorted(refs))


def model_config(
    model: Model, adapters: Iterable[ModelAdapter], keys_folder: PurePosixPath, *, name: str | None = None
) -> ModelConfig:
    """The entry of `models:`. `name`: of a revision; it has no aliases. Raises ValidationError."""
    spec = model.spec
    return ModelConfig(
        name=name or model.served_name,
        aliases=() if name else spec.aliases,
        engine=engine_config(model, adapters) if model.has_engine else None,
        endpoints=tuple(endpoint_config(each, keys_folder) for each in spec.endpoints),
        price=to_settings(spec.price, Price),
        context=spec.context,
        max_output_tokens=spec.max_output_tokens,
        image_tokens=spec.image_tokens,
        serves=spec.serves,
        max_audio_seconds=spec.max_audio_seconds,
        content=spec.content,
        too_long=spec.too_long,
        routing=to_settings(spec.routing, RoutingConfig),
        cold_wait_seconds=cold_wait_seconds(model) if model.has_engine else None,
    )


def engine_config(model: Model, adapters: Iterable[ModelAdapter] = ()) -> EngineConfig:
    """The `engine:` block of a Model, as gateways need it. Its source is a hub's id or what the spec has. Arguments and
    environment, which may hold what only the engine may know, and the chat template are not part of it. Raises
    ValidationError, also for these."""
    spec = model.spec
    names = sorted((each.served_name, each.spec.source.uri) for each in adapters)
    config = EngineConfig(
        source=hub_id(spec.source.uri) if spec.source else spec.engine.type,
        task=spec.task,
        quantization="none" if spec.quantization.method == "auto" else spec.quantization.method,
        dtype=spec.quantization.dtype,
        context=spec.context,
        adapters=tuple(AdapterConfig(name=name, source=uri) for name, uri in names),
        max_adapters=spec.adapters.max,
        max_adapter_rank=spec.adapters.max_rank,
        tensor_parallel=spec.resources.tensor_parallel,
        pipeline_parallel=spec.resources.pipeline_parallel,
        accelerator="cpu" if spec.resources.is_cpu else "gpu",
        tool_parser=spec.tool_parser,
        args=spec.engine.args,
        env=spec.engine.env,
    )
    return config.model_copy(update={"args": {}, "env": {}})


def endpoint_config(endpoint: EndpointSpec, keys_folder: PurePosixPath) -> EndpointConfig:
    """An entry of `endpoints:`; its API key is a file in `keys_folder`. Raises ValidationError."""
    own = {"api_key_env", "api_key_file", "secret_ref", "health"}
    given = endpoint.model_dump(by_alias=False, exclude_unset=True, exclude=own)
    if endpoint.secret_ref is not None:
        given["api_key_file"] = str(keys_folder / EndpointKey.of(endpoint.secret_ref).file)
    if endpoint.health is not None:
        given["health"] = to_settings(endpoint.health, HealthCheck)
    return EndpointConfig.model_validate(given)


def cold_wait_seconds(model: Model) -> float:
    """How long a request waits for the first replica."""
    cold = model.spec.scaling.cold_start
    return cold.hold_seconds if cold.mode == "Hold" else 0


def max_running(model: Model) -> int:
    """Requests that one replica of the engine runs at once."""
    given = model.spec.engine.args.get("max_num_seqs")
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else MAX_RUNNING


def weights_version(model: Model) -> str:
    """Fingerprint of the weights: engines of equal versions continue each other's answers. Empty without an engine."""
    spec = model.spec
    if not model.has_engine:
        return ""
    source = (hub_id(spec.source.uri), spec.source.revision or "") if spec.source else (model.metadata.uid, "")
    parts = (spec.engine.type, *source, spec.quantization.method, spec.quantization.dtype)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def route_config(route: ModelRoute) -> RouteConfig:
    """The entry of `routes:`, with the targets as the spec has them. Raises ValidationError."""
    spec = route.spec
    return RouteConfig(
        name=route.served_name,
        targets=tuple(to_settings(each, Target) for each in spec.targets),
        fallbacks=tuple(to_settings(each, Fallback) for each in spec.fallbacks),
        stickiness=spec.stickiness,
        routing=to_settings(spec.routing, RoutingConfig) if spec.routing else None,
        timeouts=to_settings(spec.timeouts, RouteTimeouts),
        retries=spec.retries,
        mirror=to_settings(spec.mirror, MirrorConfig) if spec.mirror else None,
        content=spec.content,
    )


def cache_policy(route: ModelRoute) -> CachePolicy | None:
    """The entry of `cache.policies:` of a route that has one. Raises ValidationError."""
    return to_settings(route.spec.cache, CachePolicy) if route.spec.cache is not None else None


def team_config(team: Team) -> TeamConfig:
    """The entry of `teams:`. Raises ValidationError."""
    spec = team.spec
    return TeamConfig(
        limits=to_settings(spec.limits, Limits),
        budget=to_settings(spec.budget, Budget) if spec.budget else None,
        priority=spec.priority,
        content=spec.content,
    )
