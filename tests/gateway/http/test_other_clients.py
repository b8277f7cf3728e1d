"""What the clients of other platforms send: Azure's paths, other headers for the key, other spellings of a path."""

import asyncio
import json

import pytest
from tests.gateway.fakes import ADMIN, USER, FakeStream
from tests.gateway.http.connections import REQUEST, Bench

from quarterdeck.errors import EngineError, RateLimitError
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.telemetry.access_lines import AccessLine

KEYS = [f"authorization: Bearer {USER}", f"api-key: {USER}", f"x-api-key: {USER}"]


async def post(bench: Bench, path: str, body: bytes = b"{}", *headers: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    peer = await bench.connect()
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *(headers or KEYS[:1])]
    await peer.send("\r\n".join([*lines, "", ""]).encode() + body)
    return await peer.answer()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/openai/deployments/chat/chat/completions?api-version=1"])
async def test_a_key_is_taken_from_each_of_the_headers(bench: Bench, path: str, key: str) -> None:
    assert (await post(bench, path, b"{}", key))[0] == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/nothing", "/admin/keys"])
async def test_two_different_keys_are_a_401(bench: Bench, path: str) -> None:
    for other in (f"api-key: {ADMIN}", f"x-api-key: {ADMIN}", f"authorization: Bearer {ADMIN}"):
        status, answer = await post(bench, path, b"{}", KEYS[0], other)
        assert (status, answer["error"]["code"]) == (401, "ambiguous_api_key")
    assert bench.pipeline.calls == []


async def test_the_same_key_twice_is_one(bench: Bench) -> None:
    assert (await post(bench, "/v1/chat/completions", b"{}", *KEYS))[0] == 200


@pytest.mark.parametrize(
    ("path", "operation", "model"),
    [
        ("/openai/deployments/chat/chat/completions?api-version=2024-10-21", Operation.CHAT, "chat"),
        ("/openai/deployments/chat/completions", Operation.COMPLETIONS, "chat"),
        ("/openai/deployments/org/emb/embeddings?api-version=preview", Operation.EMBEDDINGS, "org/emb"),
        ("/openai/deployments/org%2Femb/embeddings", Operation.EMBEDDINGS, "org/emb"),
        ("//openai/deployments/chat/chat/completions/", Operation.CHAT, "chat"),
        ("/v1/engines/chat/completions", Operation.COMPLETIONS, "chat"),
        ("/v1/engines/chat/chat/completions", Operation.CHAT, "chat"),
        ("/engines/org%2Femb/embeddings", Operation.EMBEDDINGS, "org/emb"),
    ],
)
@pytest.mark.parametrize(
    "body", [b'{"a":1}', b'{"model":null,"a":1}', b'{"model":"gpt-4o","a":1}', b'{"model":7,"a":1}']
)
async def test_azures_paths_and_openais_old_ones_name_the_model(
    bench: Bench, path: str, operation: Operation, model: str, body: bytes
) -> None:
    assert (await post(bench, path, body))[0] == 200
    ((head, sent),) = bench.pipeline.calls
    assert head.operation is operation
    assert json.loads(sent) == {"a": 1, "model": model}


async def test_a_body_that_names_the_same_model_stays_as_it_is(bench: Bench) -> None:
    body = b'{ "model": "chat" }'
    assert (await post(bench, "/openai/deployments/chat/chat/completions", body))[0] == 200
    assert bench.pipeline.calls[0][1] == body


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"model":"a","model":"b"}', b"\xff"])
async def test_a_bad_body_is_a_400_on_azures_paths(bench: Bench, body: bytes) -> None:
    status, answer = await post(bench, "/openai/deployments/chat/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/chat/completions", "//v1/v1/chat/completions/"])
async def test_other_spellings_reach_the_same_route(bench: Bench, path: str) -> None:
    assert (await post(bench, path))[0] == 200
    bench.pipeline.answer = RateLimitError("no")
    assert (await post(bench, path))[0] == 429
    assert (await post(bench, path, b"{}", "authorization: Bearer no"))[0] == 401


@pytest.mark.parametrize(("name", "status"), [("", 200), ("/chat", 200), ("/nope", 404)])
async def test_models_answer_head(bench: Bench, name: str, status: int) -> None:
    peer = await bench.connect()
    await peer.send(f"HEAD /v1/models{name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{KEYS[0]}\r\n\r\n".encode())
    head, _, body = (await peer.reader.read()).partition(b"\r\n\r\n")
    assert (int(head.split(b" ")[1]), body) == (status, b"")


