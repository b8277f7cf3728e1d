"""Templates of records and notes: what all requests of one key to one model have in common.

A note is admission's `Note` in JSON. Redis keeps it while a request runs: enough for the worker to bill the request if
the gateway dies. The rest of the record comes with the first renewal (`Settlement`), a third of a lease later.
"""

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.call import Operation
from quarterdeck.inference.metering.caller_trace import caller_trace
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol.trace_context import TraceContext
from quarterdeck.record import RequestRecord

MAX_TEMPLATES = 10_000
"""About 2 KB each. Past it all are dropped: one takes microseconds to make."""


class RecordTemplate:
    """A record and a note with the fields that key, model and operation determine."""

    __slots__ = ("_note", "_record", "principal", "served")

    def __init__(self, principal: Principal, served: ServedModel, operation: Operation) -> None:
        self.principal = principal
        self.served = served
        price = served.price
        self._record = RequestRecord(
            id="",
            org=principal.org,
            team=principal.team,
            key=principal.key,
            key_name=principal.name,
            operation=operation.word,
            model=served.name,
            started=0.0,
            ended=0.0,
            status="lost",
            http_status=0,
            price_version=served.price_version,
            price_input=price.input,
            price_cached=price.cached,
            price_output=price.output,
            priority=principal.priority,
            tags=principal.tags,
        )
        record = msgspec.to_builtins(self._record)
        for name in ("id", "started", "ended"):
            del record[name]
        whole = msgspec.json.encode({"scopes": principal.scope_set.noted, "record": record})
        self._note = whole.removesuffix(b"}}")

    def record(self) -> RequestRecord:
        """A record to complete. Copying is four times as fast as a constructor call with thirty arguments."""
        copy: RequestRecord = self._record.__copy__()  # type: ignore[attr-defined]  # its stub lacks it
        return copy

    def note(
        self,
        request_id: str,
        started: float,
        *,
        stream: bool = False,
        trace: TraceContext | None = None,
        parent: str | None = None,
    ) -> bytes:
        """The note of one request. Its times are whole microseconds: writing a float takes longer than everything
        else."""
        time = f"{int(started * 1_000_000)}e-6"
        streamed = ',"stream":true' if stream else ""
        if trace is not None and (stated := caller_trace(trace, None)) is not None:
            streamed += f',"trace":{msgspec.json.encode(stated).decode()}'
        if parent is not None:
            streamed += f',"parent":"{parent}"'
        return self._note + f',"id":"{request_id}","started":{time},"ended":{time}{streamed}}}}}'.encode()


class RecordTemplates:
    """Templates by key, model and operation. One is made again when the principal or the model was replaced."""

    __slots__ = ("_templates",)

    def __init__(self) -> None:
        self._templates: dict[tuple[str, str, Operation], RecordTemplate] = {}

    def get(self, principal: Principal, served: ServedModel, operation: Operation) -> RecordTemplate:
        key = (principal.key, served.name, operation)
        template = self._templates.get(key)
        if template is not None and template.principal is principal and template.served is served:
            return template
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        template = self._templates[key] = RecordTemplate(principal, served, operation)
        return template
