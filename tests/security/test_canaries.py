"""Secrets must not leak: each is a unique canary word, and everything that the platform writes or answers is searched.

Covers LiteLLM's guardrail_logging_secret_exposure and secret headers in spend logs, and Bifrost #3954. Processes log at
DEBUG. `MEANT` lists where a caller's own words may be stored by design.
"""

import asyncio
import http.client
import json
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.stack import WorkerProcess
from tests.platform import GatewayProcess
from tests.security.engine import CLOSING, delta, events
from tests.security.engine import http as answer_of
from tests.security.stack import ADMIN, BODIES, BROKE, CONFIG, PROVIDERS_KEY, USER, Platform, started
from tests.servers import RedisServer, short_folder, wait_until

from quarterdeck.net.redis import Redis
from quarterdeck.record import encode
from quarterdeck.store.database import Database

REDIS_PASSWORD, DATABASE_PASSWORD = "rediscanary71c0e2", "databasecanary5d81aa"
UNKNOWN_KEY = "unknowncanary0c9d3e1f"
HEADERS = {
    "cookie": "cookiecanary5e2f7a",
    "x_goog_api_key": "xapikeycanary3b9c1d",
    "ocp_apim_subscription_key": "apikeycanary8d4e2f",
    "proxy_authorization": "Basic proxycanary6a1b3c",
    "x_allowed": "allowedcanary4f5e6d",
    "x_portkey_custom_host": "http://hostcanary7c8d9e/",
    "openai_organization": "orgcanary2d3e4f",
}
FIELDS = {
    "api_key": "fieldcanary1a2b3c",
    "authorization": "Bearer fieldcanary4d5e6f",
    "extra_headers": {"authorization": "Bearer fieldcanary7a8b9c"},
    "password": "fieldcanary0d1e2f",
}
PROMPT, COMPLETION, COMPLAINT = "promptcanary9b8c7d", "completioncanary6e5f4a", "complaintcanary3d2c1b"
CLIENT_ID, SECRET_CLIENT_ID = "clientcanary-5f4e3d", "sk-qd-clientcanary2c1b0a"
SESSION = "sessioncanary1f0e9d"
QUERY = "querycanary8c7b6a"

MEANT = {
    "log": {CLIENT_ID},
    "ledger": {SESSION},
    "spans": {SESSION},
    "redis": {SESSION},
    "files": {SESSION},
}
"""x-client-request-id appears in the access log by design; `metadata.session_id` in record, row and span."""


def words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from words(each)
    else:
        yield str(value).rpartition(" ")[2]


CANARIES = {
    *(USER, ADMIN, BROKE, PROVIDERS_KEY, UNKNOWN_KEY, REDIS_PASSWORD, PROMPT, COMPLETION, COMPLAINT),
    *(CLIENT_ID, SECRET_CLIENT_ID, SESSION, QUERY),
    *words(HEADERS),
    *words(FIELDS),
}


@pytest.fixture(scope="module")
def driven() -> Iterator[tuple[Platform, list[tuple[str, str]], str]]:
    """The platform after all actions, its answers, and a key that it created."""
    folder = short_folder()
    redis = RedisServer(folder)
    redis.start()
    asyncio.run(_protect(redis))
    url = f"unix://:{REDIS_PASSWORD}@{redis.socket}"
    with started(url, QUARTERDECK_LOG_LEVEL="DEBUG") as platform:
        answers, made = _drive(platform)
        yield platform, answers, made
    redis.stop()


async def _protect(redis: RedisServer) -> None:
    client = Redis(redis.url())
    await client.call("CONFIG", "SET", "requirepass", REDIS_PASSWORD)
    await client.close()


