"""Browsers whose page is of another origin, over real sockets."""

from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError
from tests.gateway.fakes import USER, FakeStream
from tests.gateway.http.connections import Bench, serving

from quarterdeck.errors import RateLimitError
from quarterdeck.inference.call import Reply
from quarterdeck.settings.cors import CorsConfig

APP, OTHER = "https://app.example.com", "https://evil.example"
KEY = f"authorization: Bearer {USER}"
CHAT = "POST /v1/chat/completions"
PREFLIGHT = ("access-control-request-method: POST", "access-control-request-headers: authorization,x-stainless-os")


@pytest.fixture
async def bench(way: str) -> AsyncIterator[Bench]:
    async with serving(way, cors=CorsConfig(origins=(APP, "tauri://localhost"), max_age_seconds=7)) as made:
        yield made


async def head(bench: Bench, line: str, *headers: str) -> dict[str, str]:
    """Status and headers of the answer."""
    peer = await bench.connect()
    await peer.send("\r\n".join([f"{line} HTTP/1.1", "host: x", "content-length: 2", *headers, "", "{}"]).encode())
    status, *lines = (await peer.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    names = [each.split(": ")[0] for each in lines]
    assert len(names) == len(set(names)), lines
    return {"status": status.split(" ")[1], **dict(each.split(": ", 1) for each in lines)}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/openai/v1/models", "/nowhere", "/admin/keys"])
async def test_a_preflight_of_a_configured_origin_needs_no_key(bench: Bench, path: str) -> None:
    for origin in (APP, "tauri://localhost"):
        answer = await head(bench, f"OPTIONS {path}", f"origin: {origin}", *PREFLIGHT)
        assert answer["status"] == "204"
        assert answer["access-control-allow-origin"] == origin
        assert answer["access-control-allow-headers"] == "authorization,x-stainless-os"
        assert "POST" in answer["access-control-allow-methods"]
        assert answer["access-control-max-age"] == "7"
        assert "access-control-allow-credentials" not in answer
        assert "origin" in answer["vary"]
        assert answer["x-request-id"]
    assert bench.pipeline.calls == []


@pytest.mark.parametrize("origin", [OTHER, "null", APP + ".evil.example", APP + ":444", "http://app.example.com", ""])
async def test_a_preflight_of_another_origin_is_a_request_without_a_key(bench: Bench, origin: str) -> None:
    answer = await head(bench, "OPTIONS /v1/models", f"origin: {origin}", *PREFLIGHT)
    assert answer["status"] == "401"
    assert not any(name.startswith("access-control") for name in answer)
    assert answer["vary"] == "origin"


async def test_options_without_an_origin_or_a_method_is_no_preflight(bench: Bench) -> None:
    assert (await head(bench, "OPTIONS /v1/models", f"origin: {APP}"))["status"] == "401"
    assert (await head(bench, "OPTIONS /v1/models", *PREFLIGHT))["status"] == "401"


@pytest.mark.parametrize("asked", ["x" * 5000, "a\x7f", "<b>"])
async def test_a_list_of_headers_that_is_none_is_not_repeated(bench: Bench, asked: str) -> None:
    lines = [f"origin: {APP}", PREFLIGHT[0], f"access-control-request-headers: {asked}"]
    assert "access-control-allow-headers" not in await head(bench, "OPTIONS /v1/models", *lines)


async def test_answers_errors_and_streams_may_be_read_by_the_page(bench: Bench) -> None:
    answers = [
        await head(bench, CHAT, KEY, f"origin: {APP}"),
        await head(bench, CHAT, f"origin: {APP}"),  # 401
        await head(bench, "GET /v1/models", f"origin: {APP}"),  # 401 of FastAPI's part
        await head(bench, "GET /v1/models", KEY, f"origin: {APP}"),
        await head(bench, "GET /v1/nothing", KEY, f"origin: {APP}"),
        await head(bench, "DELETE /v1/chat/completions", KEY, f"origin: {APP}"),
        await head(bench, CHAT, KEY, f"origin: {APP}", "content-encoding: br"),
    ]
    bench.pipeline.answer = RateLimitError("no", retry_after=3)
    answers.append(await head(bench, CHAT, KEY, f"origin: {APP}"))
    bench.pipeline.answer = Reply(200, ((b"content-type", b"text/event-stream"),), stream=FakeStream([b"data: 1\n\n"]))
    answers.append(await head(bench, CHAT, KEY, f"origin: {APP}"))

    async def fail(*_: object) -> Reply:
        raise ValueError("a bug")

    bench.pipeline.answer = fail
    answers.append(await head(bench, CHAT, KEY, f"origin: {APP}"))
    found = [answer["status"] for answer in answers]
    assert found == ["200", "401", "401", "200", "404", "405", "415", "429", "200", "500"]
    for answer in answers:
        assert answer["access-control-allow-origin"] == APP
        assert answer["vary"] == "origin"
        exposed = answer["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-cache", "x-ratelimit-remaining-tokens"} <= set(exposed)


async def test_another_origin_is_answered_without_the_headers(bench: Bench) -> None:
    answer = await head(bench, CHAT, KEY, f"origin: {OTHER}")
    assert (answer["status"], answer["vary"]) == ("200", "origin")
    assert not any(name.startswith("access-control") for name in answer)


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_what_needs_no_key_is_no_pages_business(bench: Bench, path: str) -> None:
    """Any page could read it through the browser of someone inside."""
    bench.configure(cors=CorsConfig(origins=("*",)))
    answer = await head(bench, f"GET {path}", f"origin: {OTHER}")
    assert answer["status"] == "200"
    assert "access-control-allow-origin" not in answer
    assert (await head(bench, f"OPTIONS {path}", f"origin: {OTHER}", *PREFLIGHT))["status"] != "204"


async def test_all_origins_may_be_allowed_and_a_reload_applies(bench: Bench) -> None:
    bench.configure(cors=CorsConfig(origins=("*",)))
    assert (await head(bench, CHAT, KEY, f"origin: {OTHER}"))["access-control-allow-origin"] == "*"
    assert (await head(bench, "OPTIONS /v1/models", "origin: null", *PREFLIGHT))["status"] == "204"
    bench.configure()
    answer = await head(bench, CHAT, KEY, f"origin: {APP}")
    assert not any(name.startswith("access-control") or name == "vary" for name in answer)
    assert (await head(bench, "OPTIONS /v1/models", f"origin: {APP}", *PREFLIGHT))["status"] == "401"


@pytest.mark.parametrize("origins", ["*", "https://App.example.com", ["http://[::1]:3000"], ["chrome-extension://abc"]])
def test_origins_are_one_or_a_list(origins: object) -> None:
    assert CorsConfig.model_validate({"origins": origins}).origins


@pytest.mark.parametrize(
    "origins",
    ["app.example.com", "https://a.example/", "https://a.example/x", "https://*.a.example", "null", ["*", APP]],
)
def test_what_is_no_origin_is_refused(origins: object) -> None:
    with pytest.raises(ValidationError):
        CorsConfig.model_validate({"origins": origins})


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"x-a: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"transfer-encoding: gzip, chunked\r\n\r\n", 400),
        (b"x-a: b\r\n", 408),
    ],
)
async def test_a_page_can_read_why_a_head_was_refused(way: str, rest: bytes, status: int) -> None:
    async with serving(way, cors=CorsConfig(origins=(APP,)), head_seconds=0.5) as bench:
        for origin, allowed in ((APP, [APP]), (OTHER, [])):
            peer = await bench.connect()
            await peer.send(f"{CHAT} HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\nx-b: c\r\n".encode() + rest)
            lines = (await peer.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            assert lines[0].split(" ")[1] == str(status)
            assert [line.split(": ")[1] for line in lines if line.startswith("access-control-allow-o")] == allowed
