"""Responses of every kind, in combination: each body and each event is valid under OpenAI's SDK and OpenResponses.

The cases are made of axes (CASES): what the client sends, what the engine answers, and how the response is made. Any
two values of different axes meet in one of them. The engine is scripted, the gateway is whole.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import openai
import openresponses_types as oresp
import pytest
from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam, CompletionCreateParams
from pydantic import TypeAdapter
from tests.gateway.fakes import USER, FakeKeyStore, FakePipeline, FakeStream, key_row, parts

from quarterdeck.errors import BadRequestError, EngineError, RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.job_credentials import JobCredentials
from quarterdeck.inference.call import Head, Reply
from quarterdeck.protocol import sse
from quarterdeck.protocol.job_credentials import SECONDS, JobClaims, sign
from quarterdeck.resources.responses import following
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.platform_secrets import PlatformSecret

COUNT = 300
PNG = "data:image/png;base64,iVBORw0KGgo="
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": PARAMETERS}
CLOCK = {"type": "function", "name": "clock", "description": "The time.", "strict": True, "parameters": PARAMETERS}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
CALLED = [
    {"role": "user", "content": "Weather?"},
    {"type": "function_call", "call_id": "call_x", "name": "weather", "arguments": '{"city": "Oslo"}'},
]

INPUTS: dict[str, Any] = {
    "text": "Hello",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"role": "user", "content": "Hello"},
    ],
    "pictures": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {"type": "input_image", "image_url": PNG, "detail": "auto"},
            ],
        }
    ],
    "files": [
        {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf", "file_data": "data:x;base64,aGk="}]}
    ],
    "calls": [*CALLED, {"type": "function_call_output", "call_id": "call_x", "output": "Cold."}],
    "call outputs with parts": [
        *CALLED,
        {
            "type": "function_call_output",
            "call_id": "call_x",
            "output": [{"type": "input_text", "text": "Cold."}, {"type": "input_text", "text": "Windy."}],
        },
    ],
    "reasoning": [
        {"role": "user", "content": "Why?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "Because."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "So.", "annotations": []}], "id": "msg_1"},
        {"role": "user", "content": "And?"},
    ],
    "refused": [
        {"role": "user", "content": "Steal!"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "id": "msg_2"},
        {"role": "user", "content": "Fine."},
    ],
    "audio": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}]}],
    "previous response": None,
    "conversation": None,
    "compacted": None,
    "item reference": None,
    "earlier output": None,
}
"""None: made of an earlier response."""
TOOLS: dict[str, dict[str, Any]] = {
    "no tools": {},
    "function": {"tools": [WEATHER]},
    "forced": {"tools": [WEATHER, CLOCK], "tool_choice": "required", "max_tool_calls": 3},
    "named": {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "function", "name": "weather"}},
    "allowed": {
        "tools": [WEATHER, CLOCK],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]},
    },
    "one at a time": {"tools": [CLOCK, WEATHER], "parallel_tool_calls": False},
    "not now": {"tools": [WEATHER], "tool_choice": "none"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "labels": {
        "instructions": "Be brief.",
        "metadata": {"topic": "ships"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "auto",
    },
    "schema": {
        "text": {
            "format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True},
            "verbosity": "low",
        }
    },
    "object": {"text": {"format": {"type": "json_object"}}},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "reasoning": {"reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 64},
    "sampling": {"temperature": 0.2, "top_p": 0.9, "truncation": "auto", "extra_body": {"seed": 1, "top_k": 3}},
    "included": {
        "include": ["reasoning.encrypted_content", "file_search_call.results", "message.input_image.image_url"],
        "service_tier": "flex",
        "prompt_cache_retention": "in_memory",
    },
}
MODES = ("whole", "stream", "unstored", "unstored stream", "background", "background stream")


def call(index: int, name: str, *arguments: str) -> list[dict[str, Any]]:
    """The deltas of a call."""
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    pieces = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [{"tool_calls": [each]} for each in (first, *pieces)]


ANSWERS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text": ([{"content": "Hel"}, {"content": "lo"}], "stop"),
    "nothing": ([], "stop"),
    "reasoning": ([{"reasoning": "Well, "}, {"reasoning_content": "so."}, {"content": "Hello"}], "stop"),
    "reasoning alone": ([{"reasoning": "Well"}], "length"),
    "refusal": ([{"refusal": "I "}, {"refusal": "won't."}], "stop"),
    "text and refusal": ([{"content": "Well, "}, {"refusal": "no."}], "stop"),
    "call": (call(0, "weather", '{"city": ', '"Oslo"}'), "tool_calls"),
    "two calls": ([*call(0, "weather", '{"city": "Oslo"}'), *call(1, "clock", '{"city": "Rome"}')], "tool_calls"),
    "text and call": ([{"content": "Let me see."}, *call(0, "clock", "{}")], "tool_calls"),
    "reasoning and call": ([{"reasoning": "Hm."}, *call(0, "weather", "{}")], "tool_calls"),
    "cut": ([{"content": "Hel"}], "length"),
    "filtered": ([{"content": "Hel"}], "content_filter"),
}
"""Deltas of the engine's answer and its finish reason."""
FAILURES: dict[str, tuple[type[openai.APIError], int]] = {
    "refused": (openai.BadRequestError, 400),
    "limited": (openai.RateLimitError, 429),
    "away": (openai.InternalServerError, 503),
    "breaks": (openai.APIError, 502),
    "ends early": (openai.APIError, 502),
}
"""What the client is raised, and the status of a whole answer."""
ERRORS = {
    "refused": BadRequestError("Too long.", param="messages", code="context_length_exceeded"),
    "limited": RateLimitError("Slower.", retry_after=1),
    "away": ServiceUnavailableError("No engine."),
    "breaks": EngineError("It broke."),
    "ends early": EngineError("The engine ended the stream before it was complete."),
}
AXES = (tuple(INPUTS), tuple(TOOLS), tuple(OPTIONS), MODES, (*ANSWERS, *FAILURES))

