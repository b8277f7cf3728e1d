"""`/healthz`, `/readyz`, `/metrics`: for probes and scrapers, without a key."""

from fastapi import APIRouter, Response

from quarterdeck.gateway.dependencies import PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.telemetry.metrics import CONTENT_TYPE

router = APIRouter()


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def retrieve_health() -> Response:
    """The process runs and its loop turns. It asks nobody else: a restart would mend nothing of theirs."""
    return json_response({"status": "ok"})


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def retrieve_readiness(parts: PartsDep) -> Response:
    """200 where requests should be sent here, 503 where not; part by part and model by model, what is not ready."""
    report = await parts.readiness.report()
    return json_response(report.as_dict(), 200 if report.is_ready else 503)


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def retrieve_metrics(parts: PartsDep) -> Response:
    """Prometheus' text."""
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE)
