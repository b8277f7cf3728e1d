"""Runs the checks of one client and prints their results as JSON. Runs in the client's own environment.

A check is a function that returns if the client did what its users expect, and raises if not.
"""

import json
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
LONG = "Count to a thousand."
"""A prompt for an answer that is stopped."""
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["name", "population"],
    "additionalProperties": False,
}


def report(package: str, **checks: Callable[[], object]) -> None:
    results = {}
    for name, check in checks.items():
        try:
            check()
            results[name] = True
        except Exception:  # a client's failure is the result
            traceback.print_exc(file=sys.stderr)
            results[name] = False
    print(json.dumps({"version": version(package), "results": results}))


def is_missing_model(error: BaseException) -> None:
    """Raises unless a client's error says what the gateway said."""
    seen, words = error, ""
    while seen is not None:
        words += str(seen)
        seen = seen.__cause__ or seen.__context__
    assert "does not exist" in words, words
