"""Replaces pictures, audio and files in a request or an answer by their type, size and hash. Pure."""

import binascii
import hashlib
import re
from typing import Any

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+=-]+)*),", re.ASCII)
_PLAIN_DATA = ("data", "file_data", "b64_json")
"""Members that hold base64 without a `data:` prefix: `input_audio.data`, `file.file_data`, an answer's `audio.data`."""
LEAST = 256
"""Characters. A shorter value is no picture, and stays."""
_DEEPEST = 100


def without_media(value: Any, depth: int = 0) -> Any:
    """The value with `<media: image/png, 1234 bytes, sha256 …>` in place of each inline medium."""
    if depth > _DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, str):
        return _of_data_url(value) if value.startswith("data:") and len(value) >= LEAST else value
    if isinstance(value, list):
        return [without_media(item, depth + 1) for item in value]
    if isinstance(value, dict):
        found = {}
        for name, item in value.items():
            if name in _PLAIN_DATA and isinstance(item, str) and len(item) >= LEAST and not item.startswith("data:"):
                found[name] = _placeholder(str(value.get("format") or value.get("filename") or "data")[:64], item)
            else:
                found[name] = without_media(item, depth + 1)
        return found
    return value


def _of_data_url(url: str) -> str:
    match = _DATA_URL.match(url[:512])
    if match is None:
        return url
    return _placeholder(match[1] or "text/plain", url[match.end() :])


def _placeholder(kind: str, encoded: str) -> str:
    try:
        data = binascii.a2b_base64(encoded)
    except (binascii.Error, ValueError):
        data = encoded.encode("utf-8", "surrogatepass")
    return f"<media: {kind}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}>"
