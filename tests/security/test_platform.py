"""The gateway in front of a recording engine: the destination and content of requests, and what responses expose.

SSRF through a client-supplied base URL (CVE-2024-6587, CVE-2025-66405), passthrough that bypasses budgets (Bifrost
#2873, Portkey #1718), the provider's key in a response (Bifrost #3954), template injection (SSTI in /prompts/test,
langwatch#3705).
"""

import json
from typing import Any

import pytest
from tests.gateway.route_table import every_route
from tests.security.engine import CLOSING, RecordingEngine, chat, delta, events
from tests.security.engine import http as answer_of
from tests.security.stack import ADMIN, BODIES, BROKE, PROVIDERS_KEY, SPENT, USER, Platform
from tests.servers import wait_until

from quarterdeck.inference.call import Operation

# passthrough


def test_every_route_to_a_model_is_admitted_limited_and_recorded(platform: Platform) -> None:
    """Bifrost #2873, Portkey #1718: free requests count against limits too, and leave a record."""
    assert set(BODIES) == {operation.value for operation in Operation}, "a new operation: say here how it is asked"
    ids = {}
    for operation in Operation:
        key = f"{SPENT}{operation.word}"
        first = platform.ask(operation.value, BODIES[operation.value], key=key)
        assert first.status == 200, (operation, first)
        ids[first.headers["x-request-id"]] = operation.word
        second = platform.ask(operation.value, BODIES[operation.value], key=key)
        assert (second.status, second.code) == (429, "rate_limit_exceeded"), operation
    assert len(platform.engine.seen) == len(ids)
    found: dict[str, str] = {}

    def are_recorded() -> bool:
        found.update({row.id: row.operation for row in platform.rows()})
        return ids.items() <= found.items()

    wait_until(are_recorded, what=lambda: f"{ids} are not all in {found}")


def test_a_key_that_may_spend_nothing_reaches_no_engine_by_any_route(platform: Platform) -> None:
    def is_counted() -> bool:  # 503 until the worker has counted the budget's spending
        return platform.ask("/v1/chat/completions", BODIES["/v1/chat/completions"], key=BROKE).status == 429

    wait_until(is_counted)
    paths = every_route() + [("POST", path + end) for path in BODIES for end in ("/", "//", "?a", "%20", ";x", "/../x")]
    paths += [("POST", f"/{more}{path}") for path in BODIES for more in ("v1", "proxy", "chat", "openai", "v1/proxy")]
    for method, path in paths:
        plain = path.partition("?")[0].rstrip("/")
        ends = [operation for operation in BODIES if plain.endswith(operation.removeprefix("/v1"))]
        body = BODIES[max(ends, key=len)] if ends else {"model": "chat"}
        answer = platform.ask(path, body if method != "GET" else None, key=BROKE, method=method)
        # Stored chats, responses and conversations are read, and conversations made, without an engine.
        stored = method in ("GET", "HEAD") or path.startswith("/v1/conversations")
        open_to_all = ("/healthz", "/readyz", "/metrics", "/v1/models", "/v1/prompts", "/v1/feedback")
        free = plain.endswith(("/tokenize", "/detokenize")) or path.startswith(open_to_all)
        # 400: another operation's path, without what that requires. 415: a file is a form. 501: no engine serves it.
        assert free or stored or answer.status in (400, 403, 404, 405, 415, 429, 501), (method, path, answer)
    # /v1/models: the gateway reads the context of its models there.
    assert {seen.path for seen in platform.engine.seen} <= {"/tokenize", "/detokenize", "/v1/models"}


# where requests go


