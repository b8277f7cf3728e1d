"""What coding agents send, as recorded from the programs themselves: Codex 0.171.0 and Claude Code 2.1.197."""

import json
from typing import Any

import anthropic
import openai
from openai.types.responses import ResponseFunctionToolCall
from tests.contract.platform import USER, Platform

PARAMETERS = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
TOOLS: list[Any] = [
    {"type": "function", "name": "exec_command", "description": "Runs it.", "strict": False, "parameters": PARAMETERS},
    {"type": "function", "name": "get_goal", "description": "The goal.", "strict": False, "parameters": PARAMETERS},
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Tools for agents.",
        "tools": [{"type": "function", "name": "close_agent", "strict": False, "parameters": PARAMETERS}],
    },
    {"type": "web_search", "external_web_access": False},
]


def said(role: str, text: str, id: str) -> dict[str, Any]:
    return {"type": "message", "id": id, "role": role, "content": [{"type": "input_text", "text": text}]}


def codex(client: openai.OpenAI, items: list[Any]) -> list[Any]:
    """The output items of a turn of Codex."""
    stream = client.responses.create(
        model="chat",
        input=items,
        tools=TOOLS,
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="01a22ccf-bb36-7293-9eb1-6b2c04566000",
        extra_body={"client_metadata": {"thread_id": "01a22ccf", "x-codex-turn-metadata": "{}"}},
        extra_headers={"originator": "codex_exec", "session-id": "01a22ccf", "accept-encoding": "zstd,gzip"},
    )
    with stream:
        *_, last = stream
    assert last.type == "response.completed"
    return list(last.response.output)


def test_codex_has_its_commands_called_and_sends_their_output(client: openai.OpenAI) -> None:
    items: list[Any] = [
        said("developer", "You are a coding agent.", "msg_c0b564b9-9c03-5e8d-b8cd-1dd5838e5fa5"),
        said("developer", "<skills_instructions>none</skills_instructions>", "msg_01a22ccf-bb67-7e83"),
        said("user", "<environment_context>bash</environment_context>", "msg_01a22ccf-bb67-7e84"),
        said("user", "Please use exec_command", "msg_01a22ccf-bb6f-7aa0"),
    ]
    (call,) = codex(client, items)
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.namespace) == ("exec_command", None)
    items += [
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "id": "fco_01a22cdc", "call_id": call.call_id, "output": "Exit code 127"},
    ]
    (answer,) = codex(client, items)
    assert answer.type == "message"


def test_codex_has_a_function_of_a_namespace_called(client: openai.OpenAI) -> None:
    items: list[Any] = [said("user", "Please multi_agent_v1__close_agent", "msg_1")]
    (call,) = codex(client, items)
    assert (call.name, call.namespace) == ("close_agent", "multi_agent_v1")
    items += [
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "closed"},
    ]
    (answer,) = codex(client, items)
    assert answer.type == "message"


def test_claude_code_has_its_tools_called(platform: Platform) -> None:
    ephemeral = {"type": "ephemeral"}
    messages: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\n# currentDate\n</system-reminder>\n\n"},
                {"type": "text", "text": "Please use Bash", "cache_control": ephemeral},
            ],
        },
        {"role": "system", "content": "Available agent types: none."},
    ]
    asked: dict[str, Any] = {
        "model": "chat",
        "max_tokens": 256,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.fa0; cc_entrypoint=sdk-cli;"},
            {"type": "text", "text": "You are an agent.", "cache_control": ephemeral},
        ],
        "tools": [{"name": "Bash", "description": "Runs it.", "input_schema": {**PARAMETERS, "$schema": "x"}}],
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": json.dumps({"device_id": "2d649b10" * 8, "account_uuid": "", "session_id": "b0e5"})},
        "extra_body": {
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
        },
        "extra_headers": {"anthropic-beta": "claude-code-20250219,mid-conversation-system-2026-04-07"},
        "extra_query": {"beta": "true"},
    }
    with anthropic.Anthropic(
        base_url=platform.gateway.url, auth_token=USER, max_retries=0, timeout=20.0, _strict_response_validation=True
    ) as client:
        with client.messages.stream(**asked, messages=messages) as stream:
            called = stream.get_final_message()
        assert called.stop_reason == "tool_use"
        (block,) = called.content
        assert block.type == "tool_use" and block.name == "Bash"
        result = {"type": "tool_result", "tool_use_id": block.id, "content": "Exit code 127", "is_error": True}
        messages += [
            {"role": "assistant", "content": [block.model_dump(exclude_none=True)]},
            {"role": "user", "content": [result]},
            {"role": "system", "content": "Remember the tasks."},
        ]
        with client.messages.stream(**asked, messages=messages) as stream:
            answered = stream.get_final_message()
    assert [block.type for block in answered.content] == ["text"]
    assert answered.usage.input_tokens > 0
