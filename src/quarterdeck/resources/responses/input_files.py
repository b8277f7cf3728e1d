"""Files that an input names by `file_id`, as a model reads them: texts as text, pictures as data URLs.

An item is stored with the id, and its content is read each time that a response is made of it. So a file that was
deleted meanwhile is gone from conversations as well.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.resources.files.content_types import IMAGES, is_text
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.responses.inline_files import readable
from quarterdeck.resources.responses.items import Item
from quarterdeck.store.files import FileRow, no_such_file
from quarterdeck.store.ownership import Owner


def gone(id: str) -> Item:
    """What takes the place of a file that was deleted."""
    return {"type": "input_text", "text": f"[The file {id} is not available any more.]"}


class ReadsFiles(Protocol):
    async def read(self, context: Sequence[Item], items: Sequence[Item], owner: Owner) -> list[Item]: ...


class InputFiles:
    def __init__(self, files: Files) -> None:
        self._files = files

    async def read(self, context: Sequence[Item], items: Sequence[Item], owner: Owner) -> list[Item]:
        """The items of a response, `context` first, with contents in the place of ids. Raises NotFoundError for a file
        of `items` that the owner has not; in `context` a note takes its place. Raises BadRequestError for files that
        are too large together, or that a model can't read."""
        own = {part["file_id"] for item in items for part in _named(item)}
        times = Counter(part["file_id"] for item in (*context, *items) for part in _named(item))
        if not times:
            return [*context, *items]
        contents = await self.contents(times, owner, own=own)
        return [_replaced(item, contents) for item in (*context, *items)]

    async def contents(self, times: Mapping[str, int], owner: Owner, *, own: Set[str]) -> dict[str, Item]:
        """The part that takes the place of each file. `times`: how often each is named. `own`: those that must be
        there. Raises as `read`."""
        found = await self._files.store.find(times.keys(), owner)
        for id in sorted(own):
            if id not in found:
                raise no_such_file(id, param="input")
        most = self._files.config.max_input_bytes
        # A file that is named twice is sent twice.
        if (size := sum(row.bytes * times[id] for id, row in found.items())) > most:
            raise BadRequestError(
                f"The files of the input have {size} bytes together, more than {most} (`files.max_input_mb`).",
                param="input",
                code="context_too_large",
            )
        return {id: await self._content(row, is_own=id in own) for id, row in found.items()}

    async def _content(self, row: FileRow, *, is_own: bool) -> Item:
        """The part that takes the file's place."""
        if not (is_text(row.mime) or row.mime in IMAGES):
            raise BadRequestError(
                f"The file '{row.id}' is {row.mime}, which models can't be given here: text and pictures"
                f" ({', '.join(IMAGES)}) are served.",
                param="input",
                code="unsupported_file",
            )
        try:
            pieces = await self._files.open(row)
        except NotFoundError:
            if is_own:
                raise
            return gone(row.id)
        try:
            body = b"".join([piece async for piece in pieces])
        finally:
            await pieces.aclose()
        return readable(body, row.filename, row.mime) or gone(row.id)


def _parts(item: Item) -> tuple[str, Any]:
    """The member of an item that has its parts, and what it holds."""
    name = "output" if item["type"] == "function_call_output" else "content"
    return name, item.get(name)


def _named(item: Item) -> Iterator[Item]:
    """The parts that name a file."""
    _, parts = _parts(item)
    if isinstance(parts, list):
        for part in parts:
            if part.get("file_id") is not None and part["type"] in ("input_file", "input_image"):
                yield part


def _replaced(item: Item, contents: dict[str, Item]) -> Item:
    if next(_named(item), None) is None:
        return item
    name, parts = _parts(item)
    return {**item, name: [_content_of(part, contents) for part in parts]}


def _content_of(part: Item, contents: dict[str, Item]) -> Item:
    """Raises BadRequestError for a file that is not a picture."""
    id = part.get("file_id")
    if id is None or part["type"] not in ("input_file", "input_image"):
        return part
    content = contents.get(id, gone(id))
    if part["type"] == "input_image" and id in contents:
        if content["type"] != "input_image":
            raise BadRequestError(f"The file '{id}' is not a picture.", param="input", code="unsupported_file")
        return {**content, "detail": part["detail"]}
    return content