def _drive(platform: Platform) -> tuple[list[tuple[str, str]], str]:
    answers: list[tuple[str, str]] = []
    engine = platform.engine
    words = f"about {COMPLAINT}"  # a single word would be reported as the cause's name
    error = json.dumps({"error": {"message": words, "code": words, "param": words, "type": words}})
    own = json.dumps({"error": {"message": f"Bearer {PROVIDERS_KEY}"}})
    headers = {**HEADERS, "x_client_request_id": CLIENT_ID}
    body = {
        **BODIES["/v1/chat/completions"],
        **FIELDS,
        "messages": [{"role": "user", "content": PROMPT}],
        "metadata": {"session_id": SESSION},
    }

    def ask(name: str, path: str = "/v1/chat/completions", sent: Any = None, **options: Any) -> None:
        try:
            answer = platform.ask(path, body if sent is None else sent, **{**headers, **options})
        except (OSError, http.client.HTTPException) as broken:
            answers.append((name, repr(broken)))
        else:
            answers.append((name, f"{answer.status} {answer.headers} {answer.body.decode('utf-8', 'replace')}"))

    whole = answer_of(200, json.dumps({"choices": [{"message": {"content": COMPLETION}}]}).encode())
    for engine.answer in (whole, whole.replace(b'"choices"', b'"id": "chatcmpl-1", "choices"')):
        ask("answered")
    engine.answer = events(delta(COMPLETION), *CLOSING)
    ask("streamed", sent={**body, "stream": True})
    for status in (400, 401, 403, 404, 422, 429, 500, 502, 503):
        for words_of_it in (own, error):
            engine.answer = answer_of(status, words_of_it.encode())
            ask("complained of")
    engine.answer = answer_of(500, f"<html>{PROVIDERS_KEY}".encode(), content_type="text/html")
    ask("complained of")
    for data in ((own,), (delta(COMPLETION), own), (delta(COMPLETION), error), (delta(COMPLETION), "no json")):
        engine.answer = events(*data)
        ask("broken stream", sent={**body, "stream": True})
    engine.answer = events(delta(COMPLETION), ends=False)
    ask("cut stream", sent={**body, "stream": True})
    for garbage in (
        b"HTTP/1.1 999999 " + PROVIDERS_KEY.encode() + b"\r\n\r\n",
        PROVIDERS_KEY.encode(),
        b"\x00\xff" * 50,
    ):
        engine.answer = garbage + b"\r\n\r\n"
        ask("no HTTP")
    engine.answer = whole
    for path in ("/v1/chat/completions", "/v1/models", "/admin/keys", f"/nowhere?api_key={QUERY}"):
        ask("unknown key", path, key=f"sk-qd-{UNKNOWN_KEY}")
        ask("unknown key of another shape", path, key=UNKNOWN_KEY)
    ask("a secret for an id", x_client_request_id=SECRET_CLIENT_ID)
    ask("a key in the query", f"/v1/models?api_key={QUERY}&key={USER}", method="GET")
    ask("a key in the path", f"/v1/models/{USER}x", method="GET", key=ADMIN)
    ask("not JSON", sent=b'{"messages": ' + PROMPT.encode())
    ask("wrong types", sent={**body, "max_tokens": PROMPT})
    ask("no money", key=BROKE)
    for path in ("/admin/keys", "/admin/usage", "/admin/teams", "/v1/models", "/readyz", "/metrics"):
        ask("read", path, key=ADMIN, method="GET")
    created = platform.ask("/admin/keys", {"name": "made"}, key=ADMIN)
    made = str(json.loads(created.body)["key"])
    ask("as the key that was made", key=made)
    ask("a bad key request", "/admin/keys", sent={"name": "x", "api_key": FIELDS["api_key"]}, key=ADMIN)
    _crash(platform, body)
    wait_until(lambda: any(row.status == "lost" for row in platform.rows()), seconds=20)
    wait_until(lambda: len(platform.sink.observations) >= len(platform.rows()), seconds=20)
    for process in (platform.gateway, platform.worker):
        answers.append(("metrics", str(process.get("/metrics")[1])))
    return answers, made