@pytest.mark.parametrize("path", ["/openai/models", "/openai/v1/models", "/models", "/v1/models/"])
async def test_models_are_listed_under_other_spellings(bench: Bench, path: str) -> None:
    peer = await bench.connect()
    await peer.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n{KEYS[1]}\r\n\r\n".encode())
    status, answer = await peer.answer()
    assert (status, answer["object"]) == (200, "list")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/vector_stores", "/v1/vector_stores is not served here yet."),
        ("/v1/fine_tuning/jobs", "/v1/fine_tuning is not served here yet."),
        ("/openai/v1/evals", "/v1/evals is not served here yet."),
        ("/evals", "/v1/evals is not served here yet."),
        ("/batches", "Unknown request URL."),
        ("/api/chat", "/api/chat is not served here yet."),
        ("/v1/nothing", "Unknown request URL."),
        ("/v1/responsesx", "Unknown request URL."),
    ],
)
async def test_an_unknown_path_says_what_is_served(bench: Bench, path: str, said: str) -> None:
    status, answer = await post(bench, path)
    assert (status, answer["error"]["code"]) == (404, "unknown_url")
    assert answer["error"]["message"].startswith(said)
    assert "This gateway serves /v1/chat/completions" in answer["error"]["message"]
    assert (await post(bench, path, b"{}", "x: y"))[0] == 401


# the access log


class FailingStream(FakeStream):
    error = EngineError("broken")


async def hang(*_: object) -> Reply:
    return await asyncio.Event().wait()  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("path", "body", "key", "status", "code"),
    [
        ("/v1/chat/completions", b"{}", KEYS[0], 200, None),
        ("/v1/chat/completions", b"{}", "x: y", 401, "missing_api_key"),
        ("/openai/deployments/chat/embeddings", b"[]", KEYS[0], 400, "invalid_json"),
        ("/v1/nothing", b"{}", KEYS[0], 404, "unknown_url"),
        ("/v1/nothing", b"{}", "x: y", 401, "missing_api_key"),
        ("/v1/models", b"{}", KEYS[0], 405, "method_not_allowed"),
        ("/admin/keys", b"{}", KEYS[0], 403, "admin_key_required"),
    ],
)
async def test_the_access_log_has_the_code_of_the_error(
    bench: Bench, path: str, body: bytes, key: str, status: int, code: str | None
) -> None:
    lines = logged(bench)
    await post(bench, path, body, key)
    bench.parts.access.flush()
    assert [(line.status, line.error) for line in lines] == [(status, code)]


async def test_the_access_log_has_the_error_of_a_stream(bench: Bench) -> None:
    lines = logged(bench)
    bench.pipeline.answer = Reply(
        200, ((b"content-type", b"text/event-stream"),), stream=FailingStream([b"data: 1\n\n"])
    )
    peer = await bench.connect()
    await peer.send(REQUEST)
    await peer.reader.readuntil(b"0\r\n\r\n")
    bench.parts.access.flush()
    assert [(line.status, line.error) for line in lines] == [(200, "engine_error")]


async def test_the_access_log_has_what_never_became_a_request(bench: Bench) -> None:
    lines = logged(bench)
    for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n"):
        peer = await bench.connect()
        await peer.send(data)
        await peer.code()
        assert await peer.is_closed()
    bench.parts.access.flush()
    found = [(line.method, line.path, line.status, line.error) for line in lines]
    assert found == [("-", "-", 400, "invalid_http"), ("-", "-", 431, "request_headers_too_large")]


async def test_the_access_log_says_that_a_client_did_not_wait(bench: Bench) -> None:
    lines = logged(bench)
    bench.pipeline.answer = hang
    peer = await bench.connect()
    await peer.send(REQUEST)
    await bench.pipeline.was_called.wait()
    peer.writer.close()
    await bench.parts.requests_in_flight.empty()
    await asyncio.sleep(0)
    bench.parts.access.flush()
    assert [(line.status, line.error) for line in lines] == [(499, "client_disconnected")]


def logged(bench: Bench) -> list[AccessLine]:
    """Lines of the access log from now on."""
    lines: list[AccessLine] = []
    bench.parts.access._write = lines.extend
    return lines
