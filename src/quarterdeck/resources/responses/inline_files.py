"""Files as a model reads them: texts as text, pictures as data URLs. Pure."""

import base64
import binascii
from typing import Any

from quarterdeck.resources.files.content_types import IMAGES, SNIFFED_BYTES, content_type, is_text
from quarterdeck.resources.responses.items import Item


def readable(content: bytes, filename: str, mime: str) -> Item | None:
    """The part of an input that has a file's content. None: no model here can be given it."""
    if mime in IMAGES:
        encoded = base64.b64encode(content).decode("ascii")
        return {"type": "input_image", "image_url": f"data:{mime};base64,{encoded}", "detail": "auto"}
    if is_text(mime):
        return {"type": "input_text", "text": f"[file: {filename}]\n{content.decode('utf-8', 'replace')}"}
    return None


def inlined(part: Item) -> Item | None:
    """The part that takes the place of an `input_file` with `file_data`. None: it is for the engine to read or to
    refuse; some servers read PDF."""
    data: Any = part.get("file_data")
    if not isinstance(data, str):
        return None
    if data.startswith("data:"):
        head, comma, data = data.partition(",")
        if not comma or not head.endswith(";base64"):
            return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    filename = part.get("filename")
    name = filename if isinstance(filename, str) and filename else "file"
    start = content[:SNIFFED_BYTES]
    return readable(content, name, content_type(start, name, is_whole=len(start) == len(content)))
