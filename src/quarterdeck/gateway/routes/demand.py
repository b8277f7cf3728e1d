"""`/demand`: what is asked of each model, for the operator.

It needs the operator's token instead of an API key, as the operator has to see demand while the database is away, and
works during a drain. Without a token in the environment there is no such route.
"""

import hmac
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from quarterdeck.errors import NotFoundError
from quarterdeck.gateway.auth.decision import incorrect_key, secret_of
from quarterdeck.gateway.cluster.demand import MAX_WAIT_SECONDS
from quarterdeck.gateway.dependencies import PartsDep
from quarterdeck.gateway.http.credentials import credential
from quarterdeck.gateway.http.responses import json_response

router = APIRouter()


@router.get("/demand")
async def retrieve_demand(
    request: Request,
    parts: PartsDep,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0,
    after: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Requests in flight and waiting, and counters since the gateway's start, by model. With `wait`, seconds, the
    answer comes as soon as `version` is greater than `after`: it grows when a request begins to wait for a model
    without a replica."""
    demand = parts.demand
    if demand is None:
        raise NotFoundError("Unknown request URL. Please check it for typos.", code="unknown_url")
    secret = secret_of(credential(request.scope["headers"]))
    if not hmac.compare_digest(secret, demand.token.encode()):
        raise incorrect_key()
    if wait:
        await demand.counts.changed(after, wait)
    return json_response(demand.counts.report())
