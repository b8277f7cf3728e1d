"""Chats whose messages have files (`{"type": "file", "file": {"file_id": …}}`, or `file_data`), as a model reads them.

A pipeline in front of the inference pipeline: texts become text, pictures data URLs, with the limits of responses.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Head, Reply
from quarterdeck.protocol import requests
from quarterdeck.resources.responses.inline_files import inlined
from quarterdeck.resources.responses.input_files import InputFiles
from quarterdeck.resources.responses.items import is_id
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.resources.responses.translation import chat_part

WITH_FILES = b'"file_'
"""In every body with a file."""


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


class ChatFiles:
    """`confirm` reads the key as it is now. Called only for bodies with WITH_FILES in them."""

    def __init__(
        self, pipeline: Pipeline, files: InputFiles, confirm: Callable[[Principal], Awaitable[Principal]]
    ) -> None:
        self._pipeline = pipeline
        self._files = files
        self._confirm = confirm

    async def call(self, head: Head, body: bytes) -> Reply:
        """Raises APIError until the answer begins: NotFoundError for a file that the team has not."""
        body = body.removeprefix(requests.BOM)
        members = requests.members(body)
        messages: Any = requests.decode_value(members["messages"]) if "messages" in members else None
        found = list(_files(messages))
        if not found:
            return await self._pipeline.call(head, body)
        times = Counter(_file_id(file, where) for file, where in found if file.get("file_id") is not None)
        contents = {}
        if times:
            owner = owner_of(await self._confirm(head.principal))
            contents = await self._files.contents(times, owner, own=times.keys())
        replaced = [_replaced(message, contents) for message in messages]
        return await self._pipeline.call(head, requests.with_members(members, {"messages": replaced}))


def _files(messages: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The files of the messages, and where they are."""
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if (file := _file_of(part)) is not None:
                yield file, f"messages[{at}].content[{index}].file"


def _file_of(part: Any) -> dict[str, Any] | None:
    file = part.get("file") if isinstance(part, dict) and part.get("type") == "file" else None
    return file if isinstance(file, dict) else None


def _file_id(file: dict[str, Any], where: str) -> str:
    found = file["file_id"]
    if file.get("file_data") is not None:
        raise BadRequestError(
            f"Only one of '{where}.file_id' and '{where}.file_data' is taken.",
            param=f"{where}.file_id",
            code="mutually_exclusive_parameters",
        )
    if not isinstance(found, str) or not is_id(found):
        raise BadRequestError(
            f"Invalid type for '{where}.file_id': expected the id of a file.",
            param=f"{where}.file_id",
            code="invalid_type",
        )
    return found


def _replaced(message: Any, contents: dict[str, dict[str, Any]]) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    return {**message, "content": [_part(part, contents) for part in content]}


def _part(part: Any, contents: dict[str, dict[str, Any]]) -> Any:
    if (file := _file_of(part)) is None:
        return part
    read = inlined(file) if file.get("file_id") is None else contents[file["file_id"]]
    return part if read is None else chat_part(read)
