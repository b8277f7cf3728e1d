"""Tools that the platform executes: those of MCP servers, and operations of HTTP APIs."""