def test_no_request_can_say_where_it_goes(platform: Platform) -> None:
    """CVE-2024-6587, CVE-2025-66405."""
    with RecordingEngine() as elsewhere:
        url = elsewhere.url
        names = ("api_base", "base_url", "api_url", "url", "endpoint", "host", "custom_host", "proxy", "webhook")
        members = dict.fromkeys(names, url)
        parts = [{"type": "text", "text": url}, {"type": "image_url", "image_url": {"url": f"{url}/a.png"}}]
        assert platform.chat(**members, metadata=members, extra_body=members).status == 200
        assert platform.chat(messages=[{"role": "user", "content": parts}]).status == 400
        headers = {
            "x_portkey_custom_host": url,
            "x_api_base": url,
            "x_forwarded_host": url.removeprefix("http://"),
            "host": url.removeprefix("http://"),
            "x_base_url": url,
        }
        assert platform.ask("/v1/chat/completions", BODIES["/v1/chat/completions"], **headers).status == 200
        for model in (
            url,
            f"{url}/v1",
            f"chat@{url}",
            f"openai/{url}",
            "../chat",
            "chat\r\nhost: x",
            "chat?base=" + url,
        ):
            answer = platform.chat(model=model)
            assert (answer.status, answer.code) == (404, "model_not_found"), model
        assert elsewhere.connections == 0
    assert {dict(seen.headers)["host"] for seen in platform.engine.seen} == {f"127.0.0.1:{platform.engine.port}"}
    assert len(platform.engine.seen) == 2


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("kv_transfer_params", {"kv_transfer_params": {"remote_host": "10.0.0.1", "remote_port": 1}}),
        ("kv_transfer_params", {"kv_transfer_param\\u0073": {}}),
        ("chat_template", {"chat_template": "{{ cycler.__init__.__globals__ }}"}),
        ("chat_template_kwargs", {"chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}}),
        ("prompt_embeds", {"prompt_embeds": "gASV"}),
        ("logits_processors", {"logits_processors": [{"qualname": "os.system"}]}),
    ],
)
def test_what_only_an_engines_owner_may_say_is_refused(param: str, fields: Any, platform: Platform) -> None:
    """URLs that the engine would fetch, templates it would render, tensors it would unpickle, and code it would import:
    vLLM accepts them from any client."""
    body = json.dumps({**BODIES["/v1/chat/completions"], **fields}).replace("\\\\", "\\").encode()
    answer = platform.ask("/v1/chat/completions", body)
    assert (answer.status, answer.code, json.loads(answer.body)["error"]["param"]) == (
        400,
        "unsupported_parameter",
        param,
    )
    assert platform.engine.seen == []


PICTURE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}
MESSAGE = {"role": "user", "content": [PICTURE]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [MESSAGE]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "g"}]}]}),
        ("/v1/completions", {"prompt": [MESSAGE]}),
        ("/v1/embeddings", {"messages": [MESSAGE]}),
        ("/v1/embeddings", {"input": [MESSAGE]}),
        ("/tokenize", {"messages": [MESSAGE]}),
        ("/v1/score", {"queries": {"content": [PICTURE]}, "documents": "x"}),
        ("/v1/score", {"text_2": [{"content": [{"image_url": PICTURE["image_url"]}]}]}),
    ],
)
def test_no_operation_makes_the_engine_fetch(path: str, fields: Any, platform: Platform) -> None:
    body = json.dumps({**BODIES[path], **fields})
    for escaped in (body, body.replace("image_url", "\\u0069mage_\\u0075rl").replace("content", "c\\u006fntent")):
        answer = platform.ask(path, escaped.encode())
        assert answer.status == 400, (path, answer)
    assert platform.engine.seen == []


def test_each_org_has_its_own_prefix_cache(platform: Platform) -> None:
    """Cached tokens and times would show which prompts another organisation has sent."""
    assert platform.chat().status == 200
    own = json.loads(platform.engine.seen[-1].body)["cache_salt"]
    assert platform.chat(cache_salt=own).status == 200
    assert json.loads(platform.engine.seen[-1].body)["cache_salt"] != own, "a caller can't choose a salt"


@pytest.mark.parametrize("arguments", [{"enable_thinking": False}, {}, 5, "chat_template", ["chat_template"]])
def test_a_templates_other_arguments_go_on(arguments: Any, platform: Platform) -> None:
    assert platform.chat(chat_template_kwargs=arguments).status == 200
    assert json.loads(platform.engine.seen[-1].body)["chat_template_kwargs"] == arguments


