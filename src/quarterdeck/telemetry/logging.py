"""Logs: one JSON object per line, on stderr, with secrets redacted.

Modules log with the standard library; a door calls `configure` once. `extra=` becomes fields. The finished line is
searched for secrets whatever its source, because a library's exception may quote a header.
"""

import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

# Module-level, because every reader and writer of a context variable needs the same object. The door sets it in the
# task that serves a request.
request_id: ContextVar[str | None] = ContextVar("quarterdeck_request_id", default=None)

HIDDEN = "[redacted]"
MAX_LINE = 32 * 1024
"""Most characters of a message or a traceback, so that a log line cannot fill a disk."""

_SECRETS = (
    (("bearer", "basic"), re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    # Quarterdeck's, OpenAI's and Langfuse's keys: the prefix is kept to identify the kind.
    (("sk-",), re.compile(r"\b(sk-(?:qd-|lf-|proj-)?)[A-Za-z0-9_-]{6,}"), rf"\1{HIDDEN}"),
    (("://",), re.compile(r"(?<=://)([^\s/:@\"]*):[^\s/@\"]+@"), rf"\1:{HIDDEN}@"),
)
"""Words without which a line cannot match, the pattern, its replacement. A gateway logs a line per request, and trying
every pattern cost more than the rest of the line."""
_SECRET_FIELDS = re.compile(r"(?i)^(authorization|proxy-authorization|cookie|password|secret|api_?key|x-api-key)$")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def redact(text: str) -> str:
    """Replace API keys, authorization values and passwords in URLs."""
    lower = text.lower()
    for words, pattern, replacement in _SECRETS:
        for word in words:
            if word in lower:
                text = pattern.sub(replacement, text)
                break
    return text


def may_hold_secrets(text: str) -> bool:
    """Whether any pattern of `redact` could match. Checked once for many lines, it usually avoids `redact` for each."""
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
    # They install their own handlers, or log each request at INFO.
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
        # A field that JSON cannot encode (a lone surrogate, a key that is not a string) must not lose the line.
        plain = {name: str(value).encode("utf-8", "replace").decode() for name, value in line.items()}
        return msgspec.json.encode(plain).decode()
