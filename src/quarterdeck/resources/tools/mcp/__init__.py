"""MCP servers over streamable HTTP and SSE, with the official SDK.

The SDK takes a second and 40 MB to import, so only `session` and `transport` import it, and they are imported when the
first MCP server is used.
"""
