"""Opens the tool servers of a response, and records the calls that are made."""

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from quarterdeck import ids
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Head
from quarterdeck.inference.metering.caller_trace import session_of, user_of
from quarterdeck.protocol.trace_context import TraceContext
from quarterdeck.record import RequestRecord
from quarterdeck.resources.responses.function_names import functions_of
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.tool_loop.costs import RunningCosts
from quarterdeck.resources.responses.tool_loop.server_tools import RequestedServer, requested_server
from quarterdeck.resources.responses.tool_loop.toolbox import Toolbox
from quarterdeck.resources.responses.tool_loop.tools import CallReport, ResponseTools
from quarterdeck.resources.tools.records import call_record
from quarterdeck.resources.tools.servers import ToolServer
from quarterdeck.settings.live import Live
from quarterdeck.settings.tools import ToolsConfig
from quarterdeck.telemetry.traces.span_ids import ROOT, span_id, span_seed


class Directory(Protocol):
    """What is needed of `resources.tools.directory.ToolDirectory`."""

    async def open(self, label: str, url: str | None, org: str, where: str) -> ToolServer: ...

    def listed_label(self, label: str, url: str | None, org: str) -> str | None: ...


class Settles(Protocol):
    """What is needed of `accounting.settlement.Settlement`."""

    def settle(self, record: RequestRecord, scope_set: ScopeSet) -> None: ...


class OpensTools(Protocol):
    """Opens the servers among a response's tools, `shown` as its object has them. None: there is none. `approved`:
    approval requests whose calls are to be made. Raises BadRequestError."""

    async def open(
        self,
        shown: Sequence[Mapping[str, Any]],
        request: ResponseRequest,
        head: Head,
        response: str,
        approved: Sequence[Item],
    ) -> ResponseTools | None: ...


class NoToolSessions:
    """Where no tools are executed."""

    async def open(
        self,
        shown: Sequence[Mapping[str, Any]],
        request: ResponseRequest,
        head: Head,
        response: str,
        approved: Sequence[Item],
    ) -> None:
        if approved or any(tool["type"] == "mcp" for tool in shown):
            raise BadRequestError("Tools of servers are not called here.", param="tools", code="unsupported_tool")


class ToolSessions:
    """`costs`: of engine calls, by response. `count`: for a metric, with a call's server as the operator has listed it
    (or None), its tool, its outcome and its seconds."""

    def __init__(
        self,
        directory: Directory,
        config: Live[ToolsConfig],
        settlement: Settles,
        costs: RunningCosts,
        *,
        count: Callable[[str | None, str, str, float], None] = lambda *call: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._config = config
        self._settlement = settlement
        self._costs = costs
        self._count = count
        self._wall = wall
        self._new_request_id = ids.RequestIds().next

    async def open(
        self,
        shown: Sequence[Mapping[str, Any]],
        request: ResponseRequest,
        head: Head,
        response: str,
        approved: Sequence[Item],
    ) -> ResponseTools | None:
        requested: dict[str, RequestedServer] = {}
        opened: dict[str, ToolServer] = {}
        for index, tool in enumerate(shown):
            if tool["type"] == "mcp":
                server = requested_server(dict(tool), f"tools[{index}]")
                requested[server.label] = server
                opened[server.label] = await self._directory.open(
                    server.label, server.url, head.principal.org, f"tools[{index}]"
                )
        for asked in approved:
            if asked["server_label"] not in opened:
                raise BadRequestError(
                    f"The approved call is of server '{asked['server_label'][:100]}', which is not in 'tools'.",
                    param="tools",
                    code="approval_without_server",
                )
        if not opened:
            return None
        limits = self._config.current
        functions = [name for name, _ in functions_of([dict(tool) for tool in shown])]
        if limits.max_cost is not None:
            self._costs.begin(response)

        def cost() -> Decimal:
            return self._costs.of(response)

        return ResponseTools(
            Toolbox(functions, list(requested.values()), limits.max_tools),
            opened,
            limits,
            max_calls=request.max_tool_calls,
            report=self._reporter(request, head, response, {each.label: each.url for each in requested.values()}),
            cost=cost,
            on_close=lambda: self._costs.end(response),
            wall=self._wall,
        )

    def _reporter(
        self, request: ResponseRequest, head: Head, response: str, urls: Mapping[str, str | None]
    ) -> Callable[[CallReport], None]:
        metadata = request.metadata or {}
        user = user_of(metadata) or request.safety_identifier or request.user
        session = session_of(metadata)
        trace = continued_trace(head, metadata)

        def report(call: CallReport) -> None:
            record = call_record(
                self._new_request_id(),
                head.principal,
                server=call.label,
                tool=call.name,
                started=call.started,
                ended=call.ended,
                error=call.result.error,
                response=response,
                trace=trace,
                user=user[:512] if user else None,
                session=session[:512] if session else None,
            )
            self._settlement.settle(record, head.principal.scope_set)
            listed = self._directory.listed_label(call.label, urls.get(call.label), head.principal.org)
            outcome = "ok" if call.result.error is None else call.result.error["type"]
            self._count(listed, call.name, outcome, call.ended - call.started)

        return report


def continued_trace(head: Head, metadata: Mapping[str, str] | None) -> TraceContext:
    """The trace of a response's first request, for its further engine calls and tool calls: spans of one trace, below
    the first request's."""
    context = head.trace
    root = span_id(span_seed(head.request_id), ROOT).hex()
    trace_id = context.trace_id if context is not None else ""
    if not trace_id:
        given = (metadata or {}).get("langfuse_trace_id", "")
        is_id = len(given) == 32 and all(digit in "0123456789abcdef" for digit in given) and given.strip("0") != ""
        trace_id = given if is_id else head.request_id.removeprefix("req_")
    if context is None:
        return TraceContext(trace_id, root)
    return TraceContext(trace_id, root, context.is_sampled, context.state)
