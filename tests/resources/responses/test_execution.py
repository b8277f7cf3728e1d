"""The tool loop with a scripted engine and a fake server: parallel calls, limits, failures, and resumption."""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from quarterdeck.errors import EngineError, InsufficientQuotaError
from quarterdeck.inference.call import Reply
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.chat_reader import Collected
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.execution import Execution
from quarterdeck.resources.responses.items import read_items
from quarterdeck.resources.responses.objects import new_response
from quarterdeck.resources.responses.replay import replay
from quarterdeck.resources.responses.requests import read_request
from quarterdeck.resources.responses.tool_loop.approvals import approved
from quarterdeck.resources.responses.tool_loop.server_tools import requested_server
from quarterdeck.resources.responses.tool_loop.toolbox import Toolbox
from quarterdeck.resources.responses.tool_loop.tools import CallReport, ResponseTools, ToolListError
from quarterdeck.resources.tools.servers import ServerTool, ToolResult, ToolServerError
from quarterdeck.settings.tools import ToolsConfig

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
SCHEMA = {"type": "object", "properties": {}}
NEVER = {"type": "mcp", "server_label": "calc", "require_approval": "never"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}


class FakeServer:
    """Offers `tools`; each call waits until `together` calls run, then returns its arguments."""

    def __init__(self, *tools: str, together: int = 1) -> None:
        self.tools = [ServerTool(name, SCHEMA) for name in tools or ("add",)]
        self.failure: ToolServerError | None = None
        self.called: list[tuple[str, Mapping[str, Any]]] = []
        self.closed = 0
        self.running = self.most = 0
        self.was_called = asyncio.Event()
        self._all = asyncio.Barrier(together)

    async def list_tools(self) -> list[ServerTool]:
        if self.failure is not None:
            raise self.failure
        return self.tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.called.append((name, arguments))
        self.running += 1
        self.was_called.set()
        self.most = max(self.most, self.running)
        try:
            if name == "hang":
                await asyncio.Event().wait()
            await self._all.wait()
            if name == "broken":
                raise ToolServerError("It broke.", code=-32000)
        finally:
            self.running -= 1
        return ToolResult(json.dumps(arguments))

    async def aclose(self) -> None:
        self.closed += 1


def says(text: str = "", *calls: tuple[str, str], finish: str = "stop") -> bytes:
    """A whole chat completion."""
    made = [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text or None, **({"tool_calls": made} if made else {})}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if made and finish == "stop" else finish}
    return msgspec.json.encode({"id": "c", "model": "chat", "choices": [choice], "usage": USAGE})


class World:
    """One response: its request, the engine's answers in turn, and a server."""

    def __init__(
        self, *answers: bytes | Exception, server: FakeServer | None = None, limits: str = "{}", **request: Any
    ) -> None:
        self.server = server or FakeServer()
        asked = {"model": "chat", "input": "Hi", "tools": [NEVER], **request}
        self.request, self.engine = read_request(json.dumps(asked).encode())
        self.answers = list(answers)
        self.sent: list[dict[str, Any]] = []
        self.turns: list[int] = []
        self.reports: list[CallReport] = []
        self.boundaries = 0
        self.cost = Decimal(0)
        self.limits = ToolsConfig.model_validate(json.loads(limits))
        numbers = itertools.count(1)
        self.new_id: Callable[[str], str] = lambda prefix: f"{prefix}_{next(numbers)}"
        self.mapper = EventMapper(new_response(self.request, "resp_1", 1000.0, {}), self.new_id)
        self.history = read_items(self.request.input, self.new_id)

    def execution(self) -> Execution:
        shown = self.mapper.response["tools"]
        servers = [requested_server(tool) for tool in shown if tool["type"] == "mcp"]
        functions = [tool["name"] for tool in shown if tool["type"] == "function"]
        tools = ResponseTools(
            Toolbox(functions, servers, self.limits.max_tools),
            {server.label: self.server for server in servers},
            self.limits,
            max_calls=self.request.max_tool_calls,
            report=self.reports.append,
            cost=lambda: self.cost,
        )
        given = approved(self.history, self.history)
        return Execution(
            self.request,
            self.mapper,
            self.history,
            self.engine,
            self._call,
            lambda: 1002.0,
            tools=tools,
            approved=given,
            on_boundary=self._boundary,
        )

    async def run(self) -> list[dict[str, Any]]:
        """The events of the whole response, checked by the SDK's types."""
        execution, sink = self.execution(), Collected()
        await execution.open()
        sink.put(await execution.run(sink))
        await execution.aclose()
        encoded = sink.whole + self.mapper.last_event()
        events = [sse.data(each) for each in sse.events(encoded)]
        found = [msgspec.json.decode(data) for data in events if data]
        for number, event in enumerate(found):
            assert event["sequence_number"] == number
            if event["type"] != "error":  # as OpenResponses has it, which the SDK raises
                EVENT.validate_python(event)
        Response.model_validate(self.mapper.response)
        stored = msgspec.json.decode(msgspec.json.encode(self.mapper.steps))
        again = b"".join(replay(self.mapper.response, stored, shows_logprobs=False))
        assert [sse.data(each) for each in sse.events(again)] == [data for data in events if data]
        return found

    @property
    def kinds(self) -> list[str]:
        return [item["type"] for item in self.mapper.response["output"]]

    async def _call(self, turn: int, members: dict[str, Any]) -> Reply:
        self.turns.append(turn)
        self.sent.append(msgspec.json.decode(msgspec.json.encode(members)))
        self.cost += Decimal("0.4")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Reply(200, (), answer)

    async def _boundary(self) -> None:
        self.boundaries += 1


