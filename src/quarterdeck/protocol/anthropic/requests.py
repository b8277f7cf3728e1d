"""Requests of Anthropic's Messages API (https://docs.anthropic.com/en/api/messages), as far as the gateway reads them.

Fields that change nothing here (`cache_control`, `service_tier`, `context_management`) are ignored: engines cache
prompts by themselves. What would change the answer and is not served is refused (`conversion`).
"""

from typing import Annotated, Any, Literal

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str


class ImageSource(msgspec.Struct, frozen=True):
    type: Literal["base64", "url", "file"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class Image(msgspec.Struct, frozen=True, tag="image"):
    source: ImageSource


class DocumentSource(msgspec.Struct, frozen=True):
    type: Literal["text", "content", "base64", "url", "file"]
    data: str | None = None
    content: str | list[Text | Image] | None = None


class Document(msgspec.Struct, frozen=True, tag="document"):
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResult(msgspec.Struct, frozen=True, tag="search_result"):
    source: str
    title: str
    content: list[Text]


class ToolUse(msgspec.Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | Image | Document | SearchResult] | None = None
    is_error: bool | None = None


class Thinking(msgspec.Struct, frozen=True, tag="thinking"):
    thinking: str


class RedactedThinking(msgspec.Struct, frozen=True, tag="redacted_thinking"):
    """Another provider's encrypted thoughts: no engine can read them."""


Block = Text | Image | Document | SearchResult | ToolUse | ToolResult | Thinking | RedactedThinking


class Message(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct, frozen=True):
    name: str
    type: str | None = None
    """Absent or `custom`: a tool of the client's. Others are Anthropic's own."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingOption(msgspec.Struct, frozen=True):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None


class Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/messages` and `/v1/messages/count_tokens` have in common."""

    model: str
    messages: list[Message]
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingOption | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[Any] | None = None
    container: Any = None


Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class MessagesRequest(Prompt, frozen=True, kw_only=True):
    """The body of `POST /v1/messages`."""

    max_tokens: Tokens
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    metadata: Metadata | None = None

    @property
    def thinks(self) -> bool:
        """Whether the client asked for the thoughts before an answer."""
        return self.thinking is not None and self.thinking.type != "disabled"
