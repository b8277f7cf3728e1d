"""Serve's details from Ray's dashboard."""

import httpx
import pytest

from quarterdeck.engine.kuberay.dashboard import Dashboard
from quarterdeck.errors import EngineUnavailableError


async def test_the_clusters_token_is_sent() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://127.0.0.1:8265/api/serve/applications/"
        return httpx.Response(200, json={"applications": {}, "token": request.headers.get("authorization")})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert (await Dashboard(client, "http://127.0.0.1:8265", "s3").details())["token"] == "Bearer s3"
        assert (await Dashboard(client, "http://127.0.0.1:8265", None).details())["token"] is None


@pytest.mark.parametrize(
    "response", [httpx.Response(401), httpx.Response(200, text="<html>"), httpx.Response(200, json=[])]
)
async def test_anything_but_details_is_an_error(response: httpx.Response) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: response)) as client:
        with pytest.raises(EngineUnavailableError, match="dashboard"):
            await Dashboard(client, "http://127.0.0.1:8265", None).details()
