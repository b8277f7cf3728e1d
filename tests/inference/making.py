"""Makes requests and their parts: a principal, a head, a meter, events as engines send them."""

import dataclasses
import json
import time
from decimal import Decimal
from typing import Any

from quarterdeck import ids
from quarterdeck.accounting.pricing import Rates
from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.estimation import estimate
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.preparation import cache_salt
from quarterdeck.inference.request import InferenceRequest, decode
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.prices import Price

PRICE = Price(input=Decimal("1"), cached_input=Decimal("0.5"), output=Decimal("2"))
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True}
COMPLETION = {"model": "m", "prompt": "Hi"}
SPEC_FIELDS = {field.name for field in dataclasses.fields(EndpointSpec)}
DONE = b"data: [DONE]\n\n"


def a_principal(**changes: Any) -> Principal:
    fields: dict[str, Any] = {"key": "key_1", "name": "laptop", "org": "default", "team": "default", "limits": Limits()}
    return Principal(**(fields | changes))


def a_head(operation: Operation = Operation.CHAT, **changes: Any) -> Head:
    principal = changes.pop("principal", None) or a_principal()
    fields: dict[str, Any] = {"request_id": ids.RequestIds().next(), "started": time.time()} | changes
    return Head(operation=operation, principal=principal, **fields)


def a_request(operation: Operation = Operation.CHAT, **asked: Any) -> InferenceRequest:
    """A chat unless the operation says otherwise."""
    return decode(operation, as_json((CHAT if operation is Operation.CHAT else {"model": "m"}) | asked))


def salted(asked: dict[str, Any], org: str = "default") -> dict[str, Any]:
    """What an engine is sent: the request, with the organisation's part of the prefix cache."""
    return asked | {"cache_salt": cache_salt(a_request(), org, is_isolated=True)}


def served(name: str = "m", model: str = "m", price: Price = PRICE) -> ServedModel:
    return ServedModel(name, model, price, price.version, Rates.of(price))


def an_endpoint(id: str = "e#1", *, requests: int = 0, tokens: int = 0, **changes: Any) -> Endpoint:
    """An endpoint with this load; `changes` are the spec's or the breaker's."""
    fields: dict[str, Any] = {"id": id, "model": "m", "url": "http://127.0.0.1:1"} | changes
    spec = {name: value for name, value in fields.items() if name in SPEC_FIELDS}
    endpoint = Endpoint(EndpointSpec(**spec))
    endpoint.load.requests, endpoint.load.tokens = requests, tokens
    for name in fields.keys() - SPEC_FIELDS:
        setattr(endpoint.breaker, name, fields[name])
    return endpoint


def change(endpoint: Endpoint, **changes: Any) -> None:
    """Change the endpoint's spec, as its source does."""
    endpoint.update(dataclasses.replace(endpoint.spec, **changes))


def a_meter(asked: dict[str, Any] | None = None, **changes: Any) -> Meter:
    request = decode(Operation.CHAT, as_json(asked or CHAT))
    changes.setdefault("reserved", estimate(request))
    return Meter(changes.pop("head", None) or a_head(), served(), request.parsed, **changes)


def by(name: str, **more: Any) -> dict[str, Any]:
    """A chat with the model or route `name`."""
    return {**CHAT, "model": name, **more}


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: object) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"


def delta(content: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    """A chunk of a chat's stream, as vLLM writes it."""
    said = {"content": content} if content is not None else {}
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more})


def usage(prompt: int = 7, output: int = 3, **more: Any) -> bytes:
    """The last chunk: usage and no choices."""
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output, **more}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": counts})


def answer(text: str = "Hello", **more: Any) -> bytes:
    """A complete chat answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counts = {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3}
    return as_json({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": counts, **more})


SAID = (delta("Hello "), delta("there"), delta(finish="stop"))
"""The events of a streamed chat, before its usage."""
