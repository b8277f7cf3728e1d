"""Checks of `tools:` in quarterdeck.yaml: keys and OpenAPI documents, and in `doctor` the MCP servers themselves."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from quarterdeck.cli.findings import Finding
from quarterdeck.errors import APIError
from quarterdeck.net.proxies import Proxies
from quarterdeck.resources.tools.credentials import KeyProblemError, api_key
from quarterdeck.resources.tools.directory import ToolDirectory
from quarterdeck.resources.tools.openapi.document import DocumentError
from quarterdeck.resources.tools.openapi.server import HttpApi
from quarterdeck.resources.tools.servers import ToolServerError
from quarterdeck.settings.live import Live
from quarterdeck.settings.tools import HttpApiConfig, McpServerConfig, ToolsConfig, ToolServerConfig
from quarterdeck.store.orgs import DEFAULT_ORG

REFUSED = "responses that use it are refused until that is mended"


def problems(tools: ToolsConfig, variables: Mapping[str, str], folder: Path) -> list[str]:
    """What makes requests that use a server fail, by its label. `variables`: the environment; `folder`: of
    quarterdeck.yaml. No server is called."""
    return [f"{place}: {text}" for place, text in _problems(tools, variables, folder).items()]


def check(tools: ToolsConfig, variables: Mapping[str, str], folder: Path) -> list[Finding]:
    """The same, and whether the MCP servers list their tools, which are all asked at once."""
    broken = _problems(tools, variables, folder)
    found = [Finding("note", f"{place}: {text}", REFUSED) for place, text in broken.items()]
    asked = [each for each in tools.mcp_servers if _place(each) not in broken]
    found += asyncio.run(_listed(asked, tools, variables)) if asked else []
    usable = [each for each in tools.http_apis if _place(each) not in broken]
    return found + [Finding("ok", f"HTTP API {each.label}: {len(each.operations)} operations") for each in usable]


def _problems(tools: ToolsConfig, variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    found = {}
    for server in (*tools.mcp_servers, *tools.http_apis):
        try:
            api_key(server, variables)
            if isinstance(server, HttpApiConfig):
                HttpApi(server, folder)
        except KeyProblemError as error:
            found[_place(server)] = f"no API key: {error}"
        except DocumentError as error:
            found[_place(server)] = f"its OpenAPI document can't be used: {error}"
    return found


def _place(server: ToolServerConfig) -> str:
    kind = "mcp_servers" if isinstance(server, McpServerConfig) else "http_apis"
    return f"tools.{kind}[{server.label}]"


def _shown(url: str) -> str:
    """Without its query, in which many servers want their key: reports are shown to others."""
    address, _, query = url.partition("?")
    return f"{address}?…" if query else address


async def _listed(servers: list[McpServerConfig], tools: ToolsConfig, variables: Mapping[str, str]) -> list[Finding]:
    directory = ToolDirectory(Live(tools), variables, proxies=Proxies(variables))
    try:
        return list(await asyncio.gather(*(_listing(directory, each) for each in servers)))
    finally:
        await directory.close()


async def _listing(directory: ToolDirectory, config: McpServerConfig) -> Finding:
    name = f"MCP server {config.label} ({_shown(config.url)})"
    try:
        server = await directory.open(config.label, None, (config.orgs or (DEFAULT_ORG,))[0], "tools")
        try:
            listed = await server.list_tools()
        finally:
            await server.aclose()
    except ToolServerError as error:
        return Finding("note", f"{name}: {error.message}", "check its URL, its key, and that it runs")
    except APIError as error:
        return Finding("note", f"{name}: {error.message}", REFUSED)
    return Finding("ok", f"{name}: {len(listed)} tools")
