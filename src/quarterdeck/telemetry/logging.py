"""Logs: a JSON object a line, on stderr, without secrets.

Everybody logs with the standard library; a door calls `configure` once and hands nothing on. What a caller passes as
`extra=` becomes fields. The finished line is searched for what looks like a secret, whoever wrote it: a library's
exception may quote a header.
"""

import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

# The one thing of this module that is not handed in: a context variable has to be one object for all who set and read
# it. The door sets it for the task that serves a request.
request_id: ContextVar[str | None] = ContextVar("quarterdeck_request_id", default=None)

HIDDEN = "[redacted]"
MAX_LINE = 32 * 1024
"""Characters of a message or a traceback; a log line must not be a way to fill a disk."""

_SECRETS = (
    (("bearer", "basic"), re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    # Keys of ours, of OpenAI's, of Langfuse's: the prefix stays, so that one sees what it was.
    (("sk-",), re.compile(r"\b(sk-(?:qd-|lf-|proj-)?)[A-Za-z0-9_-]{6,}"), rf"\1{HIDDEN}"),
    (("://",), re.compile(r"(?<=://)([^\s/:@\"]*):[^\s/@\"]+@"), rf"\1:{HIDDEN}@"),
)
"""Words without which a line can't match, the pattern, what stays. A gateway logs a line a request, and trying the
patterns on each cost more than all else of the line."""
_SECRET_FIELDS = re.compile(r"(?i)^(authorization|proxy-authorization|cookie|password|secret|api_?key|x-api-key)$")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def redact(text: str) -> str:
    """Hide API keys, authorization values and passwords in URLs."""
    lower = text.lower()
    for words, pattern, replacement in _SECRETS:
        for word in words:
            if word in lower:
                text = pattern.sub(replacement, text)
                break
    return text


def may_hold_secrets(text: str) -> bool:
    """Whether `redact` would look closer: asked once of many lines, it mostly spares looking at each."""
    lower = text.lower()
    return any(word in lower for words, _, _ in _SECRETS for word in words)


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON: ts, level, logger, message, service, request_id, the extras, exc."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
            "service": self._service,
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = HIDDEN if _SECRET_FIELDS.match(name) else value
        if record.exc_info and record.exc_info[0] is not None:
            line["exc"] = _cut(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = _cut(self.formatStack(record.stack_info))
        return redact(_encode(line))


def configure(level: str, service: str, stream: TextIO | None = None) -> None:
    """Send every logger of this process to `stream` (stderr) as JSON. Calling it again replaces what was there."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter(service))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    # They bring handlers of their own, or say at INFO what every request does.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore", "alembic", "aiosqlite", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else text[:MAX_LINE] + f"… ({len(text)} characters)"


def _encode(line: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError):
        # A field that JSON has no word for (a lone surrogate, a key that is no string): the line must not be lost.
        plain = {name: str(value).encode("utf-8", "replace").decode() for name, value in line.items()}
        return msgspec.json.encode(plain).decode()
