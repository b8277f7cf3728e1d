"""A request of Anthropic's Messages API as a chat completion, which any engine serves. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.anthropic.requests import (
    Block,
    Document,
    Image,
    Message,
    MessagesRequest,
    Prompt,
    RedactedThinking,
    SearchResult,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)

EFFORTS = {"xhigh": "high", "max": "high"}
"""Efforts that chat completions have no word for."""
NO_THINKING = {"enable_thinking": False, "thinking": False}
"""How chat templates name it (Qwen's, DeepSeek's). Others do not read it; servers that are not vLLM are not sent it."""
REMINDER = "<system-reminder>"
"""How Claude Code marks what is not said by the user."""
BILLING = "x-anthropic-billing-header"
"""How a block of the system prompt begins that Claude Code adds for Anthropic: it differs in each request, so that
neither an engine's prefix cache nor the gateway's would find the rest of the prompt again. It is left out, as vLLM
does."""


def chat_body(request: MessagesRequest) -> bytes:
    """The chat completion's body. Raises BadRequestError for what is not served, naming its field."""
    chat = _prompt(request) | {"max_tokens": request.max_tokens}
    if _is_prefilled(chat["messages"][-1]):
        # vLLM's way to go on from the beginning of an answer. Other servers are not sent these (`dialects`).
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.thinking is not None and request.thinking.type == "disabled":
        chat["chat_template_kwargs"] = NO_THINKING
    if request.stream:
        # The usage ends the stream; Anthropic's clients read it from `message_delta`.
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.stop_sequences:
        chat["stop"] = request.stop_sequences
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(request, name)) is not None:
            chat[name] = value
    if request.metadata is not None and request.metadata.user_id:
        chat["user"] = request.metadata.user_id
    config = request.output_config
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = EFFORTS.get(config.effort, config.effort)
    wanted = request.output_format or (config.format if config is not None else None)
    if wanted is not None:
        schema = {"name": "answer", "schema": wanted.schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return msgspec.json.encode(chat)


def tokenize_body(request: Prompt) -> bytes:
    """The body of `/tokenize` that counts the request's tokens. Raises BadRequestError as `chat_body`."""
    chat = _prompt(request)
    chat.pop("tool_choice", None)
    chat.pop("parallel_tool_calls", None)
    return msgspec.json.encode(chat)


def _prompt(request: Prompt) -> dict[str, Any]:
    if request.mcp_servers:
        raise _unsupported("mcp_servers", "MCP servers are not called by this gateway.")
    if request.container is not None:
        raise _unsupported("container", "Containers are not served by this gateway.")
    messages: list[dict[str, Any]] = []
    if request.system and (system := _texts(request.system)):
        messages.append({"role": "system", "content": system})
    for number, message in enumerate(request.messages):
        where = f"messages[{number}].content"
        if message.role == "system":
            _remind(messages, _system_text(message, where))
        else:
            _add(messages, _messages(message, where))
    if not request.messages or not messages:  # an empty system message is none
        raise BadRequestError("messages: at least one message is required.", param="messages", code="invalid_value")
    chat: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.tools:
        chat["tools"] = [_tool(tool, number) for number, tool in enumerate(request.tools)]
        if request.tool_choice is not None:
            chat |= _tool_choice(request.tool_choice)
    return chat


def _system_text(message: Message, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    for number, block in enumerate(message.content):
        if not isinstance(block, Text):
            raise _misplaced(block, "system", f"{where}[{number}]")
    return _texts([block for block in message.content if isinstance(block, Text)])


def _remind(messages: list[dict[str, Any]], text: str) -> None:
    """Add a system message. After the beginning it is a part of the user's turn: templates of many models refuse it
    elsewhere (Qwen), and joined to the first one it would change all that an engine has cached of the conversation."""
    if not text or text.startswith(BILLING):
        return
    if not messages or messages[-1]["role"] == "system":
        text = "\n".join([*(each["content"] for each in messages), text])
        messages[:] = [{"role": "system", "content": text}]
    else:
        _add(messages, [{"role": "user", "content": f"{REMINDER}\n{text}\n</system-reminder>"}], joins=True)


def _add(messages: list[dict[str, Any]], new: Iterable[dict[str, Any]], *, joins: bool = False) -> None:
    """Add messages. One of the user's joins a reminder before it, and a reminder (`joins`) the user's message before
    it: some templates take no two in a row."""
    for message in new:
        if message["role"] == "user" and messages and (joins or _is_reminder(messages[-1])):
            before = _as_parts(messages.pop()) if messages[-1]["role"] == "user" else []
            message = {"role": "user", "content": _joined([*before, *_as_parts(message)])}
        messages.append(message)


def _is_reminder(message: dict[str, Any]) -> bool:
    content = message["content"]
    return message["role"] == "user" and isinstance(content, str) and content.startswith(REMINDER)


def _as_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [_text(content)] if isinstance(content, str) else content


def _is_prefilled(last: dict[str, Any]) -> bool:
    """Whether the conversation ends with the beginning of the answer."""
    return last["role"] == "assistant" and bool(last["content"]) and "tool_calls" not in last


def _messages(message: Message, where: str) -> Iterator[dict[str, Any]]:
    """The chat's messages of one message: each result of a tool is a message of its own, before the text."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif message.role == "assistant":
        yield _assistant(message.content, where)
    else:
        yield from _given(message.role, message.content, where)


def _given(role: str, blocks: list[Block], where: str) -> Iterator[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        at = f"{where}[{number}]"
        if isinstance(block, ToolResult):
            texts, pictures = _result(block, at)
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": texts}
            parts += pictures  # a tool's message has text only
        else:
            parts += _parts(block, role, at)
    if parts:
        yield {"role": role, "content": _joined(parts)}


def _assistant(blocks: list[Block], where: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(blocks):
        if isinstance(block, Text):
            texts.append(block.text)
        elif isinstance(block, Thinking):
            thoughts.append(block.thinking)
        elif isinstance(block, ToolUse):
            arguments = msgspec.json.encode(block.input).decode()
            calls.append({"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}})
        elif not isinstance(block, RedactedThinking):
            raise _misplaced(block, "assistant", f"{where}[{number}]")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    if thoughts:
        message["reasoning"] = "".join(thoughts)
    return message


def _parts(block: Block, role: str, where: str) -> list[dict[str, Any]]:
    if isinstance(block, Text):
        return [_text(block.text)]
    if isinstance(block, Image):
        return [_image(block, where)]
    if isinstance(block, Document):
        return _document(block, where)
    if isinstance(block, SearchResult):
        return [_text(_search_result(block))]
    raise _misplaced(block, role, where)


def _result(block: ToolResult, where: str) -> tuple[str, list[dict[str, Any]]]:
    """The text of a tool's result and its pictures."""
    if block.content is None or isinstance(block.content, str):
        texts, pictures = block.content or "", []
    else:
        parts = [part for each in block.content for part in _parts(each, "user", f"{where}.content")]
        texts = "\n".join(part["text"] for part in parts if part["type"] == "text")
        pictures = [part for part in parts if part["type"] != "text"]
    return (f"Error: {texts}" if block.is_error else texts), pictures


def _image(block: Image, where: str) -> dict[str, Any]:
    source = block.source
    if source.type == "base64" and source.data is not None and source.media_type is not None:
        url = f"data:{source.media_type};base64,{source.data}"
    elif source.type == "url" and source.url is not None:
        url = source.url
    else:
        raise _unsupported(f"{where}.source", "An image is given as 'base64' (media_type and data) or as 'url'.")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Document, where: str) -> list[dict[str, Any]]:
    source = block.source
    head = [_text(each) for each in (block.title, block.context) if each]
    if source.type == "text" and source.data is not None:
        return [*head, _text(source.data)]
    if source.type == "content" and source.content is not None:
        if isinstance(source.content, str):
            return [*head, _text(source.content)]
        return head + [part for each in source.content for part in _parts(each, "user", f"{where}.source.content")]
    raise _unsupported(f"{where}.source", "A document is given as 'text' or 'content'; PDF files are not read here.")


def _search_result(block: SearchResult) -> str:
    return "\n".join((block.title, block.source, *(each.text for each in block.content)))


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One string where all parts are text: some models' chat templates take no parts."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _texts(system: str | list[Text]) -> str:
    if isinstance(system, str):
        return system
    return "\n".join(block.text for block in system if not block.text.startswith(BILLING))


def _tool(tool: Tool, number: int) -> dict[str, Any]:
    where = f"tools[{number}]"
    if tool.type not in (None, "custom"):
        raise _unsupported(
            f"{where}.type", f"'{tool.type}' is a tool of Anthropic's. Tools of type 'custom' are served."
        )
    if tool.input_schema is None:
        param = f"{where}.input_schema"
        raise BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    chosen: object = {"any": "required"}.get(choice.type, choice.type)
    if choice.type == "tool":
        if choice.name is None:
            raise BadRequestError(
                "Missing required parameter: 'tool_choice.name'.",
                param="tool_choice.name",
                code="missing_required_parameter",
            )
        chosen = {"type": "function", "function": {"name": choice.name}}
    made: dict[str, Any] = {"tool_choice": chosen}
    if choice.disable_parallel_tool_use is not None:
        made["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return made


def _unsupported(param: str, reason: str) -> BadRequestError:
    return BadRequestError(f"Unsupported parameter: '{param}'. {reason}", param=param, code="unsupported_parameter")


def _misplaced(block: Block, role: str, where: str) -> BadRequestError:
    kind = block.__struct_config__.tag
    return BadRequestError(
        f"Invalid value for '{where}': a message of role '{role}' can't have a block of type '{kind}'.",
        param=where,
        code="invalid_value",
    )
