"""Which route serves a request, and how it takes the body."""

import pytest

from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.registry import MIB, BodyPolicy, Registry, Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Reply
from quarterdeck.settings.config import GatewayConfig


async def whole(head: RequestHead, body: bytes) -> Reply:
    return Reply(200, ())


async def streamed(head: RequestHead, body: BodyStream) -> Reply:
    return Reply(200, ())


CREATE = Route.buffered("/v1/responses", whole)
RETRIEVE = Route.buffered("/v1/responses/{id}", whole, method="GET")
CONTENT = Route.buffered("/v1/files/{file}/parts/{part}", whole, method="GET")
UPLOAD = Route.streamed("/v1/files", streamed, max_bytes=512 * MIB, seconds=5)
ALL = Registry([CREATE, RETRIEVE, CONTENT, UPLOAD])


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/responses", (CREATE, {})),
        ("GET", "/v1/responses/resp_1", (RETRIEVE, {"id": "resp_1"})),
        ("GET", "/v1/files/a.b/parts/2", (CONTENT, {"file": "a.b", "part": "2"})),
        ("POST", "/v1/files", (UPLOAD, {})),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/responses/resp_1", None),
        ("GET", "/v1/responses/", None),
        ("GET", "/v1/responses/a/b", None),
        ("GET", "/v1/files/a/parts/", None),
        ("GET", "x/v1/responses/a", None),
    ],
)
def test_a_route_is_found_by_method_and_whole_path(
    method: str, path: str, found: tuple[Route, dict[str, str]] | None
) -> None:
    assert ALL.find(method, path) == found


def test_the_front_takes_posts_without_parameters() -> None:
    assert ALL.posts == {b"/v1/responses": CREATE, b"/v1/files": UPLOAD}


def test_bounds_of_a_body_are_the_routes_or_the_settings() -> None:
    gateway = GatewayConfig(max_body_mb=7, client_body_timeout_seconds=9)
    assert CREATE.body.bounds(gateway) == (7 * MIB, 9)
    assert UPLOAD.body.bounds(gateway) == (512 * MIB, 5)
    assert BodyPolicy(takes_media=True).bounds(gateway) == (50 * MIB, 9)
    assert BodyPolicy(takes_media=True).bounds(GatewayConfig(max_body_mb=70))[0] == 70 * MIB