def _crash(platform: Platform, body: dict[str, Any]) -> None:
    """Kill the gateway in the middle of a stream, and start another one."""
    platform.engine.answer = events(delta(COMPLETION), ends=False)
    platform.engine.holds = True
    connection = http.client.HTTPConnection("127.0.0.1", platform.gateway.port, timeout=20)
    headers = {"authorization": f"Bearer {USER}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}), headers)
    assert connection.getresponse().readline().startswith(b"data: ")
    platform.gateway.stop(signal.SIGABRT)
    connection.close()
    platform.gateway.start()


Driven = tuple[Platform, list[tuple[str, str]], str]


def found_in(text: str, place: str, made: str) -> set[str]:
    return {canary for canary in CANARIES | {made} if canary in text} - MEANT.get(place, set())


def test_no_log_holds_a_secret(driven: Driven) -> None:
    platform, _, made = driven
    for part in (platform.gateway, platform.worker):
        text = part.log.read_text(errors="replace")
        assert len(text) > 100
        assert found_in(text, "log", made) == set(), part.log.name


def test_no_answer_holds_a_secret_that_is_not_the_callers_own(driven: Driven) -> None:
    """Callers may see an engine's error message (COMPLAINT), its completion (COMPLETION), and their own words in a
    rejection. They must not see headers, keys or passwords."""
    _, answers, made = driven
    own = {PROMPT, COMPLETION, COMPLAINT, SESSION}
    seen = {name for name, _ in answers}
    assert len(seen) > 12
    for name, text in answers:
        allowed = own | ({USER} if name == "a key in the path" else set())
        assert found_in(text, "answer", made) - allowed == set(), (name, text[:500])


def test_neither_ledger_nor_traces_hold_a_secret(driven: Driven) -> None:
    platform, _, made = driven
    rows = platform.rows()
    assert {row.status for row in rows} == {"ok", "error", "lost"}
    assert found_in("".join(encode(row).decode() for row in rows), "ledger", made) == set()
    assert platform.sink.complaints == []
    assert found_in("".join(map(str, platform.sink.spans)), "spans", made) == set()


def test_redis_holds_no_secret(driven: Driven) -> None:
    platform, _, made = driven
    text = asyncio.run(_everything(platform.redis_url))
    assert "default" in text
    assert found_in(text, "redis", made) == set()


def test_no_file_holds_a_secret(driven: Driven) -> None:
    """The database file, the spool, and all other files of the state folder. The configuration only names variables."""
    platform, _, made = driven
    files = [path for path in platform.folder.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert any(path.suffix == ".db" for path in files)
    for path in files:
        assert found_in(path.read_bytes().decode("latin-1"), "files", made) == set(), path.name


async def _everything(url: str) -> str:
    """All keys with their values."""
    redis = Redis(url)
    try:
        found: list[Any] = []
        for key in await redis.call("KEYS", "*"):
            kind = (await redis.call("TYPE", key)).decode()
            read = {
                "string": ("GET", key),
                "hash": ("HGETALL", key),
                "zset": ("ZRANGE", key, "0", "-1", "WITHSCORES"),
                "set": ("SMEMBERS", key),
                "list": ("LRANGE", key, "0", "-1"),
                "stream": ("XRANGE", key, "-", "+"),
            }[kind]
            found += [key, await redis.call(*read)]
        return str(found)
    finally:
        await redis.close()


REDIS_URLS = (
    f"redis://:{REDIS_PASSWORD}/x@127.0.0.1:1/0",
    f"redis://:{REDIS_PASSWORD}#x@127.0.0.1:1/0",
    f"redis://x:{REDIS_PASSWORD}@127.0.0.1:{REDIS_PASSWORD}/0",
    f"redis://x:{REDIS_PASSWORD}@127.0.0.1:1/{REDIS_PASSWORD}",
    f"http://x:{REDIS_PASSWORD}@127.0.0.1:1/0",
    f"{REDIS_PASSWORD}",
    f"redis://x:{REDIS_PASSWORD}@[::1",
)
DATABASE_URLS = (
    f"postgresql+asyncpg://user:{DATABASE_PASSWORD}@127.0.0.1:{DATABASE_PASSWORD}/db",
    f"postgresql+asyncpg://user:{DATABASE_PASSWORD}/x@127.0.0.1:1/db",
    f"postgresql+asyncpg://user:{DATABASE_PASSWORD}@[::1/db",
    f"nothing://user:{DATABASE_PASSWORD}@127.0.0.1:1/db",
    f"user:{DATABASE_PASSWORD}@127.0.0.1",
)


@pytest.mark.parametrize(("kind", "url"), [(Redis, url) for url in REDIS_URLS] + [(Database, u) for u in DATABASE_URLS])
def test_a_url_that_is_none_is_refused_without_its_password(kind: Any, url: str) -> None:
    """In a URL, a password with `/` or `#` partly becomes the port."""
    try:
        subject = kind(url)
    except Exception:  # any exception: the process would print it to stderr
        assert "canary" not in traceback.format_exc().replace(f"kind({url!r})", "")
    else:
        assert "canary" not in repr(subject)


def test_what_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    environ = {
        "QUARTERDECK_REDIS_URL": f"redis://user:{REDIS_PASSWORD}@127.0.0.1:1/0",
        "QUARTERDECK_DATABASE_URL": f"postgresql+asyncpg://user:{DATABASE_PASSWORD}@127.0.0.1:1/db",
        "QUARTERDECK_LOG_LEVEL": "DEBUG",
    }
    gateway = GatewayProcess(tmp_path, CONFIG.format(engine="http://127.0.0.1:1"), environ, ready_path="/healthz")
    worker = WorkerProcess(tmp_path, {**environ, "QUARTERDECK_STATE": str(tmp_path / "worker")})
    worker.launch()
    gateway.start()
    try:
        wait_until(lambda: all("database" in part.log.read_text() for part in (gateway, worker)))
        gateway.get("/readyz")
    finally:
        gateway.stop()
        worker.stop()
    assert "canary" not in gateway.log.read_text()
    assert "canary" not in worker.log.read_text()
