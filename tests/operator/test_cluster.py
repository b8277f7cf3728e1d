"""Calls of the API server: bounded, repeated where that helps, and refused in its words. Over real HTTP."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiClient, Configuration

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import DEPLOYMENT, LEASE, SERVICE

MANIFEST = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
Answer = tuple[int, dict[str, str], Any]


class Server:
    """Answers requests in turn; the last answer is repeated."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [(200, {}, MANIFEST)]
        self.requests: list[tuple[str, str, Any, str]] = []
        self.in_flight = self.most = 0
        self.hold: threading.Event | None = None
        self.three = threading.Event()
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                with lock:
                    server.in_flight += 1
                    server.most = max(server.most, server.in_flight)
                    if server.in_flight == 3:
                        server.three.set()
                    server.requests.append((self.command, self.path, body, self.headers.get("content-type", "")))
                    status, headers, answer = server.answers[0]
                    if len(server.answers) > 1:
                        server.answers.pop(0)
                if server.hold is not None:
                    server.hold.wait(10)
                with lock:
                    server.in_flight -= 1
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = handle_one

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        configuration = Configuration(host=server.url)
        configuration.retries = urllib3.Retry(0)
        made.append(Cluster(ApiClient(configuration), pause_seconds=0.001, **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


def failure(status: int, message: str = "", **headers: str) -> Answer:
    return status, headers, {"kind": "Status", "reason": "Reason", "message": message}


async def test_an_apply_is_server_side_forced_and_by_our_manager(server: Server, connect: Any) -> None:
    assert await connect().apply(MANIFEST, "models") == MANIFEST
    method, path, body, content_type = server.requests[0]
    assert (method, body, content_type) == ("PATCH", MANIFEST, "application/apply-patch+yaml")
    assert path == "/api/v1/namespaces/models/services/s?fieldManager=quarterdeck-operator&force=true"


async def test_a_status_is_applied_to_its_subresource(server: Server, connect: Any) -> None:
    await connect().apply({**MANIFEST, "apiVersion": "apps/v1", "kind": "Deployment"}, "models", status=True)
    assert server.requests[0][1].startswith("/apis/apps/v1/namespaces/models/deployments/s/status?")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_call_that_may_succeed_later_is_repeated(server: Server, connect: Any, status: int) -> None:
    calls: list[int] = []
    server.answers = [failure(status), failure(status), (200, {}, MANIFEST)]
    cluster = connect(on_call=lambda verb, kind, status, seconds: calls.append(status))
    assert await cluster.apply(MANIFEST, "models") == MANIFEST
    assert calls == [status, status, 200]


async def test_a_retry_after_is_followed(server: Server, connect: Any) -> None:
    server.answers = [failure(429, **{"Retry-After": "1"}), (200, {}, MANIFEST)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    await connect().apply(MANIFEST, "models")
    assert loop.time() - started >= 1.0


@pytest.mark.parametrize(
    ("answer", "is_rejection"),
    [
        (failure(422, "spec.replicas: Invalid value"), True),
        (failure(400, "bad"), True),
        (failure(500, "failed to create typed patch object: .spec.foo: field not declared in schema"), True),
        (failure(403, "exceeded quota"), False),
        (failure(409, "conflict"), False),
    ],
)
async def test_a_refusal_is_not_repeated_and_keeps_the_servers_words(
    server: Server, connect: Any, answer: Answer, is_rejection: bool
) -> None:
    server.answers = [answer]
    with pytest.raises(ClusterError) as error:
        await connect().apply(MANIFEST, "models")
    assert len(server.requests) == 1
    assert error.value.is_rejection is is_rejection and error.value.message == answer[2]["message"]


async def test_a_server_that_is_away_is_an_error_without_a_status(server: Server, connect: Any) -> None:
    server.close()
    with pytest.raises(ClusterError) as error:
        await connect().get(SERVICE, "models", "s")
    assert error.value.status == 0 and error.value.is_transient


@pytest.mark.parametrize("answer", [(200, {}, b"not json"), (502, {}, b"<html>")])
async def test_an_answer_that_is_no_json_is_an_error(server: Server, connect: Any, answer: Answer) -> None:
    server.answers = [answer]
    with pytest.raises(ClusterError):
        await connect().get(SERVICE, "models", "s")


async def test_what_does_not_exist_is_none_and_deleting_it_is_no_error(server: Server, connect: Any) -> None:
    server.answers = [failure(404)]
    assert await connect().get(SERVICE, "models", "s") is None
    await connect().delete(SERVICE, "models", "s", uid="u")
    assert server.requests[-1][2] == {"propagationPolicy": "Background", "preconditions": {"uid": "u"}}


async def test_a_list_is_read_in_pages_and_its_items_get_their_kind(server: Server, connect: Any) -> None:
    first = {"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}}]}
    server.answers = [(200, {}, first), (200, {}, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]})]
    found = await connect().list_all(DEPLOYMENT, "models", selector="a=b")
    assert [(each["kind"], each["metadata"]["name"]) for each in found] == [("Deployment", "a"), ("Deployment", "b")]
    assert "continue=next" in server.requests[1][1] and "labelSelector=a%3Db" in server.requests[1][1]


async def test_the_lease_does_not_wait_for_other_calls(server: Server, connect: Any) -> None:
    server.hold = threading.Event()
    cluster = connect(concurrency=3)
    calls = [asyncio.create_task(cluster.get(SERVICE, "models", "s")) for _ in range(12)]
    assert await asyncio.to_thread(server.three.wait, 10)
    lease = asyncio.create_task(cluster.get(LEASE, "models", "l"))
    while not any("leases" in request[1] for request in server.requests):  # noqa: ASYNC110 - another thread's
        await asyncio.sleep(0.01)
    server.hold.set()
    await asyncio.gather(lease, *calls)


async def test_calls_at_once_are_bounded(server: Server, connect: Any) -> None:
    server.hold = threading.Event()
    cluster = connect(concurrency=3)
    calls = [asyncio.create_task(cluster.get(SERVICE, "models", "s")) for _ in range(12)]
    assert await asyncio.to_thread(server.three.wait, 10)
    server.hold.set()
    await asyncio.gather(*calls)
    assert server.most == 3
