"""Anthropic's requests as chat completions."""

import json
from typing import Any

import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.protocol.anthropic import conversion
from quarterdeck.protocol.anthropic.requests import MessagesRequest, Prompt

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PICTURE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def chat_of(**members: Any) -> dict[str, Any]:
    body = {"model": "chat", "max_tokens": 9, "messages": HELLO, **members}
    found: dict[str, Any] = json.loads(
        conversion.chat_body(requests.decode(json.dumps(body).encode(), MessagesRequest))
    )
    return found


def messages_of(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat_of(messages=list(messages))["messages"]
    return found


def test_the_system_prompt_is_the_first_message() -> None:
    system = [
        {"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ]
    assert chat_of(system=system)["messages"] == [{"role": "system", "content": "Be short.\nBe kind."}, *HELLO]


def test_parameters_have_chats_names() -> None:
    chat = chat_of(
        stream=True,
        stop_sequences=["END"],
        top_k=3,
        top_p=0.5,
        temperature=0.1,
        metadata={"user_id": "u"},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert chat == {
        "model": "chat",
        "messages": HELLO,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["END"],
        "temperature": 0.1,
        "top_p": 0.5,
        "top_k": 3,
        "user": "u",
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    }


def test_results_of_tools_are_messages_before_the_text_and_their_pictures_follow() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "seen"}, PICTURE]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no network", "is_error": True}
    found = messages_of({"role": "user", "content": [result, failed, {"type": "text", "text": "And now?"}]})
    assert found == [
        {"role": "tool", "tool_call_id": "t1", "content": "seen"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no network"},
        {"role": "user", "content": [PICTURE_PART, {"type": "text", "text": "And now?"}]},
    ]


def test_an_assistants_blocks_are_one_message() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sea"}},
    ]
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
    assert messages_of({"role": "assistant", "content": blocks}) == [
        {"role": "assistant", "content": "I look.", "tool_calls": [call], "reasoning": "Hm."}
    ]


def test_documents_and_search_results_are_texts() -> None:
    document = {
        "type": "document",
        "title": "Log",
        "source": {"type": "text", "media_type": "text/plain", "data": "Calm."},
    }
    found = {"type": "search_result", "source": "https://a", "title": "A", "content": [{"type": "text", "text": "b"}]}
    assert messages_of({"role": "user", "content": [document, found]}) == [
        {"role": "user", "content": "Log\nCalm.\nA\nhttps://a\nb"}
    ]


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "none"}, {"tool_choice": "none"}),
    ],
)
def test_a_choice_of_tools_has_chats_form(choice: dict[str, Any], made: dict[str, Any]) -> None:
    chat = chat_of(tools=[{"name": "f", "input_schema": {"type": "object"}}], tool_choice=choice)
    assert chat["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert {name: chat[name] for name in made} == made


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"mcp_servers": [{"type": "url", "url": "https://a"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": [PICTURE]}]},
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "document", "source": {"type": "base64", "data": "JVBERg=="}}],
                    }
                ]
            },
            "messages[0].content[0].source",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "mcp_tool_use"}]}]}, "messages[0].content[0].type"),
    ],
)
def test_what_is_not_served_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat_of(**members)
    assert refused.value.param == param


def test_a_count_of_tokens_has_the_prompt_only() -> None:
    body = {
        "model": "chat",
        "messages": HELLO,
        "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "any"},
    }
    found = json.loads(conversion.tokenize_body(requests.decode(json.dumps(body).encode(), Prompt)))
    assert set(found) == {"model", "messages", "tools"}


def test_the_block_of_the_system_prompt_that_differs_in_each_request_is_left_out() -> None:
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=0a1b2;"}
    assert chat_of(system=[billing, {"type": "text", "text": "Be short."}])["messages"] == [
        {"role": "system", "content": "Be short."},
        *HELLO,
    ]
    assert chat_of(system=[billing])["messages"] == HELLO


def test_an_answer_whose_beginning_is_given_is_continued() -> None:
    begun = {"role": "assistant", "content": '{"city":'}
    chat = chat_of(messages=[*HELLO, begun])
    assert (chat["messages"][-1], chat["continue_final_message"], chat["add_generation_prompt"]) == (begun, True, False)
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    for last in ({"role": "assistant", "content": [call]}, {"role": "assistant", "content": ""}, *HELLO):
        assert "continue_final_message" not in chat_of(messages=[*HELLO, last])


def test_a_system_message_after_the_beginning_is_a_part_of_the_users_turn() -> None:
    """Claude Code sends such messages; templates of many models take a system message at the beginning only."""
    system = {"role": "system", "content": "Note."}
    note = "<system-reminder>\nNote.\n</system-reminder>"
    answer = {"role": "assistant", "content": "Hi"}
    assert messages_of(*HELLO, system) == [{"role": "user", "content": f"Hello\n{note}"}]
    assert messages_of(*HELLO, answer, system, *HELLO)[2:] == [{"role": "user", "content": f"{note}\nHello"}]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "seen"}]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    assert messages_of(*HELLO, call, result, system)[2:] == [
        {"role": "tool", "tool_call_id": "t", "content": "seen"},
        {"role": "user", "content": note},
    ]
    shown = {"role": "user", "content": [PICTURE, {"type": "text", "text": "Look."}]}
    assert messages_of(shown, system)[0]["content"] == [
        PICTURE_PART,
        {"type": "text", "text": "Look."},
        {"type": "text", "text": note},
    ]


def test_system_messages_at_the_beginning_join_the_system_prompt() -> None:
    given = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, *HELLO]
    assert chat_of(system="Be short.", messages=given)["messages"] == [
        {"role": "system", "content": "Be short.\nBe kind."},
        *HELLO,
    ]


def test_two_messages_of_the_user_stay_two() -> None:
    assert messages_of(*HELLO, *HELLO) == [*HELLO, *HELLO]


def test_a_model_that_can_do_without_thoughts_is_asked_to() -> None:
    assert chat_of(thinking={"type": "disabled"})["chat_template_kwargs"]["enable_thinking"] is False
    for thinking in (None, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}):
        assert "chat_template_kwargs" not in chat_of(thinking=thinking)


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": ""}], [{"role": "user", "content": []}]])
def test_a_conversation_without_any_message_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat_of(messages=messages)
    assert refused.value.param == "messages"
