"""`/healthz`, `/readyz` and `/metrics`: for probes and scrapers, without an API key.

A page that a user of this machine visits can read what loopback answers without a key, through a DNS name of its own
that resolves to 127.0.0.1 (DNS rebinding). Only the Host header shows that. So on loopback a request with another name
than `localhost` is told whether the gateway is ready, which a proxy on this machine may ask for, and nothing else.
"""

import hmac

from fastapi import APIRouter, Request, Response

from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.auth.decision import incorrect_key, secret_of
from quarterdeck.gateway.dependencies import Parts, PartsDep
from quarterdeck.gateway.http.credentials import credential
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.net.browser_guard import is_local_host
from quarterdeck.telemetry.metrics import CONTENT_TYPE

router = APIRouter()


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def retrieve_health() -> Response:
    """Liveness: the process responds. Checks no dependency, because a restart would not repair one."""
    return json_response({"status": "ok"})


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def retrieve_readiness(request: Request, parts: PartsDep) -> Response:
    """Readiness: 200 if this gateway can serve requests, else 503; with the state of each part and model."""
    report = await parts.readiness.held_report()
    shown = {"status": report.status} if _is_foreign(request, parts) else report.as_dict()
    return json_response(shown, 200 if report.is_ready else 503)


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def retrieve_metrics(request: Request, parts: PartsDep) -> Response:
    """Metrics in Prometheus' text format. With QUARTERDECK_METRICS_TOKEN, that bearer token is needed."""
    if parts.metrics_token is not None:
        secret = secret_of(credential(request.scope["headers"]))
        if not hmac.compare_digest(secret, parts.metrics_token.encode()):
            raise incorrect_key()
    elif _is_foreign(request, parts):
        raise PermissionDeniedError(
            "On loopback, the Host header of this route must be an IP address or localhost.", code="host_not_allowed"
        )
    return Response(parts.metrics.scrape(), media_type=CONTENT_TYPE)


def _is_foreign(request: Request, parts: Parts) -> bool:
    host = request.headers.get("host")
    return parts.is_loopback and host is not None and not is_local_host(host.encode("latin-1"))
