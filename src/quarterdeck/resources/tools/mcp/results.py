"""Results of MCP tools as texts for a model. Pure."""

from typing import Any

import mcp_types as types
import msgspec

from quarterdeck.resources.tools.bounds import cut
from quarterdeck.resources.tools.servers import ToolResult, tool_error


def result_of(result: types.CallToolResult, max_bytes: int) -> ToolResult:
    """The texts of a result. What is no text is named; structured content is shown where there is no text."""
    text = "\n".join(_text(part) for part in result.content)
    if not text and result.structured_content is not None:
        text = msgspec.json.encode(result.structured_content).decode()
    text = cut(text, max_bytes)
    return ToolResult(error=tool_error(text or "The tool failed.")) if result.is_error else ToolResult(text)


def _text(part: Any) -> str:
    if isinstance(part, types.TextContent):
        return part.text
    if isinstance(part, types.ImageContent | types.AudioContent):
        return f"[{part.type}: {part.mime_type[:100]}, {len(part.data) * 3 // 4} bytes; it is not shown]"
    if isinstance(part, types.EmbeddedResource):
        if isinstance(part.resource, types.TextResourceContents):
            return part.resource.text
        return f"[resource: {str(part.resource.uri)[:500]}; it is not shown]"
    if isinstance(part, types.ResourceLink):
        return f"[resource: {str(part.uri)[:500]}]"
    return "[content that is not shown]"
