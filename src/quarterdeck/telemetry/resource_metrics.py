"""The gateway's metrics of tool calls and of files."""

from collections import defaultdict

from quarterdeck.telemetry.metrics import Metrics

TOOL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds, up to `tools.call_timeout_seconds` and the longest that one can be."""
MAX_TOOLS = 100
"""Tools of one server that have series of their own; further ones are summed under `other`. Their names are the
server's, which may have new ones each day."""
OTHER = "other"
PUBLIC = "public"
"""Label of all servers that requests name by URL and the operator has not listed: callers choose their names."""


class ResourceMetrics:
    def __init__(self, metrics: Metrics) -> None:
        self._tools: defaultdict[str, set[str]] = defaultdict(set)
        """Of listed servers."""
        self.tool_calls = metrics.counter(
            "quarterdeck_tool_calls",
            "Tool calls of responses, by server (`public`: all that the operator has not listed), tool, and outcome:"
            " ok, http_error (no answer, or one that is an error), mcp_protocol_error, mcp_tool_execution_error (the"
            " tool ran and failed).",
            ("server", "tool", "outcome"),
        )
        self.tool_seconds = metrics.histogram(
            "quarterdeck_tool_call_duration_seconds", "Time of a tool call.", TOOL_BUCKETS, ("server", "tool")
        )
        self.file_writes = metrics.counter(
            "quarterdeck_file_writes",
            "Contents that came to be stored, by kind (files, parts of uploads, uploads: begun) and outcome: stored,"
            " quota (files.max_gb_per_org), too_large, refused (for another reason), full (the storage is),"
            " unavailable (storage or database), cancelled (the client hung up).",
            ("kind", "outcome"),
        )
        self.file_bytes = metrics.counter("quarterdeck_file_bytes", "Bytes of contents that were stored.", ("kind",))

    def called(self, server: str | None, tool: str, outcome: str, seconds: float) -> None:
        """Count a tool call. `server`: the label of a listed one. None: it is not listed."""
        if server is None:
            server, tool = PUBLIC, OTHER
        elif tool not in (known := self._tools[server]):
            if len(known) < MAX_TOOLS:
                known.add(tool)
            else:
                tool = OTHER
        self.tool_calls.add((server, tool, outcome))
        self.tool_seconds.observe(max(0.0, seconds), (server, tool))

    def written(self, kind: str, outcome: str, size: int) -> None:
        """Count a content that came to be stored. `size`: what of it has arrived, in bytes."""
        self.file_writes.add((kind, outcome))
        if outcome == "stored":
            self.file_bytes.add((kind,), size)
