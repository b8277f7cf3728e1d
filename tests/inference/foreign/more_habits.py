"""More habits, as `habits` words them: those that reports of other gateways' and clients' users describe."""

import gzip
from collections.abc import Callable, Sequence
from typing import Any

from tests.inference.foreign.habits import (
    FAILED,
    FULL,
    GONE,
    OVERLOADED,
    POOR,
    Row,
    after_text,
    an_error,
    calls,
    each_answer,
    each_choice,
    error_at_once,
    error_event,
    renamed_finish,
)
from tests.inference.foreign.hosted_server import TEXT, USAGE, Habit, Json, as_events, dump


def counted(usage: Any) -> dict[str, Any]:
    """This usage in place of OpenAI's."""

    def whole(answer: Json) -> Json:
        return {**answer, "usage": usage}

    return {"whole": whole, "chunks": lambda found: [*found[:-1], {**found[-1], "usage": usage}]}


def content_as(wrap: Callable[[str], Any]) -> dict[str, Any]:
    """The content in another form."""

    def change(choice: Json) -> None:
        for name in ("message", "delta"):
            if choice.get(name, {}).get("content"):
                choice[name]["content"] = wrap(choice[name]["content"])

    return each_choice(change)


def moved_message(name: str, wrap: Callable[[Json], Any]) -> dict[str, Any]:
    """The message or delta of each choice under another name."""

    def change(choice: Json) -> None:
        for known in ("message", "delta"):
            if known in choice:
                choice[name] = wrap(choice.pop(known))

    return each_choice(change)


def camel(choice: Json) -> None:
    choice["finishReason"] = choice.pop("finish_reason")


def stream_for_whole(end: bytes = b"data: [DONE]\n\n", text: Sequence[str] = TEXT[:3]) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": each} for each in text)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    chunks.append({**head, "choices": [], "usage": USAGE})
    return as_events(chunks).removesuffix(b"data: [DONE]\n\n") + end


def said_as(change: Callable[[bytes], bytes], pieces: int = 0) -> Row:
    """A stream written in another way."""
    return Row(Habit(write=lambda chunks: change(as_events(chunks)), pieces=pieces))


def with_each_call(change: Callable[[Json], None]) -> dict[str, Any]:
    def change_choice(choice: Json) -> None:
        for name in ("message", "delta"):
            for call in choice.get(name, {}).get("tool_calls") or ():
                change(call)

    return {"message": calls(), **each_choice(change_choice)}


def flat(call: Json) -> None:
    call.update(call.pop("function"))


def index_from_one(call: Json) -> None:
    if "index" in call:
        call["index"] += 1


def name_in_every_fragment(call: Json) -> None:
    call["function"]["name"] = "look_up"


def name_late(found: list[Json]) -> Sequence[Json]:
    """The name comes with the second fragment."""
    fragments = [call for each in found for choice in each["choices"] for call in choice["delta"].get("tool_calls", ())]
    fragments[1]["function"]["name"] = fragments[0]["function"].pop("name")
    return found


def calls_in_an_object(choice: Json) -> None:
    for name in ("message", "delta"):
        if found := choice.get(name, {}).get("tool_calls"):
            choice[name]["tool_calls"] = found[0]


def emoji_in_halves(found: list[Json]) -> list[Json]:
    return after_text(after_text(found, _text("\ude00")), _text("\ud83d"))


def _text(text: str) -> Json:
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


