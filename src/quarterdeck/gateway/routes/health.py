"""`/healthz`, `/readyz` and `/metrics`: for probes and scrapers, without a key."""

from fastapi import APIRouter, Response

from quarterdeck.gateway.dependencies import PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.telemetry.metrics import CONTENT_TYPE

router = APIRouter()


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def retrieve_health() -> Response:
    """Liveness: the process responds. Checks no dependency, because a restart would not repair one."""
    return json_response({"status": "ok"})


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def retrieve_readiness(parts: PartsDep) -> Response:
    """Readiness: 200 if this gateway can serve requests, else 503; with the state of each part and model."""
    report = await parts.readiness.held_report()
    return json_response(report.as_dict(), 200 if report.is_ready else 503)


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def retrieve_metrics(parts: PartsDep) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(parts.metrics.scrape(), media_type=CONTENT_TYPE)
