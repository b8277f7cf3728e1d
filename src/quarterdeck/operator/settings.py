"""The operator's configuration file (a ConfigMap of the chart, mounted) and its environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from quarterdeck.kube.reserved import Reserved

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )


class Images(_Frozen):
    """Images of the engines. A Model may name another (`spec.engine.image`)."""

    vllm: str = "docker.io/vllm/vllm-openai:v0.29.0"
    """vLLM's own server, on GPUs. Upstream's image: it is tested with the drivers that vLLM supports."""
    vllm_cpu: str = "localhost/quarterdeck-engine:dev"
    """vLLM on a CPU, behind the engine door."""
    sim: str = "localhost/quarterdeck-simulator:dev"
    """The simulated engine."""
    ray: str = "localhost/quarterdeck-engine:dev"
    """Ray Serve, vLLM and the engine door, for a RayService."""
    ray_cpu: str | None = None
    """The same with vLLM's CPU build, for Models on a CPU. None: `ray`."""
    ray_sim: str | None = None
    """The same without vLLM, for simulated engines. None: `ray`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """imagePullPolicy of engines. IfNotPresent: images are pinned, and nodes without the registry can restart."""


class Accelerator(_Frozen):
    """A profile that a Model names in `spec.resources.accelerator`."""

    resource: str = "nvidia.com/gpu"
    """Extended resource that is requested, once per GPU."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes that have it."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints of these nodes that an engine tolerates."""
    runtime_class: str | None = None
    """RuntimeClass of the pod (`nvidia`). None: the cluster's default."""


class Pod(_Frozen):
    """Defaults of engine pods."""

    cpu: str = "1"
    """CPU that an engine requests where the Model names none. One core drives vLLM's scheduler."""
    memory: str = "4Gi"
    """Memory that a vLLM engine requests where the Model names none."""
    sim_cpu: str = "50m"
    """CPU that a simulated engine requests."""
    sim_memory: str = "96Mi"
    """Memory that a simulated engine requests; its limit is four times as much."""
    start_seconds: Annotated[int, Field(ge=10)] = 3600
    """How long an engine may take to start before it is restarted. An hour: a large model is downloaded meanwhile."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of every engine pod."""
    priority_class: str | None = None
    """priorityClassName of engine pods."""


class RayDefaults(_Frozen):
    """What every RayService has."""

    token_secret: str | None = None
    """Secret whose key `auth_token` is the token of every Ray cluster. None: each Model has one of its own, so that
    code in one Model's pods can't run in another's."""
    head_cpu: str = "100m"
    """CPU that a head requests. A tenth of a core: no request passes through it, and its processes take 6–7 % of a core
    at rest."""
    head_memory: str = "1Gi"
    """Memory that a head requests; its limit is three times as much. Ray's head takes 0.8 GB."""


class ScalingDefaults(_Frozen):
    """How replicas follow demand."""

    down_seconds: Annotated[float, Field(ge=0)] = 60
    """How long fewer replicas must have been enough before one is removed. 60: longer than a lull between two turns."""
    poll_seconds: Annotated[float, Field(gt=0)] = 0.5
    """Between two reads of the gateways' demand. 0.5: a request to a model without replicas starts one within a second.
    """


class OperatorConfig(_Frozen):
    """The operator's configuration file."""

    images: Images = Images()
    """Images of engines."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets with which nodes pull engine images."""
    backend: Literal["auto", "Deployment", "RayService"] = "auto"
    """Backend of Models that do not name one. auto: RayService where KubeRay is installed and a Model spans several
    GPUs or nodes, else Deployment."""
    accelerators: dict[str, Accelerator] = Field(default_factory=dict)
    """Accelerator profiles by name. `cpu` needs none."""
    pod: Pod = Pod()
    """Defaults of engine pods."""
    ray: RayDefaults = RayDefaults()
    """RayServices."""
    scaling: ScalingDefaults = ScalingDefaults()
    """Scaling."""
    gateway_service: str = "quarterdeck-gateway"
    """Service of the gateways, whose pods are asked for demand."""
    gateway_port: str = "http"
    """Name of its port."""
    config_map: str = "quarterdeck-config"
    """ConfigMap that gateways and workers follow."""
    endpoint_keys_secret: str = "quarterdeck-endpoint-keys"  # noqa: S105 - a name
    """Secret that gateways mount, with the API keys of external endpoints."""
    reserved: Reserved = Reserved()
    """The platform's own Secrets, claims and service accounts, which Models may not name."""
    operator_deployment: str | None = None
    """The operator's own Deployment: owner of the ConfigMap, which is deleted with it. None: no owner."""
    lease: str = "quarterdeck-operator"
    """Lease that the leading operator holds."""
    base_config: dict[str, Any] = Field(default_factory=dict)
    """The chart's `config`: `quarterdeck.yaml` without models, merged with what the custom resources say."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Environment variables, and the file that one of them names."""

    namespace: str
    """QUARTERDECK_NAMESPACE: the namespace that is watched. Unset: the pod's own."""
    identity: str
    """POD_NAME, or host name and process: holder of the Lease."""
    host: str
    """QUARTERDECK_HOST: address of /healthz, /readyz and /metrics. 127.0.0.1; the image sets 0.0.0.0."""
    port: int
    """QUARTERDECK_OPERATOR_PORT, 8013."""
    token: str
    """QUARTERDECK_OPERATOR_TOKEN: bearer token for the gateways' demand. Empty: none is sent."""
    admin_key_file: Path | None
    """QUARTERDECK_BOOTSTRAP_KEY_FILE: file with the platform's admin key, by which prompts are mirrored. Unset: they
    are not."""
    log_level: str
    """QUARTERDECK_LOG_LEVEL, INFO."""
    config: OperatorConfig
    """QUARTERDECK_OPERATOR_CONFIG: path of the configuration file. Unset: the defaults."""

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read environment and file. Raises ValueError in one line."""
        variables = os.environ if variables is None else variables
        namespace = variables.get("QUARTERDECK_NAMESPACE", "")
        if not namespace and _NAMESPACE_FILE.exists():
            namespace = _NAMESPACE_FILE.read_text().strip()
        if not namespace:
            raise ValueError("QUARTERDECK_NAMESPACE is not set, and this is no pod")
        port = variables.get("QUARTERDECK_OPERATOR_PORT") or "8013"
        if not port.isdigit() or int(port) > 65535:
            hint = (
                ": Kubernetes sets it for a Service of that name; set `enableServiceLinks: false`"
                if port.startswith("tcp://")
                else ""
            )
            raise ValueError(f"QUARTERDECK_OPERATOR_PORT: '{port}' is not a port{hint}")
        config = variables.get("QUARTERDECK_OPERATOR_CONFIG", "")
        return cls(
            namespace=namespace,
            identity=variables.get("POD_NAME") or f"{os.uname().nodename}-{os.getpid()}",
            host=variables.get("QUARTERDECK_HOST") or "127.0.0.1",
            port=int(port),
            token=variables.get("QUARTERDECK_OPERATOR_TOKEN", "").strip(),
            admin_key_file=Path(path) if (path := variables.get("QUARTERDECK_BOOTSTRAP_KEY_FILE")) else None,
            log_level=variables.get("QUARTERDECK_LOG_LEVEL") or "INFO",
            config=read_config(Path(config)) if config else OperatorConfig(),
        )


def read_config(path: Path) -> OperatorConfig:
    """Read the configuration file. Raises ValueError that names file and field."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    try:
        return OperatorConfig.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where or 'the file'}: {first['msg']}") from None
