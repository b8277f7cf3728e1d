"""Calls of one endpoint, for the engine client's tests."""

from typing import Any

import pytest
from tests.net.upstream import Upstream

from quarterdeck.errors import APIError
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.engine.client import EngineClient

DONE = b"data: [DONE]\n\n"


def endpoint(upstream: Upstream, **fields: Any) -> Endpoint:
    return Endpoint(EndpointSpec("e#1", "m", upstream.url, **fields))


async def failing(engines: EngineClient, upstream: Upstream) -> APIError:
    with pytest.raises(APIError) as caught:
        await engines.open(endpoint(upstream), "/v1/chat/completions", b"{}")
    return caught.value
