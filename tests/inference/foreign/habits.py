"""The habits, each with its outcome: for a whole answer and for a stream, where no other endpoint is there.

`ok`: the caller gets OpenAI's answer. A status and a code: the error before the answer begins. `event` and a code: an
error event in the stream. With a second, sound endpoint every outcome but the caller's own mistakes is `ok`.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.inference.foreign.hosted_server import (
    MEMBERS,
    TEXT,
    USAGE,
    Answer,
    Habit,
    Json,
    Refusal,
    as_events,
    dump,
    failing,
    strict,
    zipped,
)
from tests.net.upstream import Seen

FAILED, GONE, LATE = "502 engine_error", "503 engine_unavailable", "504 engine_timeout"
FULL, OVERLOADED, POOR = "429 engine_overloaded", "503 engine_overloaded", "503 engine_insufficient_quota"
LONG = "400 context_length_exceeded"


@dataclass(frozen=True)
class Row:
    """A habit and what becomes of it."""

    habit: Habit
    whole: str = "ok"
    stream: str = "ok"
    moves: bool = True
    """Whether another endpoint answers in its place where the outcome is not `ok`."""
    usage: str = "engine"
    """Where the record's token counts come from."""
    usage_of_stream: str = ""
    """The same of a stream, where it differs."""


def each_choice(change: Callable[[Json], Any]) -> dict[str, Any]:
    """A change of each choice of a whole answer and of a stream."""

    def whole(answer: Json) -> Json:
        for choice in answer["choices"]:
            change(choice)
        return answer

    def chunks(found: list[Json]) -> Sequence[Json]:
        return [whole(each) for each in found]

    return {"whole": whole, "chunks": chunks}


def each_answer(change: Callable[[Json], Any]) -> dict[str, Any]:
    def whole(answer: Json) -> Json:
        change(answer)
        return answer

    return {"whole": whole, "chunks": lambda found: [whole(each) for each in found]}


def after_text(found: list[Json], extra: Any) -> list[Any]:
    return [*found[:3], extra, *found[3:]]


def renamed_finish(word: Any) -> dict[str, Any]:
    def change(choice: Json) -> None:
        if choice.get("finish_reason"):
            choice["finish_reason"] = word

    return each_choice(change)


def without(*names: str) -> dict[str, Any]:
    def change(answer: Json) -> None:
        for name in names:
            answer.pop(name, None)

    return each_answer(change)


def in_choice_without(*names: str) -> dict[str, Any]:
    def change(choice: Json) -> None:
        for name in names:
            choice.pop(name, None)

    return each_choice(change)


def usage_moved(found: list[Json], where: Callable[[Json, Json], None]) -> list[Json]:
    """Without the chunk for the usage: it is in the last chunk with a choice."""
    kept = [each for each in found if each["choices"]]
    where(kept[-1], USAGE)
    return kept


def role_everywhere(found: list[Json]) -> list[Json]:
    for chunk in found:
        for choice in chunk["choices"]:
            choice["delta"]["role"] = "assistant"
    return found


def parts(message: Json) -> Json:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    return {**message, "content": [thinking, {"type": "text", "text": "".join(TEXT)}]}


CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}


def with_message(found: list[Json]) -> Json:
    """The last choice, with the whole message in place of a delta."""
    text = "".join(choice["delta"].get("content", "") for each in found for choice in each["choices"])
    message = {"role": "assistant", "content": text}
    return {"index": 0, "finish_reason": found[-2]["choices"][0]["finish_reason"], "message": message}


def calls(**changes: Any) -> Callable[[Json], Json]:
    return lambda message: {**message, "content": None, "tool_calls": [{**CALL, **changes}]}


def calls_without_index(found: list[Json]) -> list[Json]:
    """Gemini: each call comes whole, and none has an index."""
    for chunk in found:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                del call["index"]
    return found


def calls_with_everything_in_each_fragment(found: list[Json]) -> list[Json]:
    for chunk in found:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                call["id"], call["type"] = "call_1", "function"
                call["function"]["name"] = "look_up"
    return found


def arguments_as_object(answer: Json) -> Json:
    for call in answer["choices"][0]["message"]["tool_calls"]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return answer