async def test_calls_of_one_turn_run_side_by_side_and_their_results_are_given_to_the_model() -> None:
    server = FakeServer("add", together=3)
    calls = [("add", f'{{"n":{number}}}') for number in range(3)]
    world = World(says("", *calls), says("Done."), server=server)
    await world.run()
    assert server.most == 3
    assert world.kinds == ["mcp_list_tools", *["mcp_call"] * 3, "message"]
    assert [item["output"] for item in world.mapper.response["output"][1:4]] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
    messages = world.sent[1]["messages"]
    assert [message["role"] for message in messages] == ["user", *["assistant", "tool"] * 3]
    assert messages[2]["tool_call_id"] == messages[1]["tool_calls"][0]["id"]
    assert world.mapper.response["usage"]["total_tokens"] == 28
    assert (world.turns, world.boundaries, server.closed) == ([0, 1], 1, 1)
    assert [report.name for report in world.reports] == ["add"] * 3


async def test_few_calls_run_at_the_same_time() -> None:
    server = FakeServer("add", together=2)
    world = World(says("", *[("add", "{}")] * 6), says("Done."), server=server, limits='{"max_parallel": 2}')
    await world.run()
    assert (server.most, len(server.called)) == (2, 6)


async def test_the_model_has_to_answer_in_the_last_turn() -> None:
    world = World(says("", ("add", "{}")), says("", ("add", "{}")), says("Enough."), limits='{"max_turns": 3}')
    await world.run()
    assert [sent.get("tool_choice") for sent in world.sent] == [None, None, "none"]
    assert all("tools" in sent for sent in world.sent)
    assert world.mapper.response["status"] == "completed"


async def test_calls_beyond_max_tool_calls_are_ignored() -> None:
    world = World(says("", ("add", "{}"), ("add", "{}"), ("add", "{}")), says("Enough."), max_tool_calls=2)
    await world.run()
    assert world.kinds.count("mcp_call") == 2
    assert world.sent[1]["tool_choice"] == "none"


async def test_a_model_that_calls_on_although_it_has_to_answer_ends_the_response() -> None:
    world = World(says("", ("add", "{}")), says("", ("add", "{}")), max_tool_calls=1)
    await world.run()
    assert world.kinds == ["mcp_list_tools", "mcp_call", "message"]
    assert (world.mapper.response["status"], len(world.server.called)) == ("completed", 1)


async def test_what_engine_calls_have_cost_ends_the_calling_of_tools() -> None:
    answers = [says("", ("add", "{}")), says("", ("add", "{}")), says("Enough.")]
    world = World(*answers, limits='{"max_cost": "0.8"}')
    await world.run()
    assert [sent.get("tool_choice") for sent in world.sent] == [None, None, "none"]


async def test_the_time_for_tools_ends_a_call_that_hangs() -> None:
    world = World(says("", ("hang", "{}")), says("Sorry."), server=FakeServer("hang"), limits='{"max_seconds": 0.05}')
    await world.run()
    call = world.mapper.response["output"][1]
    assert (call["status"], call["error"]["code"]) == ("failed", 504)
    assert world.sent[1]["tool_choice"] == "none"
    assert world.server.running == 0


