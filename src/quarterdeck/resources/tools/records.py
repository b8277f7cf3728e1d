"""A tool call as a record: a ledger row and a span, below the response that it was made for. Pure.

It has no tokens and no cost, and counts against no limit: the engine calls around it do.
"""

from quarterdeck.accounting.principal import Principal
from quarterdeck.protocol.trace_context import TraceContext
from quarterdeck.record import CallerTrace, RequestRecord
from quarterdeck.resources.tools.servers import Json

OPERATION = "tool"


def call_record(
    id: str,
    principal: Principal,
    *,
    server: str,
    tool: str,
    started: float,
    ended: float,
    error: Json | None,
    response: str,
    trace: TraceContext,
    user: str | None,
    session: str | None,
) -> RequestRecord:
    """`server` is its label."""
    http_status = 200
    if error is not None:
        http_status = error["code"] if error["type"] == "http_error" else 500
    return RequestRecord(
        id=id,
        org=principal.org,
        team=principal.team,
        key=principal.key,
        key_name=principal.name,
        operation=OPERATION,
        model=f"{server}.{tool}",
        endpoint=server,
        started=started,
        ended=ended,
        status="ok" if error is None else "error",
        http_status=http_status,
        error_code=None if error is None else error["type"],
        tags=principal.tags,
        parent=response,
        user=user,
        session=session,
        trace=CallerTrace(trace.trace_id, trace.span_id, trace.is_sampled, trace.state),
    )