WARNING = b'data: {"warning": "no usage"}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
MORE_ROWS: dict[str, Row] = {
    **{
        f"finish reason {word}": Row(Habit(**renamed_finish(word)))
        for word in (
            *("EOS", "stop_token", "COMPLETE", "completed", "max_output_tokens", "maxTokens", "FINISH_REASON_STOP"),
            *("FINISH_REASON_UNSPECIFIED", "null", "length_limit", "model_context_window_exceeded", "pause_turn"),
            *("user_requested", "unknown", 0, True),
        )
    },
    **{
        f"finish reason {word}": Row(Habit(**renamed_finish(word)), FAILED, "event engine_error", moves=True)
        for word in ("abort", "cancelled", "network_error", "ERROR")
    },
    "Gemini's finishReason": Row(Habit(**each_choice(camel))),
    "two last chunks": Row(Habit(chunks=lambda found: [*found[:-1], found[-2], found[-1]])),
    # usage
    "counts as text": Row(Habit(**counted({name: str(value) for name, value in USAGE.items()}))),
    "counts as decimals": Row(Habit(**counted({name: float(value) for name, value in USAGE.items()}))),
    "negative counts": Row(Habit(**counted(dict.fromkeys(USAGE, -1))), usage="estimated"),
    "null counts": Row(Habit(**counted(dict.fromkeys(USAGE))), usage="estimated"),
    "counts of zero": Row(Habit(**counted(dict.fromkeys(USAGE, 0))), usage="estimated"),
    "halves of tokens": Row(Habit(**counted({**USAGE, "completion_tokens": 4.5})), usage="estimated"),
    "usage of text": Row(Habit(**counted("7 tokens")), usage="estimated"),
    "only a total": Row(Habit(**counted({"total_tokens": 11})), usage="estimated"),
    "no total": Row(Habit(**counted({"prompt_tokens": 7, "completion_tokens": 4}))),
    "Anthropic's counts": Row(Habit(**counted({"input_tokens": 7, "output_tokens": 4}))),
    "counts in camel case": Row(Habit(**counted({"promptTokens": 7, "completionTokens": 4, "totalTokens": 11}))),
    "Ollama's own counts": Row(Habit(**counted({"prompt_eval_count": 7, "eval_count": 4}))),
    "LocalAI's counts of zero in each chunk": Row(
        Habit(chunks=lambda found: [{**each, "usage": dict.fromkeys(USAGE, 0)} for each in found if each["choices"]]),
        usage_of_stream="estimated",
    ),
    "usage in the first chunk": Row(
        Habit(chunks=lambda found: [{**found[0], "usage": USAGE}, *(each for each in found[1:] if each["choices"])])
    ),
    "usage beside an empty delta after the end": Row(
        Habit(chunks=lambda f: [*f[:-1], {**f[0], "choices": [{"index": 0, "delta": {"content": ""}}], "usage": USAGE}])
    ),
    "usage in a chunk without choices": Row(
        Habit(chunks=lambda f: [*f[:-1], {"id": f[0]["id"], "usage": f[-1]["usage"]}])
    ),
    # how a stream is written
    "[DONE] in quotes": said_as(lambda said: said.replace(b"[DONE]", b'"[DONE]"')),
    "[done]": said_as(lambda said: said.replace(b"[DONE]", b"[done]")),
    "[DONE] twice and with spaces": said_as(lambda said: said.replace(b"[DONE]", b"  [DONE] ") + b"data: [DONE]\n\n"),
    "an end in words": said_as(lambda said: said.replace(b"[DONE]", b"end")),
    "an event without data at the end": said_as(lambda said: said.replace(b"data: [DONE]", b"event: done\ndata:")),
    "a text to keep it alive": said_as(lambda said: b"data: keepalive\n\ndata: ping\n\n" + said),
    "null to keep it alive": said_as(lambda said: b"data: null\n\ndata: {}\n\n" + said),
    "pings of JSON": said_as(lambda said: PING + said.replace(b"\n\n", b"\n\n" + PING, 2)),
    "a warning without choices": said_as(
        lambda said: said.replace(b"\n\n", b'\n\ndata: {"warning": "no usage"}\n\n', 2)
    ),
    "no blank lines": said_as(lambda said: said.replace(b"\n\n", b"\n")),
    "no blank lines byte by byte": said_as(lambda said: said.replace(b"\n\n", b"\n"), pieces=1),
    "blank lines of spaces": said_as(lambda said: said.replace(b"\n\n", b"\n \n\n")),
    "Data in upper case": said_as(lambda said: said.replace(b"data: ", b"Data: ")),
    "tabs": said_as(lambda said: said.replace(b"data: ", b"data:\t")),
    "mixed line ends": said_as(lambda said: said.replace(b"\n\n", b"\r\n\n", 3), pieces=1),
    "comments in events": said_as(lambda said: said.replace(b"data: ", b": hb\ndata: ")),
    "text after the end": said_as(lambda said: said + b"bye"),
    "JSON lines": Row(
        Habit(
            stream_type="application/x-ndjson",
            write=lambda chunks: b"".join(dump(each) + b"\n" for each in chunks),
        )
    ),
    "JSON lines byte by byte": Row(
        Habit(
            stream_type="application/jsonl",
            write=lambda chunks: b"".join(dump(each) + b"\n" for each in chunks),
            pieces=1,
        )
    ),
    "events as JSON": Row(Habit(stream_type="application/json; charset=utf-8")),
    "a content type in upper case": Row(Habit(stream_type="Text/Event-Stream; charset=UTF-8")),
    "NaN": Row(
        Habit(
            whole=lambda answer: dump(answer).replace(b'"usage"', b'"x": NaN, "usage"'),
            write=lambda chunks: as_events(chunks).replace(b'"model"', b'"x": NaN, "model"'),
        )
    ),
    "bytes that are no UTF-8": Row(
        Habit(write=lambda chunks: as_events(chunks).replace(b'"model"', b'"x": "\xff", "model"'))
    ),
    "a whole answer as an event": Row(
        Habit(
            write=lambda chunks: b"data: " + dump(_whole()) + b"\n\ndata: [DONE]\n\n",
        )
    ),
    # a stream where a whole answer was asked for
    "a stream to a whole request": Row(
        Habit(whole=lambda answer: stream_for_whole(), content_type="text/event-stream"),
    ),
    "a stream to a whole request as JSON": Row(Habit(whole=lambda answer: stream_for_whole())),
    "a stream to a whole request without [DONE]": Row(
        Habit(whole=lambda answer: stream_for_whole(b""), content_type="text/plain")
    ),
    "a stream to a whole request that is cut off": Row(
        Habit(whole=lambda answer: stream_for_whole()[:500], content_type="text/event-stream"), FAILED
    ),
    "a stream to a whole request with an error": Row(
        Habit(
            whole=lambda answer: b'data: {"error":{"message":"full","code":429}}\n\n',
            content_type="text/event-stream",
        ),
        FULL,
    ),
    "a stream to a whole request with an error in the middle": Row(
        Habit(
            whole=lambda answer: (
                stream_for_whole()[:450].rpartition(b"\n\n")[0]
                + b'\n\ndata: {"error":{"message":"full","code":529}}\n\n'
            ),
            content_type="text/event-stream",
        ),
        OVERLOADED,
    ),
    # shapes
    "a text in an object": Row(Habit(**content_as(lambda text: {"type": "text", "text": text}))),
    "a text in Gemini's parts": Row(Habit(**content_as(lambda text: {"parts": [{"text": text}]}))),
    "a text in a list of texts": Row(Habit(**content_as(lambda text: [text]))),
    "a text in output parts": Row(Habit(**content_as(lambda text: [{"type": "output_text", "text": text}]))),
    "thoughts in a part": Row(
        Habit(**content_as(lambda text: [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": text}]))
    ),
    "a message that is a text": Row(
        Habit(**moved_message("text", lambda message: message.get("content") or ""), caps=("max_tokens",))
    ),
    "a delta in a whole answer": Row(
        Habit(
            whole=moved_message("delta", lambda message: message)["whole"],
        )
    ),
    "a list of messages": Row(Habit(whole=moved_message("messages", lambda message: [message])["whole"])),
    "a role that is null": Row(
        Habit(**each_choice(lambda choice: (choice.get("message") or choice["delta"]).update(role=None)))
    ),
    "the role model": Row(
        Habit(**each_choice(lambda choice: (choice.get("message") or choice["delta"]).update(role="model")))
    ),
    "an id that is a number": Row(Habit(**each_answer(lambda answer: answer.update(id=5)))),
    "a time that is a text": Row(Habit(**each_answer(lambda answer: answer.update(created="1700000000")))),
    "a time with a fraction": Row(Habit(**each_answer(lambda answer: answer.update(created=1700000000.5)))),
    "no model": Row(Habit(**each_answer(lambda answer: answer.update(model=None)))),
    "no error": Row(Habit(**each_answer(lambda answer: answer.update(error=None)))),
    "choices that are null": Row(Habit(**each_answer(lambda answer: answer["choices"].insert(0, None)))),
    "a choice that nobody asked for": Row(
        Habit(
            chunks=lambda found: [
                {**each, "choices": [*each["choices"], {"index": 1, "delta": {"content": "X"}}]}
                if each["choices"]
                else each
                for each in found
            ]
        )
    ),
    # tool calls
    "tool calls with indices from 1": Row(Habit(**with_each_call(index_from_one))),
    "tool calls whose index is a text": Row(Habit(**with_each_call(lambda call: call.update(index="0")))),
    "tool calls with a null index": Row(Habit(**with_each_call(lambda call: call.update(index=None)))),
    "tool calls with the name in each fragment": Row(Habit(**with_each_call(name_in_every_fragment))),
    "tool calls with a late name": Row(Habit(message=calls(), chunks=name_late)),
    "tool calls without function": Row(Habit(**with_each_call(flat))),
    "tool calls in an object": Row(Habit(message=calls(), **each_choice(calls_in_an_object))),
    "tool calls with an id that is a number": Row(Habit(message=calls(id=7))),
    "tool calls with a null type": Row(Habit(message=calls(type=None))),
    # errors in a 200
    "an error of a list": Row(Habit(**error_at_once({"error": ["boom"]})), FAILED, FAILED),
    "an error without a name": Row(Habit(**error_at_once({"detail": "boom"})), FAILED, FAILED),
    "Zhipu's error in a 200": Row(Habit(**error_at_once({"code": 429, "msg": "full"})), FULL, FULL),
    "MiniMax's error in a 200": Row(
        Habit(**error_at_once({"base_resp": {"status_code": 1004, "status_msg": "login fail"}})), FAILED, FAILED
    ),
    "Cloudflare's error in a 200": Row(
        Habit(**error_at_once({"success": False, "errors": [{"message": "boom"}], "result": None})), FAILED, FAILED
    ),
    "an error of a model that is too small": Row(
        Habit(
            **error_at_once(
                {"object": "error", "message": "This model's maximum context length is 9 tokens", "code": 400}
            )
        ),
        "400 context_length_exceeded",
        "400 context_length_exceeded",
        moves=False,
    ),
    "an error after the role": Row(
        Habit(
            write=lambda chunks: (
                as_events(chunks[:1]).removesuffix(b"data: [DONE]\n\n")
                + b'data: {"error":{"message":"full","code":503}}\n\n'
            )
        ),
        stream=GONE,
    ),
    "an error in words": Row(Habit(write=lambda chunks: b"event: error\ndata: boom\n\n"), stream=FAILED),
    "an error in words in mid-stream": Row(
        Habit(write=lambda c: as_events(c[:3]).removesuffix(b"data: [DONE]\n\n") + b"data: error: boom\n\n"),
        stream="event engine_error",
        moves=False,
    ),
    "an error line in mid-stream": Row(
        Habit(write=lambda c: as_events(c[:3]).removesuffix(b"data: [DONE]\n\n") + b'error: {"message":"boom"}\n\n'),
        stream="event engine_error",
        moves=False,
    ),
    "SGLang's error in mid-stream": Row(
        Habit(write=error_event({"object": "error", "message": "aborted", "code": 503})),
        stream="event engine_unavailable",
        moves=False,
    ),
    # errors
    "AWS: throttled": an_error(400, {"__type": "ThrottlingException", "message": "Too many requests"}, FULL),
    "DashScope: throttled": an_error(429, {"code": "Throttling.RateQuota", "message": "Requests rate limit"}, FULL),
    "DashScope: no money": an_error(400, {"code": "Arrearage", "message": "Access denied"}, POOR),
    "Anthropic: no money": an_error(
        400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}, POOR
    ),
    "Zhipu: no money": an_error(429, {"error": {"code": "1113", "message": "Your account is in arrears"}}, POOR),
    "an error of a list with 400": an_error(400, {"errors": [{"message": "bad"}]}, "400 None", moves=False),
    **{
        f"status {status}": an_error(status, {"error": "x"}, FAILED)
        for status in (405, 409, 410, 420, 423, 425, 444, 451, 499, 520, 521, 525, 530)
    },
    "status 408": an_error(408, {"error": "x"}, "504 engine_timeout"),
    # content and its encoding
    "an encoding that is a charset": Row(Habit(headers=("content-encoding: utf-8",))),
    "no encoding": Row(Habit(headers=("content-encoding: none",))),
    "gzip in a list": Row(
        Habit(headers=("content-encoding: gzip, identity",), encode=lambda body: gzip.compress(body))
    ),
    "an encoding that was undone": Row(Habit(headers=("content-encoding: gzip",))),
}


def _whole() -> Json:
    message = {"role": "assistant", "content": "".join(TEXT[:3])}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice], "usage": USAGE}