async def test_output_tokens_are_those_of_all_turns() -> None:
    world = World(says("", ("add", "{}")), says("", ("add", "{}")), max_output_tokens=8)
    await world.run()
    assert [sent["max_completion_tokens"] for sent in world.sent] == [8, 4]
    assert world.mapper.response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_an_answer_that_was_cut_calls_nothing() -> None:
    world = World(says("", ("add", '{"n":'), finish="length"))
    await world.run()
    assert world.server.called == []
    assert (world.mapper.response["status"], world.mapper.response["output"][1]["status"]) == ("incomplete",) * 2


@pytest.mark.parametrize("arguments", ["{", "[1]", "1", '{"a":1}}', "[" * 5000])
async def test_arguments_that_are_no_object_are_told_to_the_model(arguments: str) -> None:
    world = World(says("", ("add", arguments)), says("Sorry."))
    await world.run()
    assert world.server.called == []
    assert world.sent[1]["messages"][2]["content"].startswith("Error: The arguments are not")


async def test_a_server_that_breaks_is_told_to_the_model() -> None:
    world = World(says("", ("broken", "{}")), says("Sorry."), server=FakeServer("broken"))
    await world.run()
    call = world.mapper.response["output"][1]
    assert call["error"] == {"type": "mcp_protocol_error", "code": -32000, "message": "It broke."}
    assert world.sent[1]["messages"][2]["content"] == "Error: It broke."
    assert world.reports[0].result.error == call["error"]


async def test_an_engine_that_fails_in_a_later_turn_fails_the_response_with_what_there_is() -> None:
    for failure in (EngineError("It broke."), InsufficientQuotaError("No money left.")):
        world = World(says("", ("add", "{}")), failure)
        await world.run()
        response = world.mapper.response
        assert (response["status"], response["error"]["message"]) == ("failed", failure.message)
        assert world.kinds == ["mcp_list_tools", "mcp_call"]
        assert response["usage"]["output_tokens"] == 4
        assert world.server.closed


async def test_an_engine_that_fails_at_once_is_an_http_error() -> None:
    world = World(EngineError("It broke."))
    with pytest.raises(EngineError):
        await world.execution().open()
    assert world.server.closed == 1


async def test_a_server_without_a_list_is_424_or_shown_in_the_stream() -> None:
    server = FakeServer()
    server.failure = ToolServerError("The server answered with status 401.", status=401)
    with pytest.raises(ToolListError, match="401"):
        await World(server=server).execution().open()
    world = World(server=server, stream=True)
    events = await world.run()
    names = [event["type"] for event in events]
    assert names[3:] == [
        *("response.mcp_list_tools.in_progress", "response.mcp_list_tools.failed", "response.output_item.done"),
        *("error", "response.failed"),
    ]
    assert world.sent == []


async def test_functions_and_tools_of_servers_are_mixed_under_names_of_their_own() -> None:
    function = {"type": "function", "name": "add", "parameters": SCHEMA}
    world = World(says("", ("calc_add", "{}"), ("add", "{}")), tools=[function, NEVER])
    await world.run()
    assert [tool["function"]["name"] for tool in world.sent[0]["tools"]] == ["add", "calc_add"]
    assert world.kinds == ["mcp_list_tools", "mcp_call", "function_call"]
    assert world.server.called == [("add", {})]
    assert world.mapper.response["status"] == "completed"


async def test_two_servers_may_have_tools_of_the_same_name() -> None:
    other = {**NEVER, "server_label": "other"}
    world = World(says("", ("add", "{}"), ("other_add", "{}")), says("Done."), tools=[NEVER, other])
    await world.run()
    calls = [item for item in world.mapper.response["output"] if item["type"] == "mcp_call"]
    assert [(call["server_label"], call["name"]) for call in calls] == [("calc", "add"), ("other", "add")]


