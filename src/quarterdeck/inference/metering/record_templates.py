"""What is the same in all requests of one key to one model, made once: their record and the note that Redis keeps.

A note is a `Note` of admission in JSON, what Redis is told of a request before it runs: enough for the worker to bill
it should the gateway die. What else the record holds comes with the first renewal (`Settlement`), a third of a lease
later.
"""

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.call import Operation
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.record import RequestRecord

MOST = 10_000
"""Forms kept, some 2 KB each. Then all are forgotten: they are made again in microseconds."""


class Form:
    """A record and a note, filled in as far as key, model and operation tell."""

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
        whole = msgspec.json.encode({"scopes": principal.counters.noted, "record": record})
        self._note = whole.removesuffix(b"}}")

    def record(self) -> RequestRecord:
        """One to go on with. A copy: thirty-odd arguments would cost four times as much."""
        copy: RequestRecord = self._record.__copy__()  # type: ignore[attr-defined]  # its stub lacks it
        return copy

    def note(self, request_id: str, started: float, *, stream: bool = False) -> bytes:
        """The note of one request; to the microsecond, as a float written to its last digit costs twice the rest."""
        time = f"{started:.6f}"
        streamed = ',"stream":true' if stream else ""
        return self._note + f',"id":"{request_id}","started":{time},"ended":{time}{streamed}}}}}'.encode()


class Forms:
    """Made once, for as long as principal and model are the same objects."""

    __slots__ = ("_forms",)

    def __init__(self) -> None:
        self._forms: dict[tuple[str, str, Operation], Form] = {}

    def of(self, principal: Principal, served: ServedModel, operation: Operation) -> Form:
        key = (principal.key, served.name, operation)
        form = self._forms.get(key)
        if form is not None and form.principal is principal and form.served is served:
            return form
        if len(self._forms) >= MOST:
            self._forms.clear()
        form = self._forms[key] = Form(principal, served, operation)
        return form
