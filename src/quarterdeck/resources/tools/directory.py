"""The tool servers of this platform: the operator's by label or URL, and any on a public address."""

import asyncio
import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.errors import BadRequestError
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.public_addresses import may_be_public
from quarterdeck.resources.tools.allowed import AllowedTools
from quarterdeck.resources.tools.credentials import headers_of
from quarterdeck.resources.tools.http_access import HttpAccess
from quarterdeck.resources.tools.openapi.document import DocumentError
from quarterdeck.resources.tools.openapi.server import HttpApi, HttpApiServer
from quarterdeck.resources.tools.servers import ToolServer, ToolServerError
from quarterdeck.settings.live import Live
from quarterdeck.settings.tools import HttpApiConfig, McpServerConfig, ToolsConfig

log = logging.getLogger(__name__)

_SESSION = "quarterdeck.resources.tools.mcp.session"


class ToolDirectory:
    """`variables`: the environment, for API keys. `folder`: of quarterdeck.yaml, for OpenAPI documents."""

    def __init__(
        self,
        config: Live[ToolsConfig],
        variables: Mapping[str, str],
        *,
        folder: Path = Path(),
        proxies: Proxies | None = None,
    ) -> None:
        self._config = config
        self._variables = variables
        self._folder = folder
        self._apis: dict[str, HttpApi] = {}

        def max_bytes() -> int:
            return config.current.max_answer_mb * 1024 * 1024

        self._public = HttpAccess(is_public=True, max_bytes=max_bytes, proxies=proxies)
        self._listed = HttpAccess(is_public=False, max_bytes=max_bytes, proxies=proxies)

    async def open(self, label: str, url: str | None, org: str, where: str) -> ToolServer:
        """A server for one response, which connects when it is used. Raises BadRequestError, naming `where`."""
        config = self._config.current
        servers = [each for each in config.mcp_servers if _may_use(each, org)]
        if url is not None:
            listed = next((each for each in servers if _same(each.url, url)), None)
            return await self._mcp(url, listed, config, where)
        listed = next((each for each in servers if each.label == label), None)
        if listed is not None:
            return await self._mcp(listed.url, listed, config, where)
        apis = [each for each in config.http_apis if _may_use(each, org)]
        if (api := next((each for each in apis if each.label == label), None)) is not None:
            return await self._http_api(api, config, where)
        names = sorted(each.label for each in (*servers, *apis))
        raise BadRequestError(
            f"Unknown server '{label}'. Give its 'server_url', or one of these labels: {', '.join(names) or 'none'}.",
            param=f"{where}.server_label",
            code="unknown_tool_server",
        )

    def listed_label(self, label: str, url: str | None, org: str) -> str | None:
        """The label under which the operator has listed a server that `open` opens. None: it is not listed."""
        if url is None:
            return label
        servers = [each for each in self._config.current.mcp_servers if _may_use(each, org)]
        return next((each.label for each in servers if _same(each.url, url)), None)

    async def close(self) -> None:
        await self._public.close()
        await self._listed.close()

    async def _http_api(self, api: HttpApiConfig, config: ToolsConfig, where: str) -> ToolServer:
        known = self._apis.get(api.label)
        if known is None or known.config != api:
            try:
                known = await asyncio.to_thread(HttpApi, api, self._folder)
            except DocumentError as error:
                log.error("OpenAPI document can't be used: %s", error, extra={"server": api.label})
                raise BadRequestError(
                    f"Server '{api.label}' is not available: its configuration has an error.",
                    param=where,
                    code="tool_server_not_available",
                ) from error
            self._apis[api.label] = known
        return HttpApiServer(
            known,
            self._listed,
            await self._headers(api),
            timeout=api.timeout_seconds or config.call_timeout_seconds,
            max_result=config.max_result_kb * 1024,
        )

    async def _mcp(self, url: str, listed: McpServerConfig | None, config: ToolsConfig, where: str) -> ToolServer:
        if listed is None:
            if not config.public_servers:
                raise BadRequestError(
                    "MCP servers that the operator has not listed are not called here.",
                    param=f"{where}.server_url",
                    code="tool_server_not_allowed",
                )
            if not may_be_public(urlsplit(url).hostname or ""):
                raise BadRequestError(
                    "The 'server_url' leads to a private address. Servers on private addresses have to be listed by "
                    "the operator (`tools.mcp_servers` in quarterdeck.yaml).",
                    param=f"{where}.server_url",
                    code="tool_server_not_allowed",
                )
        try:
            # In a thread: the SDK takes a second to import.
            session = await asyncio.to_thread(importlib.import_module, _SESSION)
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.startswith("quarterdeck"):
                raise
            raise BadRequestError(
                "This installation has no MCP client. Install 'quarterdeck[mcp]'.",
                param=where,
                code="mcp_not_installed",
            ) from error
        made: ToolServer = session.McpSession(
            self._public if listed is None else self._listed,
            url,
            {} if listed is None else await self._headers(listed),
            transport="auto" if listed is None else listed.transport,
            list_seconds=config.list_timeout_seconds,
            call_seconds=(listed.timeout_seconds if listed is not None else None) or config.call_timeout_seconds,
            max_result=config.max_result_kb * 1024,
        )
        if listed is None or listed.allowed_tools is None:
            return made
        return AllowedTools(made, frozenset(listed.allowed_tools))

    async def _headers(self, server: McpServerConfig | HttpApiConfig) -> dict[str, str]:
        try:
            return await asyncio.to_thread(headers_of, server, self._variables)
        except ToolServerError as error:
            raise BadRequestError(error.message, param="tools", code="tool_server_not_available") from error


def _may_use(server: McpServerConfig | HttpApiConfig, org: str) -> bool:
    return server.orgs is None or org in server.orgs


def _same(one: str, other: str) -> bool:
    """Whether two URLs name one server: the host's case and an empty path make no difference."""
    parts, others = urlsplit(one), urlsplit(other)
    return (parts.scheme, parts.hostname, parts.port, parts.path or "/", parts.query) == (
        others.scheme,
        others.hostname,
        others.port,
        others.path or "/",
        others.query,
    )
