"""An audio or image request as one value, and the body that an endpoint is sent. Pure."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import EndpointSpec
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol import requests
from quarterdeck.protocol.dialects import OTHER_MODELS, OWN
from quarterdeck.protocol.forms import FormPart, encode_form, with_fields
from quarterdeck.protocol.media_requests import MediaFacts

JSON = b"application/json"
USAGE_FIELD = "stream_include_usage"
"""vLLM's field of a form: without it, a stream says nothing of its tokens."""


class MediaBody(Protocol):
    """What the client sent."""

    members: Mapping[str, msgspec.Raw]
    """Of JSON. Empty: it is a form."""

    def encode(self, spec: EndpointSpec, model: str) -> tuple[bytes, bytes]:
        """The content type and the body for an endpoint that calls the model so."""
        ...


class MediaRequest(msgspec.Struct, frozen=True):
    operation: Operation
    facts: MediaFacts
    body: MediaBody

    @property
    def model(self) -> str:
        return self.facts.parsed.model

    @property
    def word(self) -> str:
        return word_of(self.operation)

    def for_routing(self) -> InferenceRequest:
        """The request as routing and admission see it: nothing of a form is in it but what decides."""
        facts = self.facts
        return InferenceRequest(
            self.operation,
            b"",
            facts.parsed,
            dict(self.body.members),
            facts.is_streaming,
            has_parts=False,
            shows_usage=False,
        )


def word_of(operation: Operation) -> str:
    """The operation as in `models[].serves`: `audio.speech`."""
    return operation.path.removeprefix("/v1/").replace("/", ".")


class JsonBody:
    def __init__(self, members: Mapping[str, msgspec.Raw]) -> None:
        self.members = members

    def encode(self, spec: EndpointSpec, model: str) -> tuple[bytes, bytes]:
        kept = {name: raw for name, raw in self.members.items() if is_sent(name, spec)}
        return JSON, requests.with_members(kept, {"model": model})


class FormBody:
    members: Mapping[str, msgspec.Raw] = {}

    def __init__(self, parts: Sequence[FormPart], *, is_transcript_stream: bool = False) -> None:
        self._parts = parts
        self._is_transcript_stream = is_transcript_stream

    def encode(self, spec: EndpointSpec, model: str) -> tuple[bytes, bytes]:
        kept = [part for part in self._parts if part.filename is not None or is_sent(part.name, spec)]
        changed = {"model": model}
        if self._is_transcript_stream and spec.kind == "vllm":
            changed[USAGE_FIELD] = "true"
        return encode_form(with_fields(kept, changed))


def is_sent(name: str, spec: EndpointSpec) -> bool:
    """Whether a server is sent a member or field. As for texts (`dialects`), none that names other models, and of a
    server that is not vLLM none that it could read in lower case."""
    if name in OWN or name in OTHER_MODELS or name in spec.omits:
        return False
    return spec.kind == "vllm" or name == name.casefold()