# what is rendered


SHAPES = (
    "{{7*191}}",
    "${7*191}",
    "#{7*191}",
    "<%= 7*191 %>",
    "{0.__class__}",
    "{request}",
    "%s%s%n%(secret)s",
    "$(id)",
)


def test_nothing_of_a_request_is_a_template(platform: Platform) -> None:
    """Strings are forwarded, or repeated in a rejection, unchanged; none is evaluated."""
    for text in SHAPES:
        message = [{"role": "user", "content": text, "name": text}]
        answer = platform.chat(messages=message, user=text, metadata={"session_id": text, text: text}, stop=text)
        assert answer.status == 200, answer
        sent = json.loads(platform.engine.seen[-1].body)
        assert (sent["messages"], sent["user"], sent["stop"]) == (message, text, text)
        for refused in (
            platform.chat(model=text),
            platform.chat(max_tokens=text),
            platform.ask("/v1/chat/completions", {text: 1}),
            platform.ask("/admin/keys", {"name": text, text: text}, key=ADMIN),
            platform.ask("/admin/keys/{{7*191}}", key=ADMIN, method="GET"),
            platform.ask(f"/v1/models/x{text}".replace(" ", "").replace("%", "").replace("#", ""), method="GET"),
        ):
            assert 400 <= refused.status < 500, (text, refused)
            assert b"1337" not in refused.body
            assert b"class" not in refused.body or "class" in text
    log = platform.gateway.log.read_text()
    assert "1337*" not in log
    assert "Traceback" not in log


def test_a_member_given_twice_is_refused(platform: Platform) -> None:
    """Two parsers could each take one: the allowed model for the check, the expensive one for the request."""
    for body in (
        b'{"model":"chat","messages":[],"model":"dear"}',
        b'{"model":"chat","messages":[],"mod\\u0065l":"dear"}',
        b'{"model":"chat","messages":[],"max_tokens":1,"max_tokens":100000}',
    ):
        answer = platform.ask("/v1/chat/completions", body)
        assert (answer.status, answer.code) == (400, "duplicate_parameter"), body
    assert platform.engine.seen == []


def test_a_line_of_the_log_is_one_requests(platform: Platform) -> None:
    """Log injection: a caller's value stays inside one JSON string."""
    forged = '%0a{"level":"error","message":"forged"}%0d%0a%1b[2J%e2%80%a8forged'
    platform.ask(f"/v1/models/{forged}", method="GET", x_client_request_id='a"},{"message":"forged"')
    wanted: list[dict[str, Any]] = []

    def is_there() -> bool:
        lines = platform.gateway.log.read_bytes().split(b"\n")
        wanted[:] = [json.loads(line) for line in lines if b"forged" in line]
        return bool(wanted)

    wait_until(is_there)
    assert [(line["logger"], line["level"]) for line in wanted] == [("quarterdeck.access", "info")]
    assert b"\x1b" not in platform.gateway.log.read_bytes()


# headers, both ways


def test_of_a_callers_headers_an_engine_sees_those_that_are_allowed(platform: Platform) -> None:
    headers = {
        "x_allowed": "yes",
        "x_other": "no",
        "cookie": "no",
        "x_goog_api_key": "no",
        "proxy_authorization": "Basic no",
        "x_request_id": "no",
        "x_forwarded_for": "10.0.0.1",
        "traceparent": "00-11111111111111111111111111111111-2222222222222222-01",
        "openai_organization": "no",
        "user_agent": "no",
        "accept_encoding": "gzip",
        "x_data_parallel_rank": "1",
    }
    for stream in (False, True):
        platform.engine.answer = events(delta("hi"), *CLOSING) if stream else answer_of(200, chat())
        body = {**BODIES["/v1/chat/completions"], "stream": stream}
        assert platform.ask("/v1/chat/completions", body, **headers).status == 200
        seen = platform.engine.seen[-1]
        own = {"host", "content-type", "content-length", "accept", "authorization", "x-request-id"}
        assert seen.names == own | {"x-allowed", "traceparent"}
        # The caller's trace, continued by the span of the call.
        _, trace, span, flags = dict(seen.headers)["traceparent"].split("-")
        assert (trace, flags) == ("1" * 32, "01") and span != "2" * 16
        assert dict(seen.headers)["authorization"] == f"Bearer {PROVIDERS_KEY}"
        assert USER not in str(seen)
        assert dict(seen.headers)["x-request-id"].startswith("req_")


