"""`/admin/prometheus/targets`: the engines' metrics, for Prometheus' `http_sd_configs`.

Replicas of Ray Serve come and go on ports of their own, so their addresses can't be in a file.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Response

from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.inference.endpoints.endpoint import EndpointSpec
from quarterdeck.net.http_origin import Origin
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/prometheus")


@router.get("/targets")
async def list_scrape_targets(parts: PartsDep, admin: AdminDep) -> Response:
    """The addresses of all vLLM endpoints, in the form of Prometheus' HTTP service discovery, for admins of the
    platform. Labels: `model` and `endpoint`."""
    if admin.org != DEFAULT_ORG:
        raise PermissionDeniedError(
            "The addresses of endpoints can only be read by admins of the platform.", code="platform_admin_required"
        )
    return json_response(targets(endpoint.spec for endpoint in parts.endpoints.all()))


def targets(endpoints: Iterable[EndpointSpec]) -> list[dict[str, Any]]:
    """One group per server: several models may be behind one address."""
    groups: dict[str, dict[str, Any]] = {}
    for spec in endpoints:
        if spec.kind != "vllm" or not spec.url:  # without a URL, it has not started
            continue
        origin = Origin.parse(spec.url)
        labels = {
            "__scheme__": "https" if origin.tls else "http",
            "__metrics_path__": f"{origin.prefix}/metrics",
            "model": spec.model,
            "endpoint": spec.id,
        }
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        groups.setdefault(spec.url, {"targets": [f"{host}:{origin.port}"], "labels": labels})
    return list(groups.values())
