"""The headers of requests to a tool server: its own, and its API key from the environment or a file."""

import logging
from collections.abc import Mapping
from pathlib import Path

from quarterdeck.resources.tools.servers import ToolServerError
from quarterdeck.settings.files import read_file
from quarterdeck.settings.tools import ToolServerConfig

log = logging.getLogger(__name__)

MAX_KEY_BYTES = 16 * 1024


class KeyProblemError(Exception):
    """A server's API key can't be read. The message says where it should be."""


def api_key(server: ToolServerConfig, variables: Mapping[str, str]) -> str | None:
    """None: it has none. Raises KeyProblemError."""
    if server.api_key_env is not None:
        key, source = variables.get(server.api_key_env, "").strip(), f"environment variable {server.api_key_env}"
    elif server.api_key_file is not None:
        source = f"api_key_file {server.api_key_file}"
        try:
            key = read_file(Path(server.api_key_file), MAX_KEY_BYTES).decode("ascii").strip()
        except OSError as error:
            raise KeyProblemError(f"{source} can't be read: {error.strerror or error}") from error
        except ValueError as error:
            raise KeyProblemError(f"{source} is not ASCII") from error
    else:
        return None
    if not key:
        raise KeyProblemError(f"{source} is not set or empty")
    if not key.isascii() or not key.isprintable():
        raise KeyProblemError(f"{source} is not printable ASCII")
    return key


def headers_of(server: ToolServerConfig, variables: Mapping[str, str]) -> dict[str, str]:
    """Raises ToolServerError where its key is missing: a request without it would only be refused."""
    headers = {name.lower(): value for name, value in server.headers.items()}
    try:
        key = api_key(server, variables)
    except KeyProblemError as error:
        log.error("tool server has no API key", extra={"server": server.label, "reason": str(error)})
        raise ToolServerError(f"The API key of server '{server.label}' is not available.") from error
    if key is None:
        return headers
    if server.api_key_header in (None, "authorization"):
        headers["authorization"] = f"Bearer {key}"
    else:
        headers[server.api_key_header or ""] = key
    return headers