def needs_key(name: str, value: str) -> Refusal:
    def refuse(seen: Seen, asked: Json) -> Answer | None:
        return None if seen.header(name) == value else Answer(401, b'{"error":{"message":"no key"}}')

    return refuse


def needs_version(seen: Seen, asked: Json) -> Answer | None:
    found = seen.path.endswith("?api-version=2024-10-21") and seen.header("api-key") == "sk-up"
    return None if found else Answer(404, b'{"error":{"code":"404","message":"Resource not found"}}')


def only_new_cap(seen: Seen, asked: Json) -> Answer | None:
    if "max_tokens" not in asked:
        return None
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
    return Answer(400, dump({"error": error}))


def one_cap(seen: Seen, asked: Json) -> Answer | None:
    if "max_tokens" in asked and "max_completion_tokens" in asked:
        return Answer(400, b'{"error":{"message":"Setting both caps at the same time is not supported."}}')
    return None


def stored_metadata(seen: Seen, asked: Json) -> Answer | None:
    if "metadata" not in asked or asked.get("store"):
        return None
    message = "The 'metadata' parameter is only allowed when 'store' is enabled."
    return Answer(400, dump({"error": {"message": message, "type": "invalid_request_error", "param": "metadata"}}))


def error_event(error: Any, *, prefix: bytes = b"data: ") -> Callable[[Sequence[Any]], bytes]:
    """A stream that breaks off with an error after two words."""

    def write(chunks: Sequence[Any]) -> bytes:
        return as_events(chunks[:3]).removesuffix(b"data: [DONE]\n\n") + prefix + dump(error) + b"\n\n"

    return write


def error_at_once(error: Any) -> dict[str, Any]:
    return {"whole": lambda answer: error, "write": lambda chunks: b"data: " + dump(error) + b"\n\n"}


def multi_line(chunks: Sequence[Any]) -> bytes:
    lines = [json.dumps(each, indent=1).split("\n") for each in chunks]
    events = ["".join(f"data: {line}\n" for line in each) + "\n" for each in lines]
    return "".join(events).encode() + b"data: [DONE]\n\n"


FLAT_MISTRAL = strict(
    lambda names: (
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
                    for name in names
                ]
            },
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
    )
)
GEMINI_UNKNOWN = strict(
    lambda names: (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "\n".join(
                        f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in names
                    ),
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    )
)
GEMINI_FULL = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}],
    }
}
NO_OPTIONS = strict(
    lambda names: (400, {"error": {"message": f"Unrecognized request argument supplied: {names[0]}", "code": None}}),
    MEMBERS - {"stream_options"},
)
SERDE = strict(lambda names: (422, f"Failed to deserialize the JSON body: unknown field `{names[0]}`"))


def an_error(status: int, body: Any, outcome: str, *headers: str, moves: bool = True) -> Row:
    return Row(Habit(refuse=failing(status, body, *headers)), outcome, outcome, moves=moves)