Case = tuple[str, str, str, str, str]


def cases() -> list[Case]:
    """COUNT combinations of the axes in which any two values of different axes meet: each is the one of some random
    ones that has the most new pairs."""
    chosen = random.Random(7)  # the same cases each time
    seen: set[tuple[str, str]] = set()
    made: dict[Case, None] = {}
    while len(made) < COUNT:
        drawn: list[Any] = [tuple(chosen.choice(axis) for axis in AXES) for _ in range(30)]
        best = max(drawn, key=lambda case: len(pairs(case) - seen))
        made[best] = None
        seen |= pairs(best)
    return list(made)


def pairs(case: Case) -> set[tuple[str, str]]:
    return set(itertools.combinations([f"{at} {value}" for at, value in enumerate(case)], 2))


CASES = cases()


def test_any_two_values_meet() -> None:
    every = {
        (f"{first} {one}", f"{second} {other}")
        for first, second in itertools.combinations(range(len(AXES)), 2)
        for one, other in itertools.product(AXES[first], AXES[second])
    }
    assert every == set().union(*(pairs(case) for case in CASES))


# the engine


CHAT: TypeAdapter[Any] = TypeAdapter(CompletionCreateParams)
MESSAGES = TypeAdapter(list[ChatCompletionMessageParam])
PARTS = TypeAdapter(list[ChatCompletionContentPartParam])
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97]}
LOGPROBS = {"content": [{**LOGPROB, "top_logprobs": [LOGPROB]}], "refusal": None}


class Engine:
    """Answers each chat completion with `answer`, as it is asked to."""

    def __init__(self) -> None:
        self.answer = "text"
        self.asked: list[dict[str, Any]] = []

    async def call(self, head: Head, body: bytes) -> Reply:
        asked = json.loads(body)
        CHAT.validate_python(asked)
        MESSAGES.validate_python(asked["messages"])
        for message in asked["messages"]:
            if isinstance(message["content"], list):
                PARTS.validate_python(message["content"])
        self.asked.append(asked)
        is_stream = bool(asked.get("stream"))
        if self.answer in ERRORS and not (is_stream and self.answer in ("breaks", "ends early")):
            raise ERRORS[self.answer]
        deltas, finish = ANSWERS.get(self.answer, ([{"content": "Hel"}], ""))
        if is_stream:
            return self._stream(deltas, finish, shows_logprobs=bool(asked.get("logprobs")))
        message: dict[str, Any] = {"role": "assistant", "content": None}
        calls: dict[int, dict[str, Any]] = {}
        for delta in deltas:
            for name in ("content", "reasoning", "reasoning_content", "refusal"):
                if name in delta:
                    message[name] = (message.get(name) or "") + delta[name]
            for each in delta.get("tool_calls", ()):
                made = calls.setdefault(each["index"], {**each, "function": {"name": "", "arguments": ""}})
                for name, value in each["function"].items():
                    made["function"][name] += value
        if calls:
            message["tool_calls"] = list(calls.values())
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
        if asked.get("logprobs") and message["content"]:
            choice["logprobs"] = LOGPROBS
        answer = {"id": "chatcmpl-1", "model": "chat", "choices": [choice], "usage": USAGE}
        return Reply(200, ((b"content-type", b"application/json"),), msgspec.json.encode(answer))

    def _stream(self, deltas: Sequence[dict[str, Any]], finish: str, *, shows_logprobs: bool) -> Reply:
        pieces = [_chunk({"role": "assistant", "content": ""})]
        for delta in deltas:
            logprobs = LOGPROBS if shows_logprobs and "content" in delta else None
            pieces.append(_chunk(delta, logprobs=logprobs))
        if finish:
            pieces += [_chunk({}, finish), sse.event({"model": "chat", "choices": [], "usage": USAGE}), sse.DONE]
        stream = FakeStream(pieces)
        if self.answer == "breaks":
            pieces.append(sse.error_event(ERRORS["breaks"]))
            stream = FakeStream(pieces)
            stream.error = ERRORS["breaks"]  # type: ignore[attr-defined]  # as a relay has it
        return Reply(200, sse.HEADERS, stream=stream)


