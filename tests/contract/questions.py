"""Requests that several contract tests send."""

from typing import Any

ASK: Any = {"model": "chat", "messages": [{"role": "user", "content": "Say something about ships."}], "max_tokens": 16}