ODD = (
    "set-cookie: session=engine",
    "x-engine-secret: engine",
    f"authorization: Bearer {PROVIDERS_KEY}",
    "server: engine",
    "x-request-id: engine",
    "access-control-allow-origin: *",
    "location: http://engine/",
    "www-authenticate: Basic engine",
    "openai-organization: engine",
    "content-encoding: identity",
    "x-ratelimit-limit-requests: engine",
)
OURS = {
    *("content-type", "content-length", "transfer-encoding", "x-request-id", "openai-processing-ms", "openai-version"),
    *("cache-control", "x-accel-buffering", "retry-after", "date", "x-cache"),
}


def test_of_an_engines_headers_a_caller_sees_none_but_the_content_type(platform: Platform) -> None:
    """Bifrost #3954: the provider's key was returned in a header."""
    answers = [
        (False, 200, answer_of(200, chat(), *ODD)),
        (False, 400, answer_of(400, b'{"error":{"message":"no"}}', *ODD)),
        (False, 502, answer_of(500, b'{"error":{"message":"no"}}', *ODD)),
        (False, 429, answer_of(429, b'{"error":{"message":"no"}}', "retry-after: 3", *ODD)),
        (False, 502, answer_of(302, b"", *ODD)),
        (True, 200, events(delta("hi"), *CLOSING, headers=ODD)),
        (True, 400, answer_of(400, b'{"error":{"message":"no"}}', *ODD)),
    ]
    for stream, status, answer in answers:
        platform.engine.answer = answer
        got = platform.chat(stream=stream)
        assert got.status == status, (answer, got)
        assert set(got.headers) - OURS == set(), answer
        assert "engine" not in str(got.headers)
        assert PROVIDERS_KEY not in str(got)
    assert len(platform.engine.seen) == len(answers), "an engine's redirect was followed"


def test_a_header_of_an_engine_can_not_end_the_line(platform: Platform) -> None:
    for retry_after in ("3\r\n set-cookie: a=b", "3\tset-cookie: a=b", "\xe9\x85", "9" * 5000):
        platform.engine.answer = answer_of(429, b'{"error":{"message":"no"}}', f"retry-after: {retry_after}")
        got = platform.chat()
        assert got.status in (429, 502, 503), retry_after
        assert "set-cookie" not in got.headers


def test_an_engine_that_repeats_our_key_is_not_repeated(platform: Platform) -> None:
    words = f"Incorrect API key provided: {PROVIDERS_KEY}. Sent: Authorization: Bearer {PROVIDERS_KEY}"
    error = json.dumps({"error": {"message": words, "param": words, "code": words, "type": words}})
    for answer in (
        *(answer_of(status, error.encode()) for status in (200, 400, 401, 403, 404, 422, 429, 500, 503)),
        answer_of(500, words.encode(), content_type="text/plain"),
        events(error),
        events(delta("hi"), error),
    ):
        platform.engine.answer = answer
        got = platform.chat(stream=answer.startswith(b"HTTP/1.1 200"))
        assert PROVIDERS_KEY not in str(got), answer


def test_an_engines_word_for_a_cause_is_bounded(platform: Platform) -> None:
    """The value becomes a metric label and is stored in the ledger."""
    for code in ("x" * 65, "a b", 'a"} 1\nforged{b="', "x" * 1_000_000):
        error = json.dumps({"error": {"message": "no", "code": code, "param": code}}).encode()
        platform.engine.answer = answer_of(400, error)
        got = platform.chat()
        assert (got.status, json.loads(got.body)["error"]["code"]) == (400, None)
        assert len(got.body) < 1000
