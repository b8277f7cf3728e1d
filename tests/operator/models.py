"""Models for tests, as the API server returns them."""

import copy
from typing import Any

from quarterdeck.kube.resources.model import Model

UID = "0b0e6c8a-5a4e-4b0a-9d7e-3f1c2d4e5f60"

_GPU_SPEC: dict[str, Any] = {
    "servedName": "Qwen/Qwen3-8B",
    "source": {
        "uri": "hf://Qwen/Qwen3-8B",
        "revision": "main",
        "secretRef": {"name": "hub", "key": "token"},
        "cache": {"mode": "pvc", "size": "50Gi", "storageClass": "fast"},
    },
    "engine": {"type": "vllm", "args": {"gpu_memory_utilization": 0.85, "enable_prefix_caching": True}},
    "quantization": {"method": "fp8"},
    "context": 32768,
    "resources": {"accelerator": "h100", "tensorParallel": 2, "cpu": "8", "memory": "64Gi"},
    "scaling": {"min": 1, "max": 4},
    "adapters": {"max": 4, "maxRank": 32},
    "toolParser": "hermes",
    "chatTemplate": "{{ messages }}",
    "rollout": {"drainSeconds": 90},
    "backend": "Deployment",
}


def sim_spec(**more: Any) -> dict[str, Any]:
    """The spec of a Model with the simulated engine."""
    return {"engine": {"type": "sim"}, "backend": "Deployment", **more}


def gpu_spec(**more: Any) -> dict[str, Any]:
    """The spec of a Model that uses most fields."""
    return {**copy.deepcopy(_GPU_SPEC), **more}


def body(
    name: str = "tiny", *, generation: int = 1, status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A Model object; without a spec, one with the simulated engine."""
    return {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "Model",
        "metadata": {
            "name": name,
            "namespace": "models",
            "uid": UID,
            "generation": generation,
            "resourceVersion": str(generation),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec or sim_spec(),
        **({"status": status} if status is not None else {}),
    }


def model(name: str = "tiny", *, status: dict[str, Any] | None = None, **spec: Any) -> Model:
    return Model.parse(body(name, status=status, **spec))