async def test_an_approved_call_is_made_first_and_a_resumed_response_does_not_make_it_again() -> None:
    asks = {"type": "mcp", "server_label": "calc"}
    request = {"type": "mcp_approval_request", "id": "mcpr_9", "server_label": "calc", "name": "add", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_9", "approve": True}
    items = [{"role": "user", "content": "Hi"}, request, answer]
    world = World(EngineError("It broke."), says("Done."), input=items, tools=[asks])
    await world.run()
    assert world.mapper.response["status"] == "failed"
    assert world.boundaries == 1
    # Its gateway was killed after the boundary: a new mapper is fed with the stored steps.
    last = max(at for at, step in enumerate(world.mapper.steps) if step[0] == "turn")
    again = World(says("Done."), input=items, tools=[asks], server=world.server)
    again.mapper.start()
    again.mapper.feed(world.mapper.steps[: last + 1])
    execution = again.execution()
    await execution.open()
    await execution.run(Collected())
    assert again.mapper.response["status"] == "completed"
    assert again.kinds == ["mcp_list_tools", "mcp_call", "message"]
    assert len(world.server.called) == 1


async def test_an_answer_of_a_form_is_asked_for_when_no_tool_is_called_any_more() -> None:
    """An engine that is bound to a form calls no tools."""
    form = {"format": {"type": "json_schema", "name": "sum", "schema": {"type": "object"}}}
    world = World(says("Let me see.", ("add", "{}")), says("It is 3."), says('{"sum": 3}'), text=form)
    await world.run()
    assert world.kinds == ["mcp_list_tools", "mcp_call", "message"]
    assert world.mapper.response["output"][-1]["content"][0]["text"] == '{"sum": 3}'
    assert ["response_format" in sent for sent in world.sent] == [False, False, True]
    assert [sent.get("tool_choice") for sent in world.sent] == [None, None, "none"]
    assert world.mapper.response["usage"]["output_tokens"] == 12


async def test_a_client_that_leaves_stops_what_runs() -> None:
    server = FakeServer("hang")
    world = World(says("", ("hang", "{}")), server=server)
    execution = world.execution()
    await execution.open()
    running = asyncio.create_task(execution.run(Collected()))
    await server.was_called.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await execution.aclose()
    await asyncio.sleep(0)
    assert (server.running, server.closed) == (0, 1)


def listing(*names: str) -> dict[str, Any]:
    """An item as a client may send it."""
    tools = [{"name": name, "input_schema": SCHEMA} for name in names]
    return {"type": "mcp_list_tools", "id": "mcpl_9", "server_label": "calc", "tools": tools}


async def test_a_tool_that_only_an_item_lists_is_not_called() -> None:
    items = [listing("add", "drop_tables"), {"role": "user", "content": "Hi"}]
    calls = [("drop_tables", "{}"), ("add", '{"n":1}'), ("add", '{"n":2}')]
    world = World(says("", *calls), says("Done."), input=items)
    await world.run()
    assert world.server.called == [("add", {"n": 1}), ("add", {"n": 2})]
    refused = next(item for item in world.mapper.response["output"] if item.get("name") == "drop_tables")
    assert (refused["status"], refused["output"]) == ("failed", None)
    assert "does not list" in refused["error"]["content"][0]["text"]


async def test_the_tools_of_an_item_are_shown_without_asking_the_server() -> None:
    server = FakeServer("add")
    server.failure = ToolServerError("away", status=502)
    world = World(says("Hello."), server=server, input=[listing("add"), {"role": "user", "content": "Hi"}])
    await world.run()
    assert world.kinds == ["message"]
    assert [tool["function"]["name"] for tool in world.sent[0]["tools"]] == ["add"]


async def test_an_approved_call_of_a_tool_that_only_an_item_lists_is_not_made() -> None:
    request = {
        "type": "mcp_approval_request",
        "id": "mcpr_9",
        "server_label": "calc",
        "name": "drop_tables",
        "arguments": "{}",
    }
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_9", "approve": True}
    items = [listing("drop_tables"), {"role": "user", "content": "Hi"}, request, answer]
    world = World(says("Done."), input=items)
    await world.run()
    assert world.server.called == []


async def test_one_call_of_a_turn_is_made_where_they_are_not_to_be_parallel() -> None:
    calls = [("add", '{"n":1}'), ("weather", "{}"), ("add", '{"n":2}')]
    function = {"type": "function", "name": "weather", "parameters": SCHEMA}
    world = World(says("", *calls), says("Done."), tools=[NEVER, function], parallel_tool_calls=False)
    await world.run()
    assert world.server.called == [("add", {"n": 1})]
    assert world.kinds == ["mcp_list_tools", "mcp_call", "message"]


async def test_too_many_tools_are_refused_with_what_helps() -> None:
    server = FakeServer(*(f"tool_{number}" for number in range(1000)))
    with pytest.raises(Exception, match="allowed_tools"):
        await World(server=server).execution().open()
    allowed = {**NEVER, "allowed_tools": ["tool_7"]}
    world = World(says("Hi"), server=server, tools=[allowed])
    await world.run()
    assert len(world.sent[0]["tools"]) == 1
