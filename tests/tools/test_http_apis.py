"""HTTP APIs that the operator declares, as tools of responses."""

from typing import Any

import openai
import pytest

THINGS: Any = {"type": "mcp", "server_label": "things", "require_approval": "never"}


def call_of(answer: Any) -> Any:
    return next(item for item in answer.output if item.type == "mcp_call")


def test_an_operation_is_a_tool_and_its_arguments_are_a_request(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="chat", input="Please use getThing.", tools=[THINGS])
    listed = answer.output[0]
    assert listed.type == "mcp_list_tools"
    assert [tool.name for tool in listed.tools] == ["getThing", "putThing"]
    call = call_of(answer)
    assert call.status == "completed"
    assert call.output.startswith("GET /things/a%2F..%2Fb?")
    assert answer.output_text


def test_the_members_of_a_body_are_arguments(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="chat", input="Please use putThing.", tools=[THINGS])
    assert call_of(answer).output == 'PUT /things/a%2F..%2Fb? {"name":"x"}'


def test_reading_needs_no_approval_where_only_writing_does(client: openai.OpenAI) -> None:
    tool: Any = {**THINGS, "require_approval": {"never": {"read_only": True}}}
    read = client.responses.create(model="chat", input="Please use getThing.", tools=[tool])
    assert call_of(read).status == "completed"
    write = client.responses.create(model="chat", input="Please use putThing.", tools=[tool])
    assert write.output[-1].type == "mcp_approval_request"


def test_an_api_whose_document_is_missing_is_not_available(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="chat", input="Hi", tools=[{"type": "mcp", "server_label": "broken"}])
    assert caught.value.code == "tool_server_not_available"