ROWS: dict[str, Row] = {
    "OpenAI": Row(Habit()),
    # what a request may hold
    "Mistral refuses unknown members with 422": Row(Habit(refuse=FLAT_MISTRAL)),
    "Gemini refuses unknown members with an array": Row(Habit(refuse=GEMINI_UNKNOWN)),
    "DeepSeek refuses unknown members with a text": Row(Habit(refuse=SERDE)),
    "older Azure refuses stream_options": Row(Habit(refuse=NO_OPTIONS), usage_of_stream="estimated"),
    "OpenAI's reasoning models refuse max_tokens": Row(Habit(refuse=only_new_cap)),
    "OpenAI refuses two caps": Row(Habit(refuse=one_cap)),
    "OpenAI takes metadata only with store": Row(Habit(refuse=stored_metadata)),
    "llama.cpp ignores max_completion_tokens": Row(Habit(caps=("max_tokens",))),
    # addresses and keys
    "Gemini's path": Row(Habit(path="/v1beta/openai/chat/completions", prefix="/v1beta/openai")),
    "Groq's path": Row(Habit(path="/openai/v1/chat/completions", prefix="/openai/v1")),
    "Zhipu's path": Row(Habit(path="/api/paas/v4/chat/completions", prefix="/api/paas/v4/")),
    "a whole URL": Row(Habit(prefix="/v1/chat/completions")),
    "Azure's deployment": Row(
        Habit(
            path="/openai/deployments/gpt/chat/completions",
            prefix="/openai/deployments/gpt?api-version=2024-10-21",
            refuse=needs_version,
        )
    ),
    "a bearer token": Row(Habit(refuse=needs_key("authorization", "Bearer sk-up"))),
    "a wrong address": Row(Habit(path="/elsewhere"), FAILED, FAILED),
    # usage
    "no usage": Row(Habit(includes_usage=False, **without("usage")), usage="estimated"),
    "Groq's usage": Row(
        Habit(chunks=lambda f: usage_moved(f, lambda c, u: c.update(x_groq={"id": "req_1", "usage": u})))
    ),
    "usage in the last chunk with a choice": Row(
        Habit(chunks=lambda f: usage_moved(f, lambda c, u: c.update(usage=u)))
    ),
    "xAI's usage in each chunk": Row(
        Habit(chunks=lambda found: [{**each, "usage": USAGE} for each in found if each["choices"]])
    ),
    "Moonshot's usage": Row(
        Habit(chunks=lambda f: usage_moved(f, lambda chunk, usage: chunk["choices"][0].update(usage=usage)))
    ),
    "MiniMax's last chunk": Row(
        Habit(chunks=lambda found: [*found[:-2], {**found[-2], "choices": [with_message(found)]}, found[-1]])
    ),
    "Mistral's null usage": Row(Habit(chunks=lambda found: [{"usage": None, **each} for each in found])),
    # how a stream is written
    "OpenRouter's comments": Row(
        Habit(write=lambda chunks: b": OPENROUTER PROCESSING\n\n" * 3 + b": x\n\n".join([as_events(chunks)]))
    ),
    "DeepSeek's comments": Row(Habit(write=lambda c: b": keep-alive\n\n" + as_events(c), pieces=1)),
    "ids and event names": Row(
        Habit(write=lambda chunks: as_events(chunks).replace(b"data: ", b"id: 7\nevent: message\nretry: 9\ndata: "))
    ),
    "pings": Row(Habit(write=lambda c: b"event: ping\n\n" + as_events(c).replace(b"\n\n", b"\n\nevent: ping\n\n", 2))),
    "CRLF": Row(Habit(write=lambda chunks: as_events(chunks).replace(b"\n", b"\r\n"))),
    "CRLF byte by byte": Row(Habit(write=lambda chunks: as_events(chunks).replace(b"\n", b"\r\n"), pieces=1)),
    "data without space": Row(Habit(write=lambda chunks: as_events(chunks).replace(b"data: ", b"data:"))),
    "data of several lines": Row(Habit(write=multi_line)),
    "a byte order mark": Row(Habit(write=lambda chunks: b"\xef\xbb\xbf" + as_events(chunks))),
    "a byte order mark on its own": Row(Habit(write=lambda chunks: b"\xef\xbb\xbf" + as_events(chunks), pieces=1)),
    "CR": Row(Habit(write=lambda chunks: as_events(chunks).replace(b"\n", b"\r"))),
    "data twice": Row(Habit(write=lambda chunks: as_events(chunks).replace(b"data: ", b"data: data: "))),
    "a byte order mark before JSON": Row(Habit(whole=lambda answer: b"\xef\xbb\xbf" + dump(answer))),
    "no [DONE]": Row(Habit(write=lambda chunks: as_events(chunks).removesuffix(b"data: [DONE]\n\n"))),
    "no [DONE] and no end of the body": Row(
        Habit(write=lambda chunks: as_events(chunks).removesuffix(b"data: [DONE]\n\n"), ends_body=False)
    ),
    "no end of the body after half of the text": Row(
        Habit(chunks=lambda f: f[:3], write=lambda c: as_events(c).removesuffix(b"data: [DONE]\n\n"), ends_body=False),
        stream="event engine_error",
        moves=False,
    ),
    "no [DONE] and no blank line": Row(Habit(write=lambda c: as_events(c).removesuffix(b"\n\ndata: [DONE]\n\n"))),
    "[DONE] without a blank line": Row(Habit(write=lambda chunks: as_events(chunks).removesuffix(b"\n\n"))),
    "no finish reason": Row(Habit(**in_choice_without("finish_reason"))),
    "an empty finish reason": Row(Habit(**renamed_finish(""))),
    "neither finish reason nor [DONE] but usage": Row(
        Habit(**in_choice_without("finish_reason"), write=lambda c: as_events(c).removesuffix(b"data: [DONE]\n\n"))
    ),
    "neither finish reason nor [DONE] nor usage": Row(
        Habit(
            whole=lambda answer: answer,
            chunks=lambda found: [each for each in found if each["choices"]][:-1],
            write=lambda c: as_events(c).removesuffix(b"data: [DONE]\n\n"),
        ),
        stream="event engine_error",
        moves=False,
    ),
    "a stream cut in the middle of an event": Row(
        Habit(chunks=lambda f: f[:3], write=lambda c: as_events(c).removesuffix(b"}\n\ndata: [DONE]\n\n")),
        stream="event engine_error",
        moves=False,
    ),
    "a stream with nothing": Row(Habit(write=lambda chunks: b"data: [DONE]\n\n"), stream=GONE),
    # content and its encoding
    "gzip": Row(Habit(headers=("content-encoding: gzip",), encode=zipped)),
    "gzip byte by byte": Row(Habit(headers=("Content-Encoding: gzip",), encode=zipped, pieces=1)),
    "deflate": Row(Habit(headers=("content-encoding: deflate",), encode=zlib.compress)),
    "deflate without a header": Row(
        Habit(headers=("content-encoding: deflate",), encode=lambda body: zlib.compress(body)[2:-4])
    ),
    "gzip in two members": Row(
        Habit(headers=("content-encoding: gzip",), encode=lambda body: zipped(body[:50]) + zipped(body[50:]), pieces=7)
    ),
    "gzip of empty members": Row(
        Habit(headers=("content-encoding: gzip",), encode=lambda body: zipped(b"") * 200), FAILED, FAILED
    ),
    "brotli": Row(Habit(headers=("content-encoding: br",)), FAILED, FAILED),
    "a bomb": Row(
        Habit(headers=("content-encoding: gzip",), encode=lambda body: zipped(bytes(64 * 1024 * 1024))), FAILED, FAILED
    ),
    "gzip cut off": Row(
        Habit(
            headers=("content-encoding: gzip",),
            encode=lambda body: zipped(body)[: len(zipped(body)) * 6 // 10],
        ),
        FAILED,
        FAILED,
    ),
    "text/plain": Row(Habit(content_type="text/plain", stream_type="text/plain")),
    "text/plain byte by byte": Row(Habit(stream_type="text/plain", pieces=1)),
    "octet-stream": Row(Habit(content_type="application/octet-stream", stream_type="application/octet-stream")),
    "no content type": Row(Habit(content_type="", stream_type="")),
    "JSON with a charset": Row(Habit(content_type="application/json; charset=utf-8")),
    "NDJSON for events": Row(Habit(stream_type="application/x-ndjson")),
    "a login page": Row(
        Habit(
            whole=lambda a: b"<!doctype html>Log in",
            content_type="text/html",
            stream_type="text/html",
            write=lambda c: b"<!doctype html>Log in",
        ),
        FAILED,
        FAILED,
    ),
    "JSON that is no answer": Row(
        Habit(whole=lambda a: {"status": "ok"}, stream_type="application/json", write=lambda c: b'{"status":"ok"}'),
        FAILED,
        FAILED,
    ),
    "leading blank lines": Row(Habit(whole=lambda answer: b"\n\n\n" + dump(answer))),
    "a whole answer to a stream": Row(Habit(stream_type="application/json", write=lambda chunks: dump(WHOLE), caps=())),
    # shapes
    "indices from 1": Row(Habit(**each_choice(lambda choice: choice.update(index=1)))),
    "no indices": Row(Habit(**in_choice_without("index"))),
    "Azure's first chunk": Row(
        Habit(
            chunks=lambda found: [
                {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []},
                *found,
            ]
        )
    ),
    "Azure's chunks without delta": Row(
        Habit(
            chunks=lambda found: after_text(
                found,
                {
                    "id": "",
                    "object": "",
                    "created": 0,
                    "model": "",
                    "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}],
                },
            )
        )
    ),
    "no choices now and then": Row(Habit(chunks=lambda found: after_text(found, {**found[0], "choices": []}))),
    "null choices": Row(Habit(chunks=lambda found: after_text(found, {**found[0], "choices": None}))),
    "a role in each chunk": Row(Habit(chunks=role_everywhere)),
    "no id": Row(Habit(**without("id"))),
    "no object": Row(Habit(**without("object"))),
    "no created": Row(Habit(**without("created"))),
    "a new id in each chunk": Row(
        Habit(chunks=lambda found: [{**each, "id": f"x-{at}"} for at, each in enumerate(found)])
    ),
    "TGI's finish reason": Row(Habit(**renamed_finish("eos_token"))),
    "Gemini's finish reason": Row(Habit(**renamed_finish("STOP"))),
    "DeepSeek's lack of resources": Row(
        Habit(**renamed_finish("insufficient_system_resource")), OVERLOADED, "event engine_overloaded", moves=True
    ),
    "reasoning_content": Row(Habit(message=lambda message: {**message, "reasoning_content": "Hm."})),
    "reasoning": Row(Habit(message=lambda message: {**message, "reasoning": "Hm."})),
    "Mistral's parts": Row(Habit(message=parts)),
    "a refusal": Row(Habit(message=lambda message: {**message, "refusal": "No."})),
    "tool calls": Row(Habit(message=calls())),
    "Gemini's tool calls without index": Row(Habit(message=calls(), chunks=calls_without_index)),
    "tool calls with all in each fragment": Row(Habit(message=calls(), chunks=calls_with_everything_in_each_fragment)),
    "tool calls that stop": Row(Habit(message=calls(), **renamed_finish("stop"))),
    "tool calls without id": Row(Habit(message=calls(id=""))),
    "arguments as an object": Row(Habit(message=calls(), whole=arguments_as_object)),
    # errors
    "OpenAI: no quota": an_error(
        429,
        {
            "error": {
                "message": "You exceeded your current quota.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
        POOR,
    ),
    "OpenAI: rate limit": an_error(
        429,
        {
            "error": {
                "message": "Rate limit reached in organization org-secret",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
        FULL,
        "retry-after: 2",
    ),
    "OpenAI: wrong key": an_error(
        401, {"error": {"message": "Incorrect API key provided: sk-up.", "code": "invalid_api_key"}}, FAILED
    ),
    "OpenAI: wrong model": an_error(
        404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, FAILED
    ),
    "OpenAI: too long": an_error(
        400, {"error": {"message": "long", "code": "context_length_exceeded", "param": "messages"}}, LONG, moves=False
    ),
    "DeepSeek: no balance": an_error(
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
        POOR,
    ),
    "Azure: rate limit": an_error(
        429, {"error": {"code": "429", "message": "Please retry after 26 seconds."}}, FULL, "retry-after-ms: 25500"
    ),
    "Azure: its front": an_error(429, {"statusCode": 429, "message": "Rate limit is exceeded."}, FULL),
    "Azure: filter": an_error(
        400,
        {
            "error": {
                "code": "content_filter",
                "message": "filtered",
                "param": "prompt",
                "status": 400,
                "innererror": {},
            }
        },
        "400 content_filter",
        moves=False,
    ),
    "Gemini: quota": an_error(429, [GEMINI_FULL], FULL),
    "Gemini: wrong key": an_error(
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        FAILED,
    ),
    "Gemini: overloaded": an_error(
        503, [{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}], GONE
    ),
    "xAI: wrong key": an_error(
        400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk-up"}, FAILED
    ),
    "Groq: too large": an_error(
        413,
        {"error": {"message": "Request too large", "type": "tokens", "code": "rate_limit_exceeded"}},
        "413 rate_limit_exceeded",
        moves=False,
    ),
    "Groq: capacity": an_error(498, {"error": {"message": "Flex tier capacity exceeded"}}, OVERLOADED),
    "Anthropic: overloaded": an_error(
        529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, OVERLOADED
    ),
    "OpenRouter: no credits": an_error(402, {"error": {"code": 402, "message": "Insufficient credits"}}, POOR),
    "OpenRouter: moderation": an_error(
        403,
        {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"], "flagged_input": "x"}}},
        "400 content_filter",
        moves=False,
    ),
    "OpenRouter: not allowed": an_error(403, {"error": {"code": 403, "message": "Key limit exceeded"}}, FAILED),
    "OpenRouter: an error in a 200": Row(
        Habit(**error_at_once({"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"})),
        FAILED,
        FAILED,
    ),
    "OpenRouter: an error in a choice": Row(
        Habit(
            **error_at_once(
                {
                    "id": "x",
                    "choices": [
                        {
                            "index": 0,
                            "delta": {"content": ""},
                            "message": {"role": "assistant", "content": ""},
                            "finish_reason": "error",
                            "error": {"code": 429, "message": "Provider is full"},
                        }
                    ],
                }
            )
        ),
        FULL,
        FULL,
    ),
    "OpenRouter: an error in mid-stream": Row(
        Habit(
            write=error_event(
                {
                    "id": "x",
                    "error": {"code": "server_error", "message": "Provider disconnected"},
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                }
            )
        ),
        stream="event engine_error",
        moves=False,
    ),
    "Gemini: a bare error in mid-stream": Row(
        Habit(write=error_event({"error": {"code": 503, "message": "overloaded"}}, prefix=b"")),
        stream="event engine_unavailable",
        moves=False,
    ),
    "TGI: an error in mid-stream": Row(
        Habit(write=error_event({"error": "Model is overloaded", "error_type": "overloaded"}, prefix=b"data:")),
        stream="event engine_overloaded",
        moves=False,
    ),
    "an event named error": Row(
        Habit(write=error_event({"message": "broken", "code": 500}, prefix=b"event: error\ndata: ")),
        stream="event engine_error",
        moves=False,
    ),
    "Mistral: wrong model": an_error(
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"},
        FAILED,
    ),
    "DeepSeek: wrong model": an_error(
        400,
        {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}},
        FAILED,
    ),
    "Groq: decommissioned": an_error(
        400, {"error": {"message": "The model `x` has been decommissioned", "code": "model_decommissioned"}}, FAILED
    ),
    "OpenRouter: wrong model": an_error(400, {"error": {"code": 400, "message": "x is not a valid model ID"}}, FAILED),
    "Gemini: location": an_error(
        400, [{"error": {"code": 400, "message": "User location is not supported for the API use."}}], FAILED
    ),
    "Gemini: billing": an_error(
        400, [{"error": {"code": 400, "message": "Please enable billing on your project."}}], POOR
    ),
    "flat": an_error(
        400,
        {"object": "error", "message": "Bad value", "type": "invalid_request", "param": None, "code": "3000"},
        "400 None",
        moves=False,
    ),
    "Together: 422": an_error(
        422,
        {
            "id": "x",
            "error": {
                "message": "max_new_tokens must be <= 4096",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        },
        "422 None",
        moves=False,
    ),
    "TGI: too long": an_error(
        422,
        {
            "error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 9000",
            "error_type": "validation",
        },
        "422 context_length_exceeded",
        moves=False,
    ),
    "llama.cpp: too long": an_error(
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9000,
                "n_ctx": 4096,
            }
        },
        LONG,
        moves=False,
    ),
    "llama.cpp: loading": an_error(
        503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, GONE
    ),
    "LM Studio: too long": an_error(
        400,
        {
            "error": "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens"
        },
        LONG,
        moves=False,
    ),
    "Ollama: no such model": an_error(
        404, {"error": {"message": 'model "x" not found', "type": "api_error", "param": None, "code": None}}, FAILED
    ),
    "SGLang: too long": an_error(
        400,
        {
            "object": "error",
            "message": "The input (9000 tokens) is longer than the model's context length (4096).",
            "type": "BadRequest",
            "param": None,
            "code": 400,
        },
        LONG,
        moves=False,
    ),
    "SGLang: busy": an_error(503, {"object": "error", "message": "The request queue is full.", "code": 503}, GONE),
    "a gateway's page": an_error(502, b"<html><h1>502 Bad Gateway</h1></html>", FAILED),
    "a redirect": an_error(307, b"", FAILED, "location: https://elsewhere.test/"),
    "Cloudflare: time-out": an_error(524, b"<html>A timeout occurred</html>", LATE),
    "503 with Retry-After": an_error(503, {"error": {"message": "busy"}}, GONE, "retry-after: 5"),
}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "up",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "".join(TEXT)}, "finish_reason": "stop"},
    ],
    "usage": USAGE,
}
