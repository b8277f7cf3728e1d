"""Mounted into vLLM's pods (see `engine_logging.py`): one line for each error, without its stack trace.

Standard library only, since it is imported by vLLM's Python.
"""

import logging

_LIMIT = 1500
"""Characters of a line: the kubelet keeps 4,096 bytes of the file."""


class TerminationFormatter(logging.Formatter):
    """`message: Exception: text`."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = f"{text} {type(error).__name__}: {error}"
        return " ".join(text.split())[:_LIMIT]