def _chunk(delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return sse.event({"id": "chatcmpl-1", "model": "chat", "choices": [choice]})


# the platform


class Platform:
    """A gateway in this process, its client, and its worker."""

    def __init__(self, database: Database) -> None:
        self.engine = Engine()
        pipeline = FakePipeline()
        pipeline.answer = self.engine.call
        keys = FakeKeyStore()
        keys.put(USER, key_row(id="key_user"))
        made = parts(pipeline, keys=keys, database=database)
        self._secret = PlatformSecret(database, "jobs")
        made = replace(made, job_credentials=JobCredentials(made.authenticator, self._secret))
        transport = httpx.ASGITransport(app=create_app(made))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway")
        self.client = openai.AsyncOpenAI(
            base_url="http://gateway/v1",
            api_key=USER,
            http_client=self.http,
            max_retries=0,
            _strict_response_validation=True,
        )
        self._jobs = JobStore(database)
        self._earlier: Any = None
        self.executed: list[str] = []
        """Ids of the responses that the last `run_jobs` has executed."""

    async def run_jobs(self) -> bool:
        """Execute what is queued, as a worker does. False: nothing is."""
        self.executed = []
        for job in await self._jobs.claim("response", seconds=60, limit=10):
            self.executed.append(job.subject)
            claims = JobClaims(
                job.key, job.org, job.id, f"req_{job.id}", time.time() + SECONDS, job.subject, job.attempts
            )
            bearer = {"authorization": f"Bearer {sign(claims, await self._secret.read())}"}
            answer = await self.http.post("/v1/responses", content=job.payload, headers=bearer)
            assert json.loads(answer.text.split("data: ")[-1])["state"] in ("done", "retry", "wait")
            await self._jobs.finish(job, "done")
        return bool(self.executed)

    async def given(self, kind: str) -> dict[str, Any]:
        """The members of a request with this input."""
        if INPUTS[kind] is not None:
            return {"input": INPUTS[kind]}
        if self._earlier is None:
            self.engine.answer = "reasoning and call"
            self._earlier = await self.client.responses.create(model="chat", input="Weather?", tools=[WEATHER])  # type: ignore[list-item]
        called = next(item for item in self._earlier.output if item.type == "function_call")
        output = {"type": "function_call_output", "call_id": called.call_id, "output": "Cold."}
        if kind == "previous response":
            return {"input": [output], "previous_response_id": self._earlier.id}
        if kind == "conversation":
            hello: Any = {"type": "message", "role": "user", "content": "Hello"}
            made = await self.client.conversations.create(items=[hello])
            return {"input": "Go on.", "conversation": made.id}
        if kind == "item reference":
            return {"input": [{"type": "item_reference", "id": called.id}, output]}
        if kind == "compacted":
            self.engine.answer = "text"
            short = await self.client.responses.compact(model="chat", input="A long story.")
            return {"input": [*(item.model_dump() for item in short.output), {"role": "user", "content": "Go on."}]}
        return {"input": [*(item.model_dump() for item in self._earlier.output), output]}


@pytest.fixture
async def platform(sqlite_url: str) -> AsyncIterator[Platform]:
    database = Database(sqlite_url)
    made = Platform(database)
    yield made
    await made.client.close()
    await database.close()


# what is valid

EVENTS: dict[str, Any] = {
    each.value: made
    for name, made in vars(oresp).items()
    if name.endswith("StreamingEvent")
    for each in made.model_fields["type"].annotation
}


def accept(body: dict[str, Any]) -> None:
    """By OpenResponses' model of a response. Its generated model takes no schema but null."""
    form = body["text"]["format"]
    if form["type"] == "json_schema":
        body = {**body, "text": {**body["text"], "format": {**form, "schema": None}}}
    oresp.ResponseResource.model_validate(body)


def check_event(event: dict[str, Any]) -> None:
    if "response" in event:
        accept(event["response"])
    if event["type"].startswith("response.reasoning_text"):
        return  # OpenResponses calls these events `response.reasoning`, the SDK as we do
    if "response" not in event:
        EVENTS[event["type"]].model_validate(event)


async def check_case(platform: Platform, case: Case) -> None:
    given, tools, option, mode, answer = case
    asked: dict[str, Any] = {"model": "chat", **await platform.given(given), **TOOLS[tools], **OPTIONS[option]}
    asked["store"] = not mode.startswith("unstored")
    platform.engine.answer = answer
    events: list[dict[str, Any]] = []
    try:
        if mode.startswith("background"):
            body, events = await in_background(platform, asked, is_stream="stream" in mode)
        elif "stream" in mode:
            async for event in await platform.client.responses.create(**asked, stream=True):
                events.append(shown(event))
            body = events[-1]["response"]
        else:
            body = shown(await platform.client.responses.create(**asked))
    except openai.APIError as error:
        kind, status = FAILURES[answer]
        assert isinstance(error, kind)
        assert not isinstance(error, openai.APIStatusError) or error.status_code == status
        if not events:
            return
        stored = asked["store"]
        body = (await get(platform, events[0]["response"]["id"])).json() if stored else None
        assert body is None or body["status"] == "failed"
    check_events(events)
    if body is None:
        return
    accept(body)
    assert answer not in FAILURES or body["status"] in ("failed", "cancelled")
    calls = [item for item in body["output"] if item["type"] == "function_call"]
    assert len(calls) < 2 or asked.get("parallel_tool_calls") is not False
    found = await get(platform, body["id"])
    if not asked["store"]:
        assert found.status_code == 404
        return
    assert found.json() == body
    assert shown(await platform.client.responses.retrieve(body["id"])) == body
    again = [
        json.loads(line[6:])
        for line in (await get(platform, body["id"], "?stream=true")).text.splitlines()
        if line.startswith("data: ")
    ]
    check_events(again)
    assert again[-1]["response"] == body
    if body["status"] != "failed":
        assert events in ([], again)
    if given == "audio":
        return  # the SDK's items have none
    items = await platform.client.responses.input_items.list(body["id"], order="asc")
    assert items.data


async def get(platform: Platform, id: str, query: str = "") -> httpx.Response:
    return await platform.http.get(f"/v1/responses/{id}{query}", headers={"authorization": f"Bearer {USER}"})


async def in_background(
    platform: Platform, asked: dict[str, Any], *, is_stream: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The response when it has ended, and its events. One that an engine could execute later is cancelled."""
    client = platform.client
    if not is_stream:
        queued = await client.responses.create(**asked, background=True)
        accept(shown(queued))
        await platform.run_jobs()
        await client.responses.cancel(queued.id)
        return shown(await client.responses.retrieve(queued.id)), []
    following = asyncio.create_task(collect(client, {**asked, "background": True}))
    async with asyncio.timeout(60):
        while not await platform.run_jobs():  # noqa: ASYNC110  # until it is queued, which has no event
            await asyncio.sleep(0)
    (id,) = platform.executed
    await client.responses.cancel(id)
    events = await following
    return events[-1]["response"], events


async def collect(client: openai.AsyncOpenAI, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The events, with that of an error."""
    answer = await client.responses.with_raw_response.create(**asked, stream=True)
    text = (await answer.http_response.aread()).decode()
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def shown(made: Any) -> dict[str, Any]:
    """A body or an event as it was received."""
    found: dict[str, Any] = made.to_dict(mode="json")
    return found


def check_events(events: list[dict[str, Any]]) -> None:
    """Each is valid, they are numbered, and they say what the items at their end say."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts: dict[tuple[int, int], str] = {}
    for event in events:
        check_event(event)
        if event["type"].endswith(".delta") and "content_index" in event:
            at = event["output_index"], event["content_index"]
            texts[at] = texts.get(at, "") + event["delta"]
        elif event["type"] == "response.output_item.done":
            for index, part in enumerate(event["item"].get("content") or ()):
                assert texts.get((event["output_index"], index), "") == part.get("text", part.get("refusal"))
    if not events or "response" not in events[-1]:
        return
    assert events[0]["type"] == "response.created"
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{last['status'].replace('cancelled', 'incomplete')}"
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    if last["status"] == "completed":
        assert [done[index] for index in range(len(last["output"]))] == last["output"]


@pytest.mark.parametrize("answer", AXES[-1])
async def test_every_body_and_event_is_valid(platform: Platform, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.001)
    for case in CASES:
        if case[-1] == answer:
            try:
                await check_case(platform, case)
            except Exception as error:
                error.add_note(f"case: {case}")
                raise
